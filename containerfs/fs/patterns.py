"""Names that programs give to files for a while: those are not sent, or not at once."""

import re
from collections.abc import Iterable
from fnmatch import translate


class NamePatterns:
    """Tells by its name whether a file is one of these."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Args:
        patterns: Shell patterns for a name; case counts.
        """
        alternatives = "|".join(translate(pattern) for pattern in patterns)
        self._pattern = re.compile(alternatives or r"(?!)")

    def matches(self, name: str) -> bool:
        return self._pattern.match(name) is not None
