"""Where an API key comes from: a private file, or a command that prints it.

Never from the command line, which every user of the machine can read.
"""

import os
import shlex
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from containerfs.errors import AccessDenied, Invalid

LARGEST = 64 * 1024  # bytes of a key file that are read
COMMAND_LIMIT = 60.0  # seconds a command may take, a passphrase typed included


def key_from_file(path: Path) -> str:
    """The key in a file that only its owner can read; white space around it is dropped.

    Raises:
        AccessDenied: Others can read the file, or it is somebody else's.
        Invalid: It cannot be read, or holds no text.
    """
    try:
        # Opened first and checked then, so that what is checked is what is read.
        with open(path, "rb") as file:
            _check_privacy(os.fstat(file.fileno()), path)
            text = file.read(LARGEST)
    except OSError as exc:
        raise Invalid(f"key file {path}: {exc.strerror}") from exc
    try:
        return text.decode("utf-8-sig").strip()
    except UnicodeDecodeError as exc:
        raise Invalid(f"key file {path}: not a text file") from exc


def key_from_command(command: str, *, environ: Mapping[str, str] = os.environ) -> str:
    """The first line that a command prints. It is run without a shell, with this environment.

    Raises:
        Invalid: It cannot be started, fails, takes too long, or prints no text.
    """
    try:
        words = shlex.split(command)
        if not words:
            raise Invalid("the key command is empty")
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=COMMAND_LIMIT,
            check=True,
            env=environ,
        )
        return done.stdout.decode().partition("\n")[0].strip()
    except UnicodeDecodeError as exc:
        raise Invalid("the key command prints something that is not text") from exc
    except ValueError as exc:  # an open quotation
        raise Invalid(f"the key command: {exc}") from exc
    except OSError as exc:
        raise Invalid(f"the key command: {words[0]}: {exc.strerror}") from exc
    except subprocess.CalledProcessError as exc:
        raise Invalid(f"the key command ended with code {exc.returncode}") from None
    except subprocess.TimeoutExpired:
        raise Invalid(f"the key command took more than {COMMAND_LIMIT:.0f} s") from None


def _check_privacy(facts: os.stat_result, path: Path) -> None:
    if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(facts.st_mode)
        raise AccessDenied(f"key file {path}: mode {mode:04o} lets others in, 0600 is needed")
    if facts.st_uid not in (0, os.geteuid()):
        raise AccessDenied(f"key file {path}: belongs to user {facts.st_uid}")
