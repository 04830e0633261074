"""What a start does without, because starting is import time.

* Collecting garbage: whatever is imported stays, but the collector looks through all of it, again
  and again while it grows, which takes a tenth of the time.
* The versions of packages: pyfuse3 looks its own up, by way of `importlib.metadata`, which reads
  them with the standard library's mail parser. That takes as long as all the rest of pyfuse3.
"""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_METADATA = "importlib.metadata"


@contextmanager
def collecting_later() -> Iterator[Callable[[], None]]:
    """Collect no garbage inside, or until the function that it yields is called.

    What is there by then is never looked through again: neither is it garbage, nor will it be.
    """
    gc.disable()
    try:
        yield _collect
    finally:
        _collect()


def _collect() -> None:
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


@contextmanager
def versions_unknown() -> Iterator[None]:
    """Have packages that are imported inside find no version of their own, where nobody needs it.

    They find everything else that is in `importlib.metadata`.
    """
    if _METADATA in sys.modules:
        yield
        return
    sys.modules[_METADATA] = _NoVersions(_METADATA)
    try:
        yield
    finally:
        if isinstance(sys.modules.get(_METADATA), _NoVersions):
            del sys.modules[_METADATA]


class _NoVersions(ModuleType):
    """Stands for `importlib.metadata`."""

    class PackageNotFoundError(ModuleNotFoundError):
        """As there."""

    def version(self, name: str) -> str:
        """As there, of a package that is not installed."""
        raise self.PackageNotFoundError(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_METADATA) is self:
            del sys.modules[_METADATA]
        return getattr(import_module(_METADATA), name)
