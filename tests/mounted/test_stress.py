"""fio and stress-ng: many small operations, checked by the programs that make them."""

import json
import re

import pytest

FIO = {
    "random writes": ["--rw=randwrite", "--ioengine=psync"],
    "a mapping": ["--rw=randwrite", "--ioengine=mmap"],
    "reads among writes": ["--rw=randrw", "--ioengine=psync", "--fsync=256"],
    "in parallel": ["--rw=randwrite", "--ioengine=psync", "--numjobs=4"],
    "asynchronous": ["--rw=randrw", "--ioengine=libaio", "--iodepth=8"],
    "blocks of all sizes": ["--rw=randwrite", "--ioengine=psync", "--bsrange=512-128k"],
    "appending": ["--rw=write", "--ioengine=sync", "--file_append=1"],
}

# Each stressor of stress-ng that a FUSE file system can run, the number of its own operations for
# the normal run, and what else it must be told.
STRESSORS = {
    "access": (20, []),
    "chmod": (20, []),
    "chown": (50, []),
    "copy-file": (2, ["--copy-file-bytes=128m"]),
    "dentry": (100, ["--dentries=100"]),
    "dir": (100, ["--dir-dirs=64"]),
    "dirdeep": (50, ["--dirdeep-inodes=100"]),
    "dirmany": (100, []),
    "dnotify": (5, []),
    "dup": (50, []),
    "fcntl": (100, []),
    "file-ioctl": (50, []),
    "filename": (20, []),
    "flock": (500, []),
    "fsize": (20, []),
    "fstat": (50, []),
    "getdent": (50, []),
    "handle": (20, []),
    "hdd": (500, ["--hdd-bytes=4m"]),
    "inotify": (3, []),
    "io": (10, []),
    "iomix": (100, ["--iomix-bytes=4m"]),
    "lease": (100, []),
    "locka": (200, []),
    "lockf": (500, []),
    "lockofd": (200, []),
    "mknod": (50, []),
    "open": (200, []),
    "readahead": (20, ["--readahead-bytes=4m"]),
    "rename": (100, []),
    "revio": (100, ["--revio-bytes=4m"]),
    "seek": (500, ["--seek-size=4m"]),
    "touch": (100, []),
    "utime": (200, []),
}
LONG = {
    "chdir": (20, ["--chdir-dirs=64"]),
    "fpunch": (5, []),
    "symlink": (2, []),
    "sync-file": (50, ["--sync-file-bytes=1m"]),
    "xattr": (1, []),
}

# Those that end without having done anything.
UNFIT = {
    "fallocate": "FUSE asks libfuse, and pyfuse3 has no handler for it",
    "fiemap": "there are no extents of a disk to tell of (FS_IOC_FIEMAP)",
    "link": "the service has no hard links",
    "verity": "fs-verity belongs to the file systems that have it built in",
}


@pytest.fixture
def mounted(mount):
    mounted = mount(max_file_size="1GiB")
    (mounted / "box").mkdir()
    return mounted


@pytest.fixture
def stress(run, mounted):
    """Runs a stressor: what it did wrong, and how many operations it did."""

    def stress(name, ops, words, *, seconds=20):
        done = run(
            *("stress-ng", f"--{name}=2", f"--{name}-ops={ops}", *words, "--verify"),
            *(f"--temp-path={mounted / 'box'}", f"--timeout={seconds}s", "--metrics"),
            check=False,
        )
        said = done.stdout + done.stderr
        counted = re.search(rf"\] {name} +(\d+) +[\d.]+ ", said)
        skipped = done.returncode == 3 or "skipping" in said
        count = int(counted[1]) if counted and not skipped else 0
        is_good = done.returncode in (0, 3) and "fail:" not in said
        return None if is_good else said, count

    return stress


def test_fio_reads_what_it_wrote(mounted, run, pytestconfig, sync):
    size = "64m" if pytestconfig.getoption("--deep") else "2m"
    for words in FIO.values():
        said = run(
            *("fio", "--name=job", f"--directory={mounted / 'box'}", f"--size={size}", *words),
            *("--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--output-format=json"),
        )
        jobs = json.loads(said[said.index("{") :])["jobs"]
        assert all(job["error"] == 0 and job["write"]["total_ios"] for job in jobs), words
        sync(mounted / "box")
        for left in (mounted / "box").iterdir():
            left.unlink()


def test_stress_ng_finds_no_fault(mounted, stress, pytestconfig):
    faults = {}
    deep = pytestconfig.getoption("--deep")
    for name, (ops, words) in STRESSORS.items():
        fault, count = stress(name, ops * 20 if deep else ops, words)
        left = list((mounted / "box").iterdir())
        if fault or not count or left:
            faults[name] = fault, count, left
        if deep:
            mounted.remount()
    assert not faults


@pytest.mark.deep
def test_stress_ng_finds_no_fault_in_what_takes_long(mounted, stress):
    faults = {}
    for name, (ops, words) in LONG.items():
        fault, _ = stress(name, ops, words, seconds=30)
        if fault:
            faults[name] = fault
        mounted.remount()
    assert not faults


def test_stress_ng_says_what_the_mount_can_not_do(stress):
    able = [name for name in UNFIT if stress(name, 5, [], seconds=1)[1]]
    assert able == []
