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


def section(title):
    return (ROOT / "README.md").read_text().partition(f"\n### {title}\n")[2].partition("\n## ")[0]


def keys(module, name):
    """The keys of a dictionary that a mounted test goes by."""
    tree = ast.parse((ROOT / "tests" / "mounted" / f"{module}.py").read_text())
    (found,) = (
        node.value.keys
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    )
    return {ast.literal_eval(key) for key in found}


def test_what_does_not_pass_is_what_the_tests_pin():
    told = section("What does not pass")
    rows = [line for line in told.splitlines() if line.startswith("| ")]
    names = re.findall(r"`([^`]+)`", " ".join(rows))
    python = {name.rpartition(".")[2] for name in names if re.search(r"\.?test_\w+$", name)}
    modules = {id.split(".")[1] for id in keys("test_cpython", "UNFIT")}
    expected = {id.rpartition(".")[2] for id in keys("test_cpython", "UNFIT")}
    assert python == modules | expected
    stressors = {name for row in rows if "stress-ng" in row for name in re.findall(r"`(.+?)`", row)}
    assert stressors - {"posix_fallocate"} == keys("test_stress", "UNFIT")
    count = len(keys("test_stress", "STRESSORS") | keys("test_stress", "LONG"))
    assert f"{count} of stress-ng" in told
