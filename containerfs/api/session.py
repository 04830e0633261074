"""Calls with everything around them: a place, time limits, retries, and answers read and judged.

A session knows HTTP and the service's habits, not its operations.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import trio

from containerfs.api.call import Call, PlainBody
from containerfs.api.exchange import Exchange, check_encoding, close, read_body, request_id
from containerfs.api.failures import described_error, error_object
from containerfs.api.limits import Limiter
from containerfs.api.multipart import FilePart
from containerfs.api.parsing import parse_json
from containerfs.api.refusals import (
    refused_by_body,
    refused_by_clock,
    refused_by_nonsense,
    refused_by_status,
    refused_by_transport,
)
from containerfs.api.retry import GRACE, Refusal, Schedule, asked_wait, repeat
from containerfs.errors import NotFound, ServerFault

log = logging.getLogger(__name__)

LARGEST_ANSWER = 4 * 1024 * 1024  # bytes of JSON, which takes up to 25 times the memory; 100
# entries are about 50 KB
LARGEST_ERROR = 64 * 1024  # bytes of an error's body that are read
LONGEST_REFUSAL = 1500  # characters of a message; some quote what the server sent
UPLOAD_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Answer:
    """A success.

    Args:
        response: Its status and headers; for content, open and unread.
        data: Its parsed JSON; None for content, and for a deletion that was found done already, or
            was answered with something else.
        size: Bytes of the JSON.
    """

    response: httpx.Response
    data: Any = None
    size: int = 0

    @property
    def request_id(self) -> str | None:
        """The server's name for the exchange."""
        return request_id(self.response)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Attempt:
    """An attempt that was made the short way, for a session to judge and go on from.

    Args:
        outcome: The answer, with its body unread, or what went wrong.
        body: What was sent; None where there is none.
        sent_at: When, on trio's clock.
    """

    outcome: httpx.Response | httpx.TransportError
    body: FilePart | None = None
    sent_at: float


@dataclass(slots=True, eq=False, repr=False)
class _Progress:
    """How far the attempts at one call have come."""

    body: FilePart | PlainBody | None = None  # of the latest attempt
    may_have_acted: bool = False  # an attempt reached the server and its answer was lost

    @property
    def is_whole(self) -> bool:
        """The latest attempt has handed its last byte to the network."""
        return self.body is not None and self.body.is_whole

    @property
    def is_brief(self) -> bool:
        """What the latest attempt sends takes no time to speak of."""
        return not isinstance(self.body, FilePart) or self.body.is_brief


class Session:
    """Sends calls to one account of one server.

    Args:
        timeout: Seconds a metadata call may take, all its attempts together; also what a transfer
            may spend waiting between its attempts.
    """

    def __init__(self, *, exchange: Exchange, limiter: Limiter, timeout: float) -> None:
        self._exchange = exchange
        self._limiter = limiter
        self._timeout = timeout

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way."""
        return self._limiter.in_use > 0

    def on_pause(self, tell: Callable[[float], None]) -> None:
        """Have *tell* called with the seconds of each pause that the server asks for."""
        self._limiter.on_pause = tell

    async def send(self, call: Call, *, patience: float = math.inf) -> Answer:
        """Send a metadata call; one deadline covers its place in the queue and all attempts.

        Args:
            patience: Seconds that may pass between the attempts, beside what the server asks for.

        Raises:
            Uncertain: It creates something, was sent, and its answer was lost.
            FileSystemError: Any other failure.
        """
        schedule = self._schedule()
        schedule.patience = patience
        schedule.scope = trio.CancelScope(deadline=schedule.deadline)
        progress = _Progress()
        with schedule.scope:
            async with self._limiter.place():
                return await self._repeat(call, progress, schedule)
        raise refused_by_clock(call, is_whole=progress.is_whole).error

    async def upload(self, call: Call, *, first: Attempt | None = None) -> Answer:
        """Send a call that carries a file: it may take any time, as long as it moves.

        Args:
            first: The first attempt, which has been made and holds its place.

        Raises: As `send`.
        """
        schedule = Schedule(patience=self._timeout, most_attempts=UPLOAD_ATTEMPTS, grace=GRACE)
        if first is None:
            await self._limiter.enter(is_transfer=True)
        try:
            return await self._repeat(call, _Progress(), schedule, first)
        finally:
            self._limiter.leave(is_transfer=True)

    async def open(self, call: Call, *, first: Attempt | None = None) -> httpx.Response:
        """Send a call for content; the answer is open, its body unread, and `close` ends it.

        The deadline covers the wait for the answer's headers, the inactivity limit its body.
        The place is held until the answer is closed.

        Args:
            first: The first attempt, which has been made and holds its place.

        Raises: As `send`.
        """
        if first is None:
            await self._limiter.enter(is_transfer=True)
        try:
            return (await self._repeat(call, _Progress(), self._schedule(), first)).response
        except BaseException:
            self._limiter.leave(is_transfer=True)
            raise

    async def close(self, response: httpx.Response) -> None:
        """Give back what `open` gave; what is unread of it is dropped."""
        try:
            await close(response)
        finally:
            self._limiter.leave(is_transfer=True)

    def _schedule(self) -> Schedule:
        return Schedule(deadline=trio.current_time() + self._timeout, grace=GRACE)

    async def _repeat(
        self,
        call: Call,
        progress: _Progress,
        schedule: Schedule,
        first: Attempt | None = None,
    ) -> Answer:
        async def attempt(number: int) -> Answer | Refusal:
            nonlocal first
            made, first = first, None
            sent = made.body if made is not None else None
            body = progress.body = call.body() if sent is None else sent
            if made is None:
                schedule.put_off(self._limiter.pause)
                await self._limiter.sit_out_pause(schedule.latest(trio.current_time()))
            with trio.move_on_after(_share(call, number, schedule)):
                return self._redacted(await self._attempt(call, progress, body, made))
            progress.may_have_acted |= progress.is_whole
            return refused_by_clock(call, is_whole=progress.is_whole)

        return await repeat(attempt, schedule=schedule, what=call)

    async def _attempt(
        self,
        call: Call,
        progress: _Progress,
        body: FilePart | PlainBody,
        made: Attempt | None = None,
    ) -> Answer | Refusal:
        sent_at = trio.current_time() if made is None else made.sent_at
        first = None if made is None else made.outcome
        try:
            if isinstance(first, httpx.TransportError):
                raise first
            response = await self._exchange.send(call, body, first=first)
        except httpx.TransportError as exc:
            progress.may_have_acted |= progress.is_whole
            return refused_by_transport(call, exc, is_whole=progress.is_whole)
        except ServerFault as exc:  # a redirect: nothing was done
            return Refusal(error=exc, is_retriable=False)
        outcome: Answer | Refusal | None = None
        try:
            outcome = await self._judge(call, progress, response, sent_at=sent_at)
        finally:
            if not (call.is_content and isinstance(outcome, Answer)):
                await close(response)
        return outcome

    async def _judge(
        self, call: Call, progress: _Progress, response: httpx.Response, *, sent_at: float
    ) -> Answer | Refusal:
        self._measure(call, progress, response, sent_at=sent_at)
        had_been_lost = progress.may_have_acted or bool(response.extensions.get("repeated"))
        progress.may_have_acted = True
        if response.status_code in call.accepted:
            return await self._success(call, response)
        refusal = await self._refusal(call, response)
        progress.may_have_acted = had_been_lost or response.status_code >= 500
        if call.method == "DELETE" and had_been_lost and isinstance(refusal.error, NotFound):
            return Answer(response=response)  # an earlier attempt did it
        return refusal

    async def _success(self, call: Call, response: httpx.Response) -> Answer | Refusal:
        try:
            if call.is_content:
                check_encoding(response)
                return Answer(response=response)
            text = await read_body(response, most=LARGEST_ANSWER)
            if call.method == "DELETE" and not _describes(text):
                return Answer(response=response)  # it is done: nothing more need be said
            data = parse_json(text)
        except httpx.TransportError as exc:
            return refused_by_transport(call, exc, is_whole=True)
        except ServerFault as exc:
            return refused_by_nonsense(call, exc, request_id=request_id(response))
        error = described_error(data)
        if error is not None:
            error = self._cleared(error)
            name = request_id(response)
            return refused_by_body(call, response.status_code, error, request_id=name)
        return Answer(response=response, data=data, size=len(text))

    async def _refusal(self, call: Call, response: httpx.Response) -> Refusal:
        try:
            error = error_object(await read_body(response, most=LARGEST_ERROR))
        except (httpx.TransportError, ServerFault) as exc:
            log.debug("%s: the error's body is lost: %s", call, exc)
            error = None
        return refused_by_status(
            call,
            response.status_code,
            response.headers,
            self._cleared(error or {}),
            request_id=request_id(response),
        )

    def _measure(
        self, call: Call, progress: _Progress, response: httpx.Response, *, sent_at: float
    ) -> None:
        took = trio.current_time() - sent_at
        status = response.status_code
        if log.isEnabledFor(logging.DEBUG):
            name = request_id(response)
            log.debug("%s: %d in %.0f ms (request %s)", call, status, took * 1e3, name)
        if status == 429:
            self._limiter.refused(sent_at=sent_at, wait=asked_wait(response.headers))
        elif status < 400 and progress.is_brief:  # else its time is not the server's haste
            self._limiter.answered(after=took)

    def _cleared(self, error: Mapping[str, Any]) -> Mapping[str, Any]:
        """The error object with a message without the key, before the message is cut."""
        message = error.get("message")
        if not isinstance(message, str):
            return error
        return {**error, "message": self._exchange.redacted(message)}

    def _redacted(self, outcome: Answer | Refusal) -> Answer | Refusal:
        """The outcome without the key: a server may repeat it in whatever a message quotes."""
        if isinstance(outcome, Refusal):
            error = outcome.error
            text = self._exchange.redacted(str(error))
            is_long = len(text) > LONGEST_REFUSAL
            error.args = (f"{text[:LONGEST_REFUSAL]}…" if is_long else text,)
        return outcome


def _describes(text: bytes) -> bool:
    """Whether *text* is more than a word: JSON, or a page of something in between."""
    return text.lstrip()[:1] in (b"{", b"[", b"<")


def _share(call: Call, number: int, schedule: Schedule) -> float:
    # The first attempt at what is safe to repeat gets half the time, so that a connection or a
    # server that stands still leaves time for another; everything else gets all there is.
    left = max(0.0, schedule.deadline - trio.current_time())
    return left / 2 if number == 0 and call.is_idempotent else left
