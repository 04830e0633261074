"""How far the server is, and how fast it sends: what decides how many streams a file takes.

Side by side they hide round trips and the windows of connections; where there is no distance, each
more only costs.
"""

from collections import deque

from containerfs.cache.parts import PART

NEAR = 0.005  # seconds until an answer comes: below, one stream is as fast as several
STREAMS = 4  # of one file, side by side
ANSWERS = 16  # the latest ones, the quickest of which tells how far the server is
FLOW = 0.25  # seconds that a stream should last, so that the round trip before it costs little


class Pace:
    """What was seen of one server."""

    def __init__(self) -> None:
        self._answers: deque[float] = deque(maxlen=ANSWERS)
        self._rate = 0.0  # bytes a second, of the latest stream

    def answered(self, seconds: float) -> None:
        """An answer began so long after it was asked for."""
        self._answers.append(seconds)

    def brought(self, size: int, seconds: float) -> None:
        """A stream brought so many bytes in so long."""
        self._rate = size / max(seconds, 1e-6)

    @property
    def is_known(self) -> bool:
        """It was seen how fast a stream is: until then, what more should ask for is not known."""
        return self._rate > 0

    @property
    def streams(self) -> int:
        """How many to have side by side for one file."""
        is_far = bool(self._answers) and min(self._answers) > NEAR
        return STREAMS if is_far and self.is_known else 1

    @property
    def request(self) -> int:
        """Bytes to ask for at a time."""
        return max(PART, int(self._rate * FLOW) // PART * PART)
