"""Names that programs give to files for a while: those are not sent, or not at once."""

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import cached_property


class NamePatterns:
    """Tells by its name whether a file is one of these."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Args:
        patterns: Shell patterns for a name; case counts.
        """
        self._patterns = tuple(patterns)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Not before a name is looked at: to compile it takes a while, and starting is time.
        alternatives = "|".join(translate(pattern) for pattern in self._patterns)
        return re.compile(alternatives or r"(?!)")

    def matches(self, name: str) -> bool:
        return self._pattern.match(name) is not None
