"""The README's table of options is the one in the code."""

import re
from pathlib import Path

from containerfs.options import OPTIONS

README = Path(__file__).parents[1] / "README.md"


def rows() -> list[list[str]]:
    section = README.read_text().split("\n## Options\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `--")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def plain(cell: str) -> str:
    return cell.strip("`").replace("\\|", "|")


def test_the_readme_lists_every_option_with_its_unit_default_and_meaning():
    expected = [
        [option.flag, option.unit, option.default, option.help] for option in OPTIONS.values()
    ]
    assert [[plain(cell) for cell in row] for row in rows()] == expected
