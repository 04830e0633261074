"""The jobs: what is done, by whom, and how far away the server may be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import reading
import writing
from entrants import Entrant
from stage import Stage

MEMORY = "g"  # not a job of its own: the memory of the daemons in these
MEASURED_FOR_MEMORY = "abcdef"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row or some rows of the table."""

    letter: str
    title: str
    entrants: Callable[[Stage], Sequence[Entrant]]
    is_near_only: bool = False  # a distance would only make it longer
    has_tls: bool = False


JOBS = {
    job.letter: job
    for job in (
        Job(letter="a", title="one large file, cold", entrants=reading.cold, has_tls=True),
        Job(letter="b", title="the same again, warm", entrants=reading.warm),
        Job(letter="c", title="many small files", entrants=reading.small, has_tls=True),
        Job(letter="d", title="ls -l of a large directory", entrants=reading.listed),
        Job(letter="e", title="many small files, in", entrants=writing.small),
        Job(letter="f", title="one large file, in", entrants=writing.large),
        Job(letter="h", title="spawn to first ls", entrants=reading.spawned, is_near_only=True),
        Job(
            letter="i",
            title="random 4 KiB reads of a cached file",
            entrants=reading.scattered,
        ),
        Job(letter="j", title="an editor's save", entrants=writing.saved),
        Job(letter="k", title="growth", entrants=reading.grown, is_near_only=True),
    )
}
LETTERS = sorted([*JOBS, MEMORY])


def chosen(letters: Sequence[str]) -> list[Job]:
    """The jobs to run for these letters; all for none."""
    wanted = set(letters or JOBS)
    if MEMORY in wanted:
        wanted |= set(MEASURED_FOR_MEMORY)
    return [job for letter, job in JOBS.items() if letter in wanted]
