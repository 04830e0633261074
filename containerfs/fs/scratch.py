"""Names of editors' and tools' temporary files: those stay on this machine."""

import re
from collections.abc import Iterable
from fnmatch import translate


class Scratch:
    """Tells by its name whether a file is temporary."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Args:
        patterns: Shell patterns for a name; case counts.
        """
        alternatives = "|".join(translate(pattern) for pattern in patterns)
        self._pattern = re.compile(alternatives or r"(?!)")

    def matches(self, name: str) -> bool:
        return self._pattern.match(name) is not None
