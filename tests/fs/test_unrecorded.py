"""What the state database does not take: nothing of it has happened, and it is told."""

import sqlite3
from contextlib import closing

import pytest

from containerfs.errors import LocalFault

REFUSING = """
CREATE TRIGGER refusing BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'refused'); END
"""


async def test_a_file_whose_removal_can_not_be_recorded_is_there_as_it_was(box, tree, tmp_path):
    machine = tmp_path / "machine"
    await tree.write(f"{box.name}/kept~", b"content")  # by its name it stays here
    with closing(sqlite3.connect(machine / "state.sqlite", isolation_level=None)) as other:
        other.execute(REFUSING)
        with pytest.raises(LocalFault):
            await tree.unlink(f"{box.name}/kept~")
        other.execute("DROP TRIGGER refusing")
    assert await tree.names(box.name) == ["kept~"]
    assert await tree.read(f"{box.name}/kept~") == b"content"
    await tree.unlink(f"{box.name}/kept~")
    assert await tree.names(box.name) == []
    assert tree.journal().entries == []
