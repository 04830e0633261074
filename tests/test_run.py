"""The script `run`: what it says before it can work, and what it starts when all is there."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = [ROOT / "run", ROOT / ".ci" / "run", ROOT / "tests" / "demo.sh"]
BASICS = "awk bash cat cksum cut dirname env grep mkdir printf readlink realpath sed".split()  # noqa: SIM905 - easier to read


@pytest.fixture
def project(tmp_path):
    """A copy of the script and of what it looks at, without a virtual environment."""
    path = tmp_path / "project"
    path.mkdir()
    for name in ("run", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, path)
    return path


@pytest.fixture
def programs(tmp_path):
    """A search path with the basic programs only; returns how to add one more."""
    path = tmp_path / "bin"
    path.mkdir()
    for name in BASICS:
        (path / name).symlink_to(shutil.which(name))

    def add(name: str, script: str) -> None:
        (path / name).unlink(missing_ok=True)  # what it leads to is the machine's own
        (path / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (path / name).chmod(0o755)

    return add


@pytest.fixture
def run(project, tmp_path):
    def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(project / "run"), *words],
            cwd=tmp_path,
            env={"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)} | environ,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def set_up(project, programs):
    """A project in which everything is there; its containerfs prints what it is given."""
    programs("fusermount3", "exit 0")
    binaries = project / ".venv" / "bin"
    binaries.mkdir(parents=True)
    prints = f'# runs {binaries}/python\nprintf "%s\\n" "$@"'
    for name, script in (("python", "exit 0"), ("containerfs", prints)):
        (binaries / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (binaries / name).chmod(0o755)
    files = (project / "setup.cfg").read_bytes() + (project / "pyproject.toml").read_bytes()
    stamp = subprocess.run(["cksum"], input=files, capture_output=True, check=True).stdout
    (project / ".venv" / "stamp").write_bytes(stamp)


@pytest.fixture
def tools(project, programs, set_up):
    """All that the tests need is there too; pytest prints what it is given."""
    listed = re.search(r"^test_tools=\((.*?)^\)", (project / "run").read_text(), re.M | re.S)
    for tool in listed[1].split():
        programs(tool.partition(":")[0], "exit 0")
    programs("nproc", "echo 2")
    binaries = project / ".venv" / "bin"
    for name in ("ruff", "mypy"):
        shutil.copy(binaries / "python", binaries / name)
    shutil.copy(binaries / "containerfs", binaries / "pytest")
    shutil.copy(project / ".venv" / "stamp", project / ".venv" / "stamp-test")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_are_valid_and_can_be_executed(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)


@pytest.mark.usefixtures("programs")
def test_without_a_command_it_says_how_it_is_used(run):
    done = run()
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ./run mount")
    assert run("--help").returncode == 0


def test_an_old_interpreter_is_named(run, programs):
    programs("python3", '[[ $1 != --version ]] || { echo "Python 3.9.2"; exit 0; }; exit 1')
    done = run("mount")
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed; found: Python 3.9.2" in done.stderr


@pytest.mark.usefixtures("programs")
def test_no_interpreter_is_said(run):
    assert "Python 3.11 or newer is needed; found: no python3" in run("mount").stderr


def test_where_there_is_no_apt_it_names_what_is_missing_and_stops(run, programs, project):
    programs("python3", 'case "$*" in *version_info\\[*) echo 3.12 ;; *) exit 0 ;; esac')
    done = run("mount")
    assert done.returncode == 1
    assert "fuse3 gcc libc6-dev pkg-config libfuse3-dev; install them and try again" in done.stderr
    assert not (project / ".venv").exists()


@pytest.mark.usefixtures("set_up")
def test_a_clone_that_was_moved_is_set_up_anew(run, project):
    made = project / ".venv" / "bin" / "containerfs"
    made.write_text("#!/elsewhere/.venv/bin/python\n")
    done = run("mount")
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr  # to make it: there is none here


@pytest.mark.usefixtures("set_up")
def test_mount_takes_the_embedded_server_without_a_key(run, tmp_path):
    done = run("mount")
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["mount", "local:", "containers"]
    assert (tmp_path / "containers").is_dir()


@pytest.mark.usefixtures("set_up")
def test_mount_takes_the_service_with_a_key_and_passes_options_on(run, tmp_path):
    done = run("mount", "some/place", "--ttl", "5", OPENAI_API_KEY="x")
    assert done.stdout.splitlines() == ["mount", "openai:", "some/place", "--ttl", "5"]
    assert (tmp_path / "some" / "place").is_dir()


@pytest.mark.usefixtures("set_up")
def test_mount_takes_a_source_that_is_given(run):
    done = run("mount", "local:/data", "-o", "ro", OPENAI_API_KEY="x")
    assert done.stdout.splitlines() == ["mount", "local:/data", "containers", "-o", "ro"]


@pytest.mark.usefixtures("set_up")
def test_help_makes_no_directory(run, tmp_path):
    run("mount", "--help")
    assert not (tmp_path / "containers").exists()


@pytest.mark.parametrize("words", [["--help"], ["-x", "-h"]], ids=str)
@pytest.mark.parametrize("command", ["mount", "test", "demo", "bench"])
@pytest.mark.usefixtures("programs")
def test_help_needs_nothing(run, project, command, words):
    done = run(command, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ./run mount")
    assert not (project / ".venv").exists()


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize(
    ("command", "said"),
    [("mount", ["mount", "--help"]), ("test", ["--help"])],
    ids=["mount", "test"],
)
def test_help_ends_with_that_of_the_program_where_it_is_there(run, project, command, said):
    for checker in ("ruff", "mypy"):  # nothing is checked first
        (project / ".venv" / "bin" / checker).write_text("exit 1")
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    usage, _, rest = done.stdout.partition("\n\n" + said[0])
    assert usage.startswith("usage: ./run mount")
    assert [said[0], *rest.splitlines()[1:]] == said


@pytest.mark.usefixtures("set_up")
def test_a_changed_dependency_is_set_up_anew(run, project):
    with (project / "setup.cfg").open("a") as file:
        file.write("\n")
    assert "Python 3.11 or newer" in run("mount").stderr


@pytest.mark.usefixtures("set_up")
def test_missing_benchmarks_are_said(run):
    assert run("bench").stderr == "run: there are no benchmarks yet\n"


def test_only_what_is_missing_is_installed(run, programs, tmp_path):
    programs("python3", 'case "$*" in *version_info\\[*) echo 3.12 ;; *) exit 0 ;; esac')
    programs("fusermount3", "exit 0")
    programs("gcc", "exit 0")
    programs("sudo", 'exec "$@"')
    programs("apt-get", f'echo "$@" >> {tmp_path}/asked')
    run("mount")
    assert (tmp_path / "asked").read_text().splitlines() == [
        "update -qq",
        "install -qq -y --no-install-recommends pkg-config libfuse3-dev",
    ]


def test_the_package_is_compiled_where_starting_it_would_not_do_that(run, programs, project):
    for name in ("fusermount3", "gcc", "pkg-config", "python3"):
        programs(name, "exit 0")
    packaged = project / "containerfs" / "__init__.py"
    packaged.parent.mkdir()
    packaged.touch()
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    installs_nothing = f'case "$*" in *pip*) exit 0 ;; esac; exec {sys.executable} "$@"'
    python.write_text(f"#!{shutil.which('bash')}\n{installs_nothing}\n")
    python.chmod(0o755)
    run("mount", PYTHONDONTWRITEBYTECODE="1")
    assert Path(importlib.util.cache_from_source(str(packaged))).exists()


@pytest.mark.usefixtures("tools")
def test_all_tests_are_run_side_by_side(run):
    parallel = ["-n", "4", "--dist", "loadfile", "--no-loadscope-reorder"]
    assert run("test").stdout.splitlines() == parallel
    assert run("test", "tests/cli", "-k", "a").stdout.splitlines() == [
        *parallel,
        *("tests/cli", "-k", "a"),
    ]


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize(
    "words", [["--deep"], ["-x", "--pdb"], ["-p", "no:xdist"], ["-x", "run::test_a"]], ids=str
)
def test_named_and_deep_tests_are_run_one_after_the_other(run, words):
    assert run("test", *words).stdout.splitlines() == words
