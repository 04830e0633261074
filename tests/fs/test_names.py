"""Names: every name the kernel or the server can have, there and back."""

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from containerfs.errors import Invalid, NameTooLong
from containerfs.fs.names.names import (
    NAME_MAX,
    OUTSIDE,
    components,
    container_name,
    escape,
    escape_id,
    from_kernel,
    id_tail,
    is_upload,
    stripped,
    tailed,
    to_kernel,
    unescape,
    upload_name,
)

HASH = "0123456789abcdef" * 2 + "-"
ID = "cfile_68b0c0ffee0123456789abcdef012345"

KERNEL_NAMES = st.binary(min_size=1, max_size=255).map(
    lambda name: name.replace(b"/", b"s").replace(b"\0", b"z")
)
# Any text, and text that is dense with what escaping is about.
PIECES = [
    "%",
    "2",
    "5",
    "E",
    "F",
    "f",
    "%2F",
    "%25",
    "%2E",
    "%00",
    "%7F",
    "%C2%80",
    "%ED%A0",
    ".",
    "..",
    "/",
    "é",
    "😀",
    "a",
    "~",
]
HARD_TEXT = st.one_of(
    st.text(max_size=300),
    st.text(alphabet=st.characters(codec=None, categories=["Cs", "Cc", "L"]), max_size=80),
    st.lists(
        st.sampled_from([*PIECES, "\0", "\n", "\x7f", "\x85", "\ud800", "\udcff"]), max_size=12
    ).map("".join),
)
STEPS = [
    "/",
    "//",
    "/mnt/data/",
    "mnt/data/",
    "..",
    ".",
    "a",
    "b",
    ".outside",
    "%2Eoutside",
    "%2F",
    "/etc/passwd",
]
PATHS = st.one_of(
    HARD_TEXT,
    st.lists(
        st.sampled_from([*STEPS, "\0", "\ud800", "x" * 300, "é" * 200, HASH, " "]), max_size=10
    ).map("".join),
)


def kernel_can_hold(name: str) -> bool:
    raw = to_kernel(name)
    return 1 <= len(raw) <= NAME_MAX and raw not in (b".", b"..") and not set(raw) & set(b"/\0")


@given(KERNEL_NAMES)
@example(b"\xff\xfe")
@example("naïve ☃.txt".encode())
@example(b"\xed\xa0\x80")
def test_any_name_of_the_kernel_survives_being_text(name):
    assert to_kernel(from_kernel(name)) == name


def test_a_name_of_256_bytes_is_refused():
    assert from_kernel(b"a" * 255)
    with pytest.raises(NameTooLong):
        from_kernel(b"a" * 256)


@given(HARD_TEXT)
@example("")
@example(".")
@example("..")
@example("%2E")
@example("%2E%2E")
@example("/")
@example("\0")
@example("\ud800")
@example("%" * 255)
@example("/" * 255)
@example("😀" * 64)
def test_every_name_of_the_server_is_one_that_the_kernel_can_hold(name):
    assert kernel_can_hold(escape(name, id=ID))
    assert kernel_can_hold(escape(name, id=""))


@given(HARD_TEXT, HARD_TEXT)
@example(".", "%2E")
@example("%2E", "%252E")
@example("..", "%2E%2E")
@example("%2E%2E", "%252E%2E")
@example("/", "%2F")
@example("%2f", "%252f")
@example("\x80", "%C2%80")
@example("\ud800", "%ED%A0%80")
@example("", "%00")
def test_two_names_are_never_shown_as_one(one, other):
    if one != other and len(os.fsencode(escape(one, id="1" * 40))) < 240:
        assert escape(one, id="cfile_11111111") != escape(other, id="cfile_22222222")


@given(HARD_TEXT)
@example("%41")
@example("%2")
@example("100%")
@example("%E2%82%AC")
def test_unescaping_gives_the_name_back(name):
    shown = escape(name, id=ID)
    is_text = not any("\ud800" <= char <= "\udfff" for char in name)  # a server's need not be
    if name and is_text and "~" not in shown:
        assert unescape(shown) == name


@given(st.text(alphabet="abcXYZ019 ._-é☃😀~+@=,", min_size=1, max_size=60))
@example("%41")
@example("100%.txt")
@example("%zz")
def test_ordinary_names_are_shown_as_they_are(name):
    if name not in (".", ".."):
        assert escape(name, id=ID) == name


@given(st.text(max_size=300))
def test_an_id_is_a_name_whatever_it_is_made_of(id):
    assert kernel_can_hold(escape_id(id))
    assert len(id_tail(id)) == 8
    assert id_tail(id).isalnum()


def test_names_that_are_cut_are_told_apart_by_their_ids():
    name = "x" * 300
    one, other = escape(name, id="cfile_aaaaaaaa"), escape(name, id="cfile_bbbbbbbb")
    assert one != other
    assert len(one) == len(other) == NAME_MAX
    assert one.endswith("~aaaaaaaa")


def test_a_cut_never_splits_a_character():
    shown = escape("😀" * 100, id=ID)
    assert shown.encode()
    assert shown.startswith("😀" * 60)


def test_a_name_of_odd_bytes_can_be_cut_too():
    name = from_kernel(b"\xff" * 255)
    assert kernel_can_hold(tailed(name, id=ID))


@given(PATHS)
@example("/mnt/data/")
@example("/mnt/data/../../etc/passwd")
@example("//")
@example("/")
@example("")
@example("..")
@example("/mnt/data/a/mnt/data/b")
@example("/mnt/data/x" * 50)
@example("/mnt/data/\0")
@example("/mnt/data/\ud800/\udfff")
@example("/mnt/data/.outside/x")
@example(".outside")
@example("/etc/passwd")
def test_no_path_of_the_server_leads_out_of_its_container(path):
    parts = components(path, id=ID)
    assert parts
    assert all(kernel_can_hold(part) for part in parts)
    # What is below .outside is outside /mnt/data, and nothing else is.
    assert (parts[0] == OUTSIDE) == (path.startswith("/") and not path.startswith("/mnt/data/"))


@pytest.mark.parametrize(
    "path",
    ["/mnt/data/" + "a/" * 10_000 + "b", "/mnt/data/" + "y" * 1_000_000, "z/" * 500_000],
    ids=["many-levels", "one-long-name", "both"],
)
def test_monstrous_paths_become_one_name(path):
    parts = components(path, id=ID)
    assert len(parts) == 1
    assert kernel_can_hold(parts[0])


def test_paths_run_together_become_one_name():
    (name,) = components("/mnt/data/a.txt/mnt/data/b.txt", id=ID)
    assert name == "a.txt%2Fmnt%2Fdata%2Fb.txt"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/mnt/data/a.txt", ("a.txt",)),
        ("/mnt/data/d/a.txt", ("d", "a.txt")),
        ("/mnt/data//d//a.txt", ("d", "a.txt")),
        ("out/report.csv", ("out", "report.csv")),
        ("/tmp/x", (OUTSIDE, "tmp", "x")),
        ("/mnt/database", (OUTSIDE, "mnt", "database")),
        ("/mnt/data/../x", ("%2E%2E", "x")),
        ("/mnt/data/.", ("%2E",)),
        ("./a.txt", ("a.txt",)),
        ("././d/./a.txt", ("d", "%2E", "a.txt")),
        ("/mnt/data/./a.txt", ("%2E", "a.txt")),
        ("./", ("%2E",)),
        ("./../x", ("%2E%2E", "x")),
    ],
)
def test_paths_are_shown_below_their_container(path, shown):
    assert components(path, id=ID) == shown


def test_a_file_called_as_the_place_for_outside_files_is_none_of_them():
    names = {
        components("/mnt/data/.outside/x", id=ID),
        components("/mnt/data/%2Eoutside/x", id=ID),
        components("/x", id=ID),
    }
    assert len(names) == 3
    assert (OUTSIDE, "x") in names


@given(st.sampled_from(["/mnt/data/", ""]), st.lists(HARD_TEXT, min_size=1, max_size=3))
def test_different_names_in_one_directory_have_different_paths(prefix, names):
    plain = {name for name in names if name and "/" not in name and len(name) < 20}
    shown = {components(prefix + name, id=ID) for name in plain}
    assert len(shown) == len(plain)


@pytest.mark.parametrize("prefix", [HASH, "file-68b0c0ffee0123456789abcd-", "file-AbC12345-"])
@pytest.mark.parametrize("name", ["a.csv", "é", "-", HASH.strip("-"), "a-b", "y" * 255])
@pytest.mark.parametrize("data", ["/mnt/data/", ""])
def test_the_servers_prefix_is_taken_off(prefix, name, data):
    assert stripped(f"{data}{prefix}{name}", id=ID) == (name,)
    assert stripped(f"{data}d/{prefix}{name}", id=ID) == ("d", name)
    assert stripped(f"{data}{prefix}d/{name}", id=ID) == ("d", name)


@pytest.mark.parametrize(
    "name",
    ["a.csv", HASH, HASH.upper() + "a", HASH[1:] + "a", "file--a", "file-short-a", "x" + HASH],
)
def test_what_is_no_prefix_stays(name):
    assert stripped("/mnt/data/" + name, id=ID) is None


def test_outside_the_data_there_are_no_prefixes():
    assert stripped("/tmp/" + HASH + "a", id=ID) is None


def test_only_one_prefix_is_taken_off():
    assert stripped("/mnt/data/" + HASH + HASH + "a", id=ID) == (HASH + "a",)


@given(HARD_TEXT)
@example(".")
@example("..")
@example("%2E")
@example("\0")
@example("z" * 256)
@example(".outside")
@example("a/mnt/data/b")
def test_without_its_prefix_a_name_is_shown_as_it_would_be_alone(name):
    if name and "/" not in name.strip("/"):
        alone = components("/mnt/data/" + name.strip("/"), id=ID) if name.strip("/") else None
        short = stripped("/mnt/data/" + HASH + name.strip("/"), id=ID)
        assert short == alone


@given(st.lists(KERNEL_NAMES, min_size=1, max_size=4))
@example([b"\xff"])
@example([b"a\nb"])
@example([b"%2E%2E", b"x"])
@example([b"%2Fetc%2Fpasswd"])
@example([b"%00"])
def test_every_name_can_be_uploaded(names):
    parts = [from_kernel(name) for name in names if name not in (b".", b"..")]
    if not parts:
        return
    sent = upload_name("/".join(parts))
    sent.encode()  # is text
    words = sent.split("/")
    assert len(words) == len(parts)
    assert not set(words) & {"", ".", ".."}
    assert sent.isprintable() or not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in sent)


@given(st.lists(HARD_TEXT.filter(lambda text: "/" not in text and text), min_size=1, max_size=3))
@example(["%2E"])
@example([".outside", "x"])
@example(["%2Eoutside", "x"])
def test_what_the_server_calls_a_file_is_what_it_is_uploaded_as_again(names):
    parts = components("/mnt/data/" + "/".join(names), id=ID)
    is_plain = not any(
        ord(char) < 32 or 127 <= ord(char) < 160 or "\ud800" <= char <= "\udfff"
        for name in names
        for char in name
    )
    if is_plain and not set(names) & {".", ".."} and not any("~" in part for part in parts):
        assert upload_name("/".join(parts)) == "/".join(names)


@pytest.mark.parametrize(
    ("path", "is_it"),
    [
        ("/mnt/data/d/a", True),
        ("d/a", True),
        (f"./d/{'0' * 32}-a", True),
        ("/d/a", True),
        (f"/workspace/d/{'0' * 32}-a", True),
        ("/home/user/work/d/a", True),
        ("/mnt/data/a", False),
        ("/workspace/a", False),
        ("/mnt/data/x/d/a", False),
        ("/one/two/three/four/d/a", False),
        ("/workspace/d/ab", False),
    ],
)
def test_an_upload_is_known_by_its_path_wherever_a_server_keeps_its_uploads(path, is_it):
    wherever = {"may_be_flat": False, "may_be_elsewhere": True}
    assert is_upload(path, "d/a", id=ID, **wherever) is is_it
    assert not is_upload("/workspace/d/a", "d/a", id=ID, may_be_flat=False)
    assert is_upload("/workspace/a", "d/a", id=ID, may_be_flat=True, may_be_elsewhere=True)


def test_names_are_uploaded_as_they_were_typed():
    for name in ("a.csv", "d/e/f.txt", "naïve ☃.txt", "100%.txt", "%41", "-rf", " x "):
        assert upload_name(name) == name


@pytest.mark.parametrize(
    ("name", "other"), [(b"\xff", "%ff"), (b"caf\xe9.csv", "caf%e9.csv"), (b"a\nb", "a%0Ab")]
)
def test_what_is_uploaded_under_an_encoded_name_is_told_from_who_has_that_name(name, other):
    sent = upload_name(from_kernel(name))
    assert upload_name(other) == other
    assert sent != other
    stem, dot, extension = other.partition(".")
    assert sent.startswith(f"{stem}~")
    assert sent.endswith(dot + extension)
    assert upload_name(from_kernel(name + b"x")) != sent


def test_a_container_has_the_name_that_its_directory_shows():
    assert container_name("box") == "box"
    assert container_name("a%2Fb") == "a/b"
    assert container_name("%41") == "%41"


def test_a_container_cannot_have_a_name_that_is_not_text():
    with pytest.raises(Invalid):
        container_name(from_kernel(b"\xff"))
