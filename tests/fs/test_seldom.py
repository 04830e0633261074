"""Seldom members: there only for as long as they are not the default."""

from containerfs.fs.tree.nodes import File


def a_file():
    return File(ino=2, name="a", parent=None)


def test_a_member_is_the_default_until_it_is_set():
    file = a_file()
    assert (file.opens, file.pages_valid, file.older) == (0, True, ())
    file.opens, file.pages_valid = 1, False
    assert (file.opens, file.pages_valid, file.older) == (1, False, ())


def test_what_has_only_defaults_again_takes_no_room():
    file = a_file()
    file.opens = 1
    file.writers = 1
    file.opens = 0
    assert (file.opens, file.writers) == (0, 1)
    file.writers = 0
    assert file.seldom is None
    assert (file.opens, file.writers) == (0, 0)
