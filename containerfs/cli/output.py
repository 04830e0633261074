"""What the commands print: JSON, JSON lines, YAML, or a table.

Everything in it came from a server, which may put control sequences into any name: they are
escaped in every format, so that a terminal never obeys them.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from containerfs.cli.shapes import cell
from containerfs.cli.visible import printable

T = TypeVar("T")
Shape = dict[str, Any]

_ALIASES = {"pretty": "json", "raw": "jsonl"}  # the official command line's words
FORMATS = ("json", "jsonl", "yaml", "table", *_ALIASES)
_WIDE = 10_000  # columns of a table that nobody's window limits

# DEL and C1 controls, marks of direction, line separators, and halves of surrogate pairs.
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def format_option(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command `--format`."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        help="How to print  [default: table on a terminal, jsonl in a pipe]",
    )(command)


def show(shape: Shape, *, form: str | None) -> None:
    """Print one object."""
    chosen = _chosen(form)
    if chosen == "table":
        _table([{"field": name, "value": _inner(value)} for name, value in shape.items()])
    elif chosen == "json":
        click.echo(_json(shape, indent=2))
    elif chosen == "yaml":
        click.echo(_yaml(shape), nl=False)
    else:
        click.echo(_json(shape))


def show_all(shapes: Sequence[Shape], *, columns: Sequence[str], form: str | None) -> None:
    """Print a list of objects; a table has only *columns* of them."""
    chosen = _chosen(form)
    if chosen == "table":
        _table([{name: cell(shape, name) for name in columns} for shape in shapes], columns)
    elif chosen == "json":
        click.echo(_json(list(shapes), indent=2))
    elif chosen == "yaml":
        click.echo(_yaml(list(shapes)), nl=False)
    else:
        for shape in shapes:
            click.echo(_json(shape))


def _chosen(form: str | None) -> str:
    if form is None:
        return "table" if sys.stdout.isatty() else "jsonl"
    return _ALIASES.get(form, form)


def _json(value: Any, *, indent: int | None = None) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _yaml(value: Any) -> str:
    import yaml

    plain: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    if _UNSAFE.search(plain):
        plain = yaml.safe_dump(value, sort_keys=False, allow_unicode=False)
    return plain


def _inner(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(rows: Sequence[dict[str, str]], columns: Sequence[str] = ("field", "value")) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold", justify="right" if name == "bytes" else "left")
    for row in rows:
        table.add_row(*(Text(printable(row[name])) for name in columns))
    Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False).print(table)
