"""Giving up, on demand, what of an account the server has not got yet, or has still."""

import shutil

from containerfs.accounts import STATE, Account, has_state
from containerfs.cache.state import open_state
from containerfs.errors import NoSpace
from containerfs.unsent import Unsent, find
from containerfs.upload.intents import Intents
from containerfs.upload.journal import LOST_SPOOLS, Journal


def discard(account: Account) -> int:
    """Forget all that is unsent, temporary files too; the caller has the folder's lock.

    Returns:
        How many files were given up.
    """
    doomed = find(account)
    try:
        _forget(account)
    except NoSpace:  # what is given up makes room for that
        _remove(doomed)
        _forget(account)
    _remove(doomed)
    for folder in account.directory.glob(LOST_SPOOLS):
        shutil.rmtree(folder)
    return len(doomed)


def _forget(account: Account) -> None:
    if has_state(account.directory):
        with open_state(account.directory / STATE) as state:
            journal = Journal(state.connection)
            with state.transaction():
                for entry in journal.entries:
                    journal.forget(entry)


def _remove(doomed: list[Unsent]) -> None:
    for each in doomed:
        each.spool.unlink(missing_ok=True)


def keep_obsolete(account: Account) -> int:
    """Let the server keep all that is still to be deleted; the caller has the folder's lock.

    The next mount shows what there is of it again.

    Returns:
        How many objects that are.
    """
    if not has_state(account.directory):
        return 0
    with open_state(account.directory / STATE) as state:
        deletions = Journal(state.connection).doomed
        doomed = deletions.all
        for each in doomed:
            state.forget_tombstones(each.container_id, [each.file_id])
            deletions.remove(each.container_id, each.file_id)
    return len(doomed)


def give_up_renames(account: Account) -> int:
    """Let what arrived of them stay where it is; the caller has the folder's lock.

    Returns:
        How many they are.
    """
    if not has_state(account.directory):
        return 0
    with open_state(account.directory / STATE) as state:
        intents = Intents(state.connection)
        renames = intents.all
        for id in renames:
            intents.end(id)
    return len(renames)
