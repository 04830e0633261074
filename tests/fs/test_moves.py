"""Which objects a server may have made of what is sent under a name."""

import pytest

from containerfs.api.types import RemoteFile
from containerfs.fs.names.names import marked_name, upload_name
from containerfs.fs.outgoing.flattening import is_sent_as
from containerfs.fs.outgoing.moves import may_be_named

PREFIX = "0" * 32 + "-"
NAMES = ["a", ".a.b", "a%b", "a%2Fb", "a~1.c", "%2E%2E", ".outside", "\udce9.a", "\xa0", "x" * 250]


@pytest.mark.parametrize("path", [*NAMES, *(f"d/{name}" for name in NAMES)])
def test_none_of_them_is_passed_over(path):
    files = []
    for name in (upload_name(path), marked_name(path)):
        above, slash, base = name.rpartition("/")
        for prefix in ("", PREFIX):
            for place in (above + slash, "", "/srv/"):
                id = f"cfile_{len(files):08}"
                files.append(RemoteFile(id, "cntr", place + prefix + base, 1, 1, "user"))
    assert all(is_sent_as(file, path, may_be_flat=True) for file in files)
    other = RemoteFile("cfile", "cntr", "/mnt/data/another", 1, 1, "user")
    assert list(may_be_named([*files, other], path)) == files
