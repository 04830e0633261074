"""The commands of the service, run as a user runs them, against a real server."""

import json
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

BINARY = bytes(range(256)) * 5000 + b"\r\n--\x00"


@dataclass(frozen=True)
class Done:
    code: int
    out: bytes
    err: str

    @property
    def objects(self) -> list[Any]:
        assert self.code == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


def environment(**variables: str) -> dict[str, str]:
    kept = ("OPENAI_", "CONTAINERFS_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
    return {**clean, "XDG_CONFIG_HOME": "/nonexistent", **variables}


@pytest.fixture
def run(server: Any) -> Run:
    """Runs `containerfs` with a group, a command and further words."""

    def run(*words: str, data: bytes = b"", environ: dict[str, str] | None = None) -> Done:
        variables = {"CONTAINERFS_UDS": server.uds} if environ is None else environ
        done = subprocess.run(
            [sys.executable, "-m", "containerfs", *words],
            input=data,
            capture_output=True,
            env=environment(**variables),
            timeout=60,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    return run


# Containers.


def test_a_container_is_created_with_everything_that_can_be_said(run: Run, server: Any) -> None:
    (made,) = run(
        *("containers", "create", "--name", "my box", "--memory-limit", "4g"),
        *("--expires-after", "5", "--network-policy", "allow:a.com,b.com"),
        *("--skill", "skill_1", "--skill", "skill_2@latest"),
    ).objects
    assert (made["object"], made["name"], made["memory_limit"]) == ("container", "my box", "4g")
    assert made["expires_after"] == {"anchor": "last_active_at", "minutes": 5}
    assert made["network_policy"] == {"type": "allowlist", "allowed_domains": ["a.com", "b.com"]}
    assert server.call("GET", f"/v1/containers/{made['id']}")["name"] == "my box"


def test_settings_of_a_container_can_be_json(run: Run) -> None:
    (made,) = run(
        *("containers", "create", "--name", "x", "--network-policy", '{"type": "disabled"}'),
        *("--expires-after", '{"anchor": "last_active_at", "minutes": 3}'),
    ).objects
    assert made["network_policy"] == {"type": "disabled"}
    assert made["expires_after"]["minutes"] == 3


@pytest.mark.parametrize(
    "words",
    [
        ("--expires-after", "soon"),
        ("--expires-after", '{"minutes": 3}'),
        ("--network-policy", "open"),
        ("--skill", "{"),
        ("--skill", "a@"),
    ],
)
def test_settings_that_make_no_sense_are_a_wrong_command_line(
    run: Run, server: Any, words: tuple[str, str]
) -> None:
    done = run("containers", "create", "--name", "x", *words)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert server.requests() == []


def test_containers_are_listed_over_pages(run: Run, server: Any) -> None:
    made = [server.new_container(f"box{n % 2}") for n in range(5)]
    newest = [each["id"] for each in run("containers", "list", "--limit", "2").objects]
    assert newest == made[::-1]
    oldest = run("containers", "list", "--order", "asc", "--max-items", "3", "--limit", "2")
    assert [each["id"] for each in oldest.objects] == made[:3]
    later = run("containers", "list", "--order", "asc", "--after", made[2])
    assert [each["id"] for each in later.objects] == made[3:]
    named = run("containers", "list", "--name", "box1")
    assert {each["name"] for each in named.objects} == {"box1"}


def test_ids_are_given_by_position_or_by_flag(run: Run, server: Any) -> None:
    container = server.new_container("x")
    assert run("containers", "retrieve", container).objects[0]["id"] == container
    assert run("containers", "retrieve", "--container-id", container).objects[0]["name"] == "x"
    file = server.upload(container, "f", b"123")["id"]
    for words in (
        (container, file),
        ("--container-id", container, file),
        ("--file-id", file, container),
        ("--file-id", file, "--container-id", container),
    ):
        assert run("containers:files", "retrieve", *words).objects[0]["bytes"] == 3


def test_a_container_is_deleted(run: Run, server: Any) -> None:
    container = server.new_container()
    assert run("containers", "delete", container).objects == [
        {"id": container, "object": "container.deleted", "deleted": True}
    ]
    assert server.call("GET", "/v1/containers")["data"] == []


# Files.


def test_a_file_goes_up_and_comes_down_byte_for_byte(run: Run, server: Any, tmp_path: Path) -> None:
    container = server.new_container()
    source = tmp_path / "ünusual name.bin"
    source.write_bytes(BINARY)
    (made,) = run("containers:files", "create", container, "--file", str(source)).objects
    assert made["bytes"] == len(BINARY)
    assert made["path"].endswith("-ünusual name.bin")
    assert server.content(container, made["id"]) == BINARY
    got = run("containers:files:content", "retrieve", container, made["id"])
    assert got.out == BINARY


def test_standard_input_is_uploaded_under_a_chosen_name(run: Run, server: Any) -> None:
    container = server.new_container()
    words = ("containers:files", "create", "--container-id", container, "--file", "-")
    (made,) = run(*words, "--name", "dir/x.txt", data=BINARY).objects
    assert made["path"].endswith("x.txt")
    assert server.content(container, made["id"]) == BINARY
    assert run(*words, data=b"y").objects[0]["path"].endswith("-stdin")


def test_files_are_listed_and_deleted(run: Run, server: Any) -> None:
    container = server.new_container()
    server.set_behaviours(null_bytes="assistant")
    server.upload(container, "a", b"1")
    gone = server.write(container, "/mnt/data/b", b"22")["id"]
    newest, oldest = run("containers:files", "list", container, "--limit", "1").objects
    assert (newest["path"], newest["bytes"], oldest["bytes"]) == ("/mnt/data/b", None, 1)
    assert run("containers:files", "delete", container, gone).objects[0]["deleted"] is True
    assert len(server.files(container)) == 1


@pytest.mark.parametrize(
    "words", [(), ("--file", "x", "--file-id", "y"), ("--file-id", "y", "--name", "z")]
)
def test_create_takes_exactly_one_source(run: Run, words: tuple[str, ...]) -> None:
    assert run("containers:files", "create", "c", *words).code == 2


def test_a_source_that_cannot_be_read_is_named(run: Run, server: Any, tmp_path: Path) -> None:
    container = server.new_container()
    for path in (tmp_path / "nothing-here", tmp_path):
        done = run("containers:files", "create", container, "--file", str(path))
        assert done.code == 1
        assert str(path) in done.err


# Content.


def test_content_is_saved_whole_or_not_at_all(run: Run, server: Any, tmp_path: Path) -> None:
    container = server.new_container()
    file = server.upload(container, "x.bin", BINARY)["id"]
    words = ("containers:files:content", "retrieve", container, file)
    target = tmp_path / "out"
    assert run(*words, "-o", str(target)).code == 0
    assert target.read_bytes() == BINARY
    target.write_bytes(b"precious")
    server.set_faults({"kind": "cut", "at": 100_000, "operation": "content"})
    assert run(*words, "--output", str(target)).code == 1
    assert target.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_content_is_saved_into_a_directory_under_its_own_name(
    run: Run, server: Any, tmp_path: Path
) -> None:
    container = server.new_container()
    for path, name in (
        ("/mnt/data/plain.txt", "plain.txt"),
        ("/mnt/data/a\x1b[2Jb", "a%1B[2Jb"),
        ("/mnt/data/..", None),
        ("../../evil", "evil"),
    ):
        file = server.write(container, path, b"data")["id"]
        directory = tmp_path / file
        directory.mkdir()
        words = ("containers:files:content", "retrieve", container, file, "-o", str(directory))
        assert run(*words).code == 0
        assert [found.name for found in directory.iterdir()] == [name or file]
    assert len(list(tmp_path.iterdir())) == 4


def test_content_of_another_length_than_listed_is_an_error(run: Run, server: Any) -> None:
    container = server.new_container()
    file = server.write(container, "/mnt/data/x", b"data", bytes=400)["id"]
    done = run("containers:files:content", "retrieve", container, file)
    assert done.code == 1
    assert "4 bytes came for a file of 400" in done.err


def test_content_can_go_to_a_device(run: Run, server: Any) -> None:
    container = server.new_container()
    file = server.upload(container, "x", b"data")["id"]
    words = ("containers:files:content", "retrieve", container, file)
    assert run(*words, "-o", "/dev/null").code == 0
    assert run(*words, "-o", "-").out == b"data"


# Formats.


@pytest.mark.parametrize("form", ["json", "pretty", "yaml"])
def test_lists_and_objects_are_printed_in_one_document(run: Run, server: Any, form: str) -> None:
    containers = [server.new_container(f"ü{n}") for n in range(2)]
    listed = run("containers", "list", "--format", form)
    parsed = yaml.safe_load(listed.out)  # JSON is YAML
    assert [each["id"] for each in parsed] == containers[::-1]
    one = run("containers", "retrieve", containers[0], "--format", form)
    assert yaml.safe_load(one.out)["name"] == "ü0"


def test_a_table_has_a_line_for_each(run: Run, server: Any) -> None:
    container = server.new_container("box")
    server.upload(container, "x" * 100, b"123")
    header, line = run("containers", "list", "--format", "table").out.decode().splitlines()
    assert header.split()[:3] == ["id", "name", "status"]
    assert line.split()[:3] == [container, "box", "running"]
    _, line = run("containers:files", "list", container, "--format", "table").out.splitlines()
    assert line.split()[-1].endswith(b"x" * 100)


@pytest.mark.parametrize("form", ["json", "jsonl", "raw", "yaml", "table"])
def test_control_sequences_from_the_server_never_reach_the_terminal(
    run: Run, server: Any, form: str
) -> None:
    server.new_container("a\x1b]0;x\x07\x9b2J\u202eb\u2028\r\n")
    printed = run("containers", "list", "--format", form).out.decode()
    assert all(char.isprintable() or char == "\n" for char in printed)


@pytest.fixture
def on_terminal(server: Any) -> Callable[..., tuple[int, bytes]]:
    """Runs a command on a terminal: its exit code and all that is shown there."""

    def on_terminal(*words: str) -> tuple[int, bytes]:
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "containerfs", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(CONTAINERFS_UDS=server.uds, COLUMNS="200", TERM="xterm"),
        )
        os.close(slave)
        said = b""
        try:
            while piece := os.read(master, 4096):
                said += piece
        except OSError:  # Linux says EIO where the other end is closed
            pass
        os.close(master)
        return process.wait(), said

    return on_terminal


def test_on_a_terminal_it_is_a_table_and_content_needs_a_place(
    on_terminal: Callable[..., tuple[int, bytes]], server: Any
) -> None:
    container = server.new_container("box")
    file = server.upload(container, "x", b"data")["id"]
    code, said = on_terminal("containers", "list")
    assert code == 0
    assert b"memory_limit" in said
    code, said = on_terminal("containers:files:content", "retrieve", container, file)
    assert code == 2
    assert b"data" not in said
    code, said = on_terminal("containers:files:content", "retrieve", container, file, "-o", "-")
    assert code == 0
    assert b"data" in said


def test_a_transfer_shows_its_progress_on_a_terminal_only(
    on_terminal: Callable[..., tuple[int, bytes]], run: Run, server: Any, tmp_path: Path
) -> None:
    container = server.new_container("box")
    (tmp_path / "big.bin").write_bytes(BINARY)
    up = ("containers:files", "create", container, "--file", str(tmp_path / "big.bin"))
    assert run(*up).err == ""
    code, said = on_terminal(*up)
    assert (code, b"big.bin" in said, b"1.3/1.3 MB" in said) == (0, True, True)
    file = server.files(container)[0]["id"]
    down = ("containers:files:content", "retrieve", container, file, "-o", str(tmp_path / "back"))
    assert run(*down).err == ""
    (tmp_path / "back").unlink()
    code, said = on_terminal(*down)
    assert (code, b"1.3/1.3 MB" in said) == (0, True)
    assert (tmp_path / "back").read_bytes() == BINARY


# Failures.


def test_each_kind_of_failure_has_its_exit_code_and_one_line(run: Run, server: Any) -> None:
    container = server.new_container()
    server.expire(container)
    for code, words in (
        (2, ("containers", "retrieve")),
        (2, ("containers", "retrieve", "a", "b")),
        (2, ("containers", "list", "--limit", "101")),
        (3, ("containers", "retrieve", "cntr_nope")),
        (3, ("containers:files:content", "retrieve", "cntr_nope", "cfile_nope")),
        (5, ("containers:files", "list", container)),
        (1, ("containers", "create", "--name", "x", "--memory-limit", "3g")),
    ):
        done = run(*words)
        assert (done.code, done.out) == (code, b""), words
        assert done.err.startswith("containerfs")
        assert done.err.count("\n") == 1


def test_the_key_is_taken_from_variable_file_or_command_and_shown_nowhere(
    run: Run, server_factory: Any, tmp_path: Path
) -> None:
    server = server_factory(api_key="sk-right-key", tcp=True)
    base = {"OPENAI_BASE_URL": server.base_url}
    key_file = tmp_path / "key"
    key_file.touch(mode=0o600)
    key_file.write_text("sk-right-key\n")
    listed = ("containers", "list")
    assert run(*listed, environ={**base, "OPENAI_API_KEY": "sk-right-key"}).code == 0
    assert run(*listed, "--api-key-file", str(key_file), environ=base).code == 0
    assert run(*listed, "--api-key-command", f"cat {key_file}", environ=base).code == 0
    denied = run(*listed, environ={**base, "OPENAI_API_KEY": "sk-wrong-key"})
    assert denied.code == 4
    assert "sk-wrong-key" not in denied.err
    key_file.chmod(0o644)
    assert run(*listed, "--api-key-file", str(key_file), environ=base).code == 4
    assert run(*listed, environ=base).code == 4
    assert run(*listed, environ={}).code == 4


def test_a_server_that_is_not_there_is_an_error(run: Run, tmp_path: Path) -> None:
    done = run("containers", "list", "--uds", str(tmp_path / "socket"), environ={})
    assert done.code == 1
    assert done.err.count("\n") == 1


def test_the_embedded_server_can_be_used_directly(run: Run, tmp_path: Path) -> None:
    words = ("--local", str(tmp_path / "data"))
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    (made,) = run("containers", "create", "--name", "x", *words, environ=environ).objects
    (found,) = run("containers", "retrieve", made["id"], *words, environ=environ).objects
    assert found["name"] == "x"
    assert run("containers", "retrieve", "nope", *words, environ=environ).code == 3


@pytest.mark.parametrize(
    "words", [("--help",), ("containers", "list"), ("containers", "list", "--format", "table")]
)
def test_output_that_finds_a_full_disk_is_one_line_and_an_error(
    server: Any, words: tuple[str, ...]
) -> None:
    server.new_container("box")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "containerfs", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(CONTAINERFS_UDS=server.uds),
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (1, b"containerfs: No space left on device\n")


@pytest.mark.parametrize(
    ("output", "said"),
    [("> /dev/full", "containerfs: No space left on device\n"), ("| true", ""), (">&-", "")],
)
def test_content_that_nobody_takes_is_one_line_at_most(
    run: Run, tmp_path: Path, output: str, said: str
) -> None:
    local = ("--local", str(tmp_path / "data"))
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    (box,) = run("containers", "create", "--name", "x", *local, environ=environ).objects
    words = ("containers:files", "create", box["id"], "--file", str(tmp_path / "large"), *local)
    (made,) = run(*words, environ=environ).objects
    command = [sys.executable, "-m", "containerfs", "containers:files:content", "retrieve"]
    done = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.join([*command, *local, box['id'], made['id']])} {output}"],
        capture_output=True,
        env=environment(**environ),
        timeout=60,
    )
    assert done.stderr.decode() == said


def test_a_list_whose_output_was_closed_is_read_by_nobody(run: Run, server: Any) -> None:
    server.new_container("box")
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m containerfs containers list >&-', sys.executable],
        capture_output=True,
        env=environment(CONTAINERFS_UDS=server.uds),
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "words",
    [
        ("containers", "list"),
        ("containers", "retrieve", "x"),
        ("containers", "delete", "x"),
        ("containers:files", "list", "x"),
        ("containers:files:content", "retrieve", "x", "y"),
    ],
)
def test_only_making_a_container_makes_the_data_directory(
    run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    data = tmp_path / "data"
    done = run(*words, "--local", str(data), environ={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert done.code == 3
    assert done.err == f"containerfs: {data}: there is no such data directory\n"
    assert not data.exists()
