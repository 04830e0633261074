"""Every promise of the README's "How it behaves" has a mounted test of the same name."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def promises():
    """The bold beginnings of the section's bullets, in order."""
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("\n## How it behaves\n")[2].partition("\n## ")[0]
    bullets = re.split(r"^\* ", section, flags=re.MULTILINE)[1:]
    leads = [re.match(r"\*\*(.+?)\*\*", bullet, re.DOTALL) for bullet in bullets]
    assert all(leads), [bullet for bullet, lead in zip(bullets, leads, strict=True) if not lead]
    return [" ".join(lead[1].split()) for lead in leads if lead]


def name_of(promise):
    words = re.sub(r"[^a-z0-9]+", "_", promise.lower().replace("'", "").replace("’", ""))  # noqa: RUF001 - as typeset
    return f"test_{words.strip('_')}"


def mounted_tests():
    """The names of all mounted tests."""
    found = []
    for module in sorted((ROOT / "tests" / "mounted").glob("test_*.py")):
        tree = ast.parse(module.read_text())
        found += [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [name for name in found if name.startswith("test_")]


def test_a_promise_is_found_by_its_bold_beginning():
    assert name_of("The server's prefix is hidden.") == "test_the_servers_prefix_is_hidden"
    assert len(promises()) > 30


@pytest.mark.parametrize("promise", promises())
def test_every_promise_of_the_readme_has_a_mounted_test_of_its_name(promise):
    assert name_of(promise) in mounted_tests()
