"""Where and with what a run was made: what makes its figures comparable, or not."""

import os
import platform
import re
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

_OURS = ("containerfs", "pyfuse3", "trio", "httpx")
_PROGRAMS = {
    "rclone": ["rclone", "version"],
    "nginx": ["nginx", "-v"],
    "curl": ["curl", "--version"],
}


def date() -> str:
    """Today, as ISO has it."""
    return time.strftime("%Y-%m-%d")


def machine() -> str:
    """Processor, memory and kernel, in one line."""
    cpus = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {cpus} CPUs, {memory:.0f} GiB, Linux {platform.release()}"


def versions() -> dict[str, str]:
    """Of everything that matters, as far as it is there."""
    found = {"Python": platform.python_version()}
    found |= {name: version(name) for name in _OURS}
    for name, command in _PROGRAMS.items():
        path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
        program = shutil.which(command[0], path=path)
        if program is None:
            continue
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True)
        number = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
        if number:
            found[name] = number[0]
    return found


def load() -> float:
    """How many processes wanted to run during the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
