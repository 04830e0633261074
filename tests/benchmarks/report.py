"""A run for people to read, on a terminal or as Markdown, and for programs as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import Sample
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from summary import Figures, Judgement, Row, bytes_an_entry, failures, memory, rows
from targets import BYTES_AN_ENTRY, BYTES_OF_MOST_ENTRIES, MEMORY

_WIDTH = 190  # columns, where there is no terminal
_COLUMNS = (
    ("job", "left"),
    ("", "left"),
    ("containerfs, s", "right"),
    ("peer, s", "right"),
    ("ratio", "right"),
    ("limit, s", "right"),
    ("ratio", "right"),
    ("CPU, s", "right"),
    ("RSS, MB", "right"),
    ("requests", "right"),
    ("n", "right"),
    ("targets", "left"),
)
_AGAINST = {"peer": "peer", "limit": "limit", "rtt": "RTT"}


def write_json(path: Path, *, about: Mapping[str, Any], samples: Sequence[Sample]) -> None:
    """Everything that was measured, and what was made of it."""
    found = rows(samples, is_judged=not about["quick"])
    told = {
        "about": about,
        "rows": [asdict(row) for row in found],
        "samples": [asdict(sample) for sample in samples],
    }
    path.write_text(json.dumps(told, indent=1) + "\n")


def show(console: Console, *, about: Mapping[str, Any], samples: Sequence[Sample]) -> None:
    """Tables, one for each distance."""
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(_headline(about), highlight=False, markup=False)
    found = rows(samples, is_judged=not about["quick"])
    for title, cells in _tables(found):
        table = Table(title=title, title_justify="left", expand=False)
        for name, justify in _COLUMNS:
            table.add_column(name, justify=justify)  # type: ignore[arg-type]  # the words of rich
        for line in cells:
            table.add_row(*map(escape, line))
        console.print(table)
    for line in _notes(found, samples, is_judged=not about["quick"]):
        console.print(line, highlight=False, markup=False)


def write_markdown(path: Path, *, about: Mapping[str, Any], samples: Sequence[Sample]) -> None:
    """The same for a document."""
    found = rows(samples, is_judged=not about["quick"])
    lines = [_headline(about), ""]
    for title, cells in _tables(found):
        lines += [f"**{title}**", ""]
        lines.append("| " + " | ".join(name for name, _ in _COLUMNS) + " |")
        lines.append(
            "|" + "|".join("---:" if side == "right" else "---" for _, side in _COLUMNS) + "|"
        )
        lines += ["| " + " | ".join(line).replace("*", "\\*") + " |" for line in cells]
        lines.append("")
    lines += [f"* {line}" for line in _notes(found, samples, is_judged=not about["quick"])]
    path.write_text("\n".join(lines) + "\n")


def _headline(about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['date']}; {about['machine']}; {versions}. "
        f"Load before and after: {about['load'][0]:.1f}, {about['load'][1]:.1f}. "
        "Medians [least..most]; CPU, RSS and requests are the daemon's, ours / the peer's; "
        "n is the number of rounds, fewer for who takes long."
    )


def _tables(found: Sequence[Row]) -> Iterable[tuple[str, list[tuple[str, ...]]]]:
    for rtt, tls in dict.fromkeys((row.rtt, row.tls) for row in found):
        title = f"{rtt} ms round trip" + (", TLS" if tls else "")
        chosen = [row for row in found if (row.rtt, row.tls) == (rtt, tls)]
        yield title, [_cells(row) for row in chosen]


def _cells(row: Row) -> tuple[str, ...]:
    what = row.metric + (f", {row.amount:,} files" if row.amount is not None else "")
    mode = row.ours.contestant.partition(" ")[2]
    peer = row.peer
    return (
        row.job,
        what + (f" ({mode})" if mode else ""),
        _seconds(row.ours),
        f"{_seconds(peer)} {peer.contestant.partition(' ')[2]}" if peer else "-",
        _ratio(row.ours, peer),
        f"{row.limit.seconds:.3g} {row.limit.contestant}" if row.limit else "-",
        _ratio(row.ours, row.limit),
        _pair(row.ours.cpu, peer and peer.cpu, ".2f"),
        _pair(_mb(row.ours), peer and _mb(peer), ".0f"),
        _pair(row.ours.requests, peer and peer.requests, ".0f"),
        f"{row.ours.rounds}" + (f"/{peer.rounds}" if peer else ""),
        ", ".join(_judgement(each) for each in row.judgements),
    )


def _notes(found: Sequence[Row], samples: Sequence[Sample], *, is_judged: bool) -> list[str]:
    notes = []
    for line in memory(samples, "".join(MEMORY)):
        text = f"g, memory in {line.job}: {line.ours / 1e6:.0f} MB"
        if line.peer:
            ratio = line.ours / line.peer
            text += f" / {line.peer / 1e6:.0f} MB = {ratio:.2f}"
            if is_judged:
                text += f" {_mark(ratio <= MEMORY[line.job])} ≤ {MEMORY[line.job]}"
        notes.append(text)
    entry = bytes_an_entry(found)
    if entry is not None and is_judged:
        text = f"g, memory of one more file in a listing: {entry:.0f} bytes"
        notes.append(text + (f" {_mark(entry <= BYTES_AN_ENTRY)} ≤ {BYTES_AN_ENTRY}"))
        most = max(row.ours.rss or 0 for row in found if row.metric == "cold ls -l" and row.amount)
        limit = BYTES_OF_MOST_ENTRIES
        notes.append(
            f"g, memory with the most files: {most / 1e6:.0f} MB {_mark(most < limit)}"
            f" < {limit / 1e6:.0f} MB"
        )
    ahead = [_title(row) for row in found if row.peer and row.peer.seconds < row.ours.seconds]
    if ahead:
        notes.append(f"The peer is ahead in: {'; '.join(ahead)}.")
    missed = [
        f"{_title(row)}: {_judgement(each)}"
        for row in found
        for each in row.judgements
        if not each.is_met
    ]
    notes += [f"Missed: {each}" for each in missed]
    return notes + [f"Not measured: {each}" for each in failures(samples)]


def _title(row: Row) -> str:
    return f"{row.job} {_cells(row)[1]} ({row.rtt} ms{', TLS' if row.tls else ''})"


def _judgement(each: Judgement) -> str:
    target = each.target
    against = _AGAINST.get(target.against, target.against)
    kind = "" if target.quantity == "seconds" else f" {target.quantity}"
    return f"{_mark(each.is_met)} {each.found:.2g} ≤ {target.bound:.2g} {against}{kind}"


def _mark(is_met: bool) -> str:
    return "✓" if is_met else "✗"


def _seconds(figures: Figures) -> str:
    return f"{figures.seconds:.3g} [{figures.least:.3g}..{figures.most:.3g}]"


def _ratio(ours: Figures, other: Figures | None) -> str:
    return f"{ours.seconds / other.seconds:.2g}" if other else "-"


def _mb(figures: Figures) -> float | None:
    return figures.rss / 1e6 if figures.rss else None


def _pair(ours: float | None, other: float | None, form: str) -> str:
    return " / ".join("-" if each is None else format(each, form) for each in (ours, other))
