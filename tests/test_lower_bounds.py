"""The oldest versions that setup.cfg allows are enough."""

import configparser
import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BOUND = re.compile(r"([\w.-]+)>=([\w.]+)")
RUNNERS = {"hypothesis", "openai", "pytest", "pytest-trio"}
PARTS = ["tests/api", "tests/cache", "tests/cli/test_service.py", "tests/cli/test_waiting.py"]
PARTS += ["tests/upload", "tests/mounted/test_reading.py", "tests/mounted/test_writing.py"]
OFFLINE = re.compile(
    r"ConnectionError|ConnectTimeout|NewConnectionError|NameResolutionError|ProxyError"
    r"|Read timed out|Temporary failure in name resolution|Network is unreachable"
)


def lowest(section, name):
    """The requirements of a list, by name, each as its lower bound and nothing else."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    words = config[section][name].split()
    return {word: BOUND.fullmatch(word) for word in words}


def exactly(bounds):
    return [f"{bound[1]}=={bound[2]}" for bound in bounds.values() if bound]


def run(*words, patience, **more):
    words = [str(word) for word in words]
    return subprocess.run(words, capture_output=True, text=True, timeout=patience, **more)


def test_every_library_has_a_lower_bound_and_no_upper_one():
    bounds = lowest("options", "install_requires")
    assert [word for word, bound in bounds.items() if bound is None] == []


@pytest.mark.deep
def test_the_lowest_versions_pass_a_part_of_the_tests(tmp_path):
    """In a copy of the project, so that nothing is built in this one."""
    project = tmp_path / "project"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, project, ignore=left_out)
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    libraries = exactly(lowest("options", "install_requires"))
    tools = lowest("options.extras_require", "test")
    runners = exactly(
        {word: bound for word, bound in tools.items() if bound and bound[1] in RUNNERS}
    )
    assert len(runners) == len(RUNNERS)
    pip = [binaries / "pip", "install", "--disable-pip-version-check"]
    installed = run(*pip, *libraries, *runners, "-e", project, patience=900)
    if OFFLINE.search(installed.stderr):
        pytest.skip("the package index can't be reached")
    assert installed.returncode == 0, installed.stderr
    environ = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}
    words = [binaries / "python", "-m", "pytest", "-q", *PARTS]
    done = run(*words, patience=1800, cwd=project, env=environ)
    assert done.returncode == 0, done.stdout[-5000:]
