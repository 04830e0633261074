"""Faults on request: which request suffers what, decided by operation, count and probability.

A fault is told as `operation=content,kind=cut,at=1000,count=1` or as the same members in JSON.
This module only decides; `disturbances` carries it out.
"""

import dataclasses
import random
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

OPERATIONS = (
    "list_containers",
    "create_container",
    "retrieve_container",
    "delete_container",
    "list_files",
    "create_file",
    "retrieve_file",
    "delete_file",
    "content",
)

Kind = Literal[
    "status",  # answered with `status` instead (with `done`: after it was carried out)
    "rate-limit",  # 429 with Retry-After to more than `limit` requests in `seconds`
    "answer",  # answered with `status`, `headers` and `body` as given
    "reset",  # the connection is reset before anything is done
    "reset-after",  # it is carried out, then the connection is reset instead of the answer
    "stall",  # nothing is done or answered for `seconds`, or for ever
    "stall-body",  # the answer's body stops at byte `at` for `seconds`, or for ever
    "cut",  # the answer's body ends at byte `at`, and the connection with it
    "drip",  # the answer's body comes a byte at a time, `seconds` apart
    "endless",  # the answer's body is followed by zeros for ever, its length untold
    "latency",  # the request waits `seconds` first
]
RetryHeader = Literal["none", "retry-after", "retry-after-date", "retry-after-ms", "x-should-retry"]


class FaultError(ValueError):
    """A fault that makes no sense; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: what happens, and to which requests."""

    kind: Kind
    operation: str = "*"  # one of OPERATIONS, or * for any
    match: str = ""  # only requests whose path and query contain this
    after: int = 0  # the first so many matches are spared
    count: int | None = None  # how many suffer; None for all
    probability: float = 1.0  # of suffering, for each match
    seed: int = 0  # of the probability
    status: int = 503
    header: RetryHeader = "none"  # how the answer says when to come back
    value: str = "1"  # of that header: seconds, milliseconds for -ms, true or false for x-…
    done: bool = False  # the operation is carried out before the answer is replaced
    at: int = 0  # byte of the body
    seconds: float | None = None
    limit: int = 100  # requests
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    body_base64: str | None = None  # instead of `body`, where it is no text


class Rule:
    """A fault at work, with its counters."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.seen = 0
        self.fired = 0
        self._random = random.Random(fault.seed)  # noqa: S311 - repeatable, not secret
        self._times: deque[float] = deque()

    def fires(self, operation: str, target: str) -> bool:
        """Whether this request suffers; counts it."""
        fault = self.fault
        if fault.operation not in ("*", operation) or fault.match not in target:
            return False
        self.seen += 1
        if self.seen <= fault.after or (fault.count is not None and self.fired >= fault.count):
            return False
        if fault.probability < 1 and self._random.random() >= fault.probability:
            return False
        if fault.kind == "rate-limit" and not self._is_over_limit():
            return False
        self.fired += 1
        return True

    def as_json(self) -> dict[str, Any]:
        """The fault and its counters."""
        return {**dataclasses.asdict(self.fault), "seen": self.seen, "fired": self.fired}

    @property
    def wait(self) -> float:
        """Seconds until a rate-limited client may come back."""
        return max(0.0, self._times[0] + self._window - time.monotonic()) if self._times else 0.0

    @property
    def _window(self) -> float:
        return 60.0 if self.fault.seconds is None else self.fault.seconds

    def _is_over_limit(self) -> bool:
        now = time.monotonic()
        while self._times and self._times[0] <= now - self._window:
            self._times.popleft()
        if len(self._times) >= self.fault.limit:
            return True
        self._times.append(now)
        return False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one request suffers."""

    latency: float  # seconds
    rule: Rule | None


class Faults:
    """All faults at work, in order; the first that fires decides, latencies add up."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._rules = [Rule(fault) for fault in faults]

    def judge(self, operation: str, target: str) -> Verdict:
        """What the request for *target* suffers; counts it."""
        latency = 0.0
        for rule in self._rules:
            if rule.fires(operation, target):
                if rule.fault.kind != "latency":
                    return Verdict(latency, rule)
                latency += rule.fault.seconds or 0.0
        return Verdict(latency, None)

    def as_json(self) -> list[dict[str, Any]]:
        """Every fault with its counters."""
        return [rule.as_json() for rule in self._rules]


def parse_fault(text: str) -> Fault:
    """A fault from `name=value,name=value`; raises FaultError."""
    values: dict[str, Any] = {}
    for word in text.split(","):
        name, equals, value = word.partition("=")
        if not equals:
            raise FaultError(f"'{word}' is not NAME=VALUE")
        values[name.strip().replace("-", "_")] = value.strip()
    return fault_from_json(values)


def fault_from_json(values: Mapping[str, Any]) -> Fault:
    """A fault from its members, which may be text; raises FaultError."""
    known = {field.name: field for field in dataclasses.fields(Fault)}
    for name in values:
        if name not in known:
            raise FaultError(f"a fault has no '{name}': it has {', '.join(known)}")
    if "kind" not in values:
        raise FaultError(f"a fault needs a kind: {', '.join(get_args(Kind))}")
    fault = Fault(**{name: _member(name, value) for name, value in values.items()})
    _check_numbers(fault)
    for name, words in _WORDS.items():
        if getattr(fault, name) not in words:
            raise FaultError(
                f"'{getattr(fault, name)}' is no {name} of a fault: {', '.join(words)}"
            )
    return fault


_WORDS: Mapping[str, tuple[str, ...]] = {
    "operation": ("*", *OPERATIONS),
    "kind": get_args(Kind),
    "header": get_args(RetryHeader),
}


def _check_numbers(fault: Fault) -> None:
    amounts = (fault.after, fault.count or 0, fault.at, fault.seconds or 0, fault.limit)
    if min(amounts) < 0 or not 0 <= fault.probability <= 1 or not 200 <= fault.status <= 599:
        raise FaultError("a fault has a number that makes no sense")


def _member(name: str, value: Any) -> Any:
    try:
        return _converted(name, value)
    except (TypeError, ValueError) as exc:
        raise FaultError(f"'{value}' is no {name} of a fault") from exc


def _converted(name: str, value: Any) -> Any:
    if name in ("after", "seed", "status", "at", "limit"):
        return int(value)
    if name in ("count",):
        return None if value is None else int(value)
    if name == "probability":
        return float(value)
    if name == "seconds":
        return None if value is None else float(value)
    if name == "done":
        return value in (True, "true", "on", "yes", "1")
    if name == "headers":
        pairs = value.items() if isinstance(value, Mapping) else value
        return tuple((str(key), str(word)) for key, word in pairs)
    return None if value is None else str(value)
