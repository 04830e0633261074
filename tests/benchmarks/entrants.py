"""Who does a job: a contestant together with what it has to do in each round."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from measure import Meter, Role
from stage import Contestant

PARALLEL = 64  # transfers that curl has under way at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """One contestant of a job.

    Args:
        play: Does the job once and takes the samples.
        missing: Why it can't; None when it can.
    """

    name: str
    role: Role
    play: Callable[[Meter], None]
    missing: str | None = None


def entered(
    contestants: Iterable[Contestant], play: Callable[[Contestant, Meter], None]
) -> list[Entrant]:
    """Contestants that all do the same."""
    return [
        Entrant(name=each.name, role=each.role, play=partial(play, each), missing=each.missing)
        for each in contestants
    ]


def curl(
    *, config: Path, transfers: Sequence[dict[str, str]], certificate: Path | None
) -> list[str | Path]:
    """The command that makes transfers, many at once, as fast as the line and the server allow.

    Args:
        config: Where to write curl's words.
        transfers: The long options of each, without the dashes.
        certificate: What to trust.
    """
    common = {"output": "/dev/null", **({"cacert": str(certificate)} if certificate else {})}
    blocks = (
        "\n".join(("fail", *(f'{name} = "{value}"' for name, value in {**common, **each}.items())))
        for each in transfers
    )
    config.write_text("\nnext\n".join(blocks))  # which makes curl forget all but a few options
    many = ["-Z", "--parallel-max", str(PARALLEL)] if len(transfers) > 1 else []
    return ["curl", "--no-progress-meter", *many, "-K", config]
