"""CPython's own tests of files, run in a mount."""

import json
import re
import shutil
import sys

import pytest

# Which of them in the normal run, by patterns of unittest's -k; "*" is all.
MODULES = {
    "test.test_glob": ["*"],
    "test.test_mailbox": ["*.TestMaildir.*", "*.TestMbox.*"],
    "test.test_os": [
        *("*FileTests*", "*StatAttributeTests*", "*UtimeTests*", "*WalkTests*", "*MakedirTests*"),
        *("*RemoveDirsTests*", "*LinkTests*", "*NonLocalSymlinkTests*", "*TestScandir*"),
        *("*ExtendedAttributeTests*", "*TestSendfile*", "*Pep383Tests*", "*ChownFileTests*"),
    ],
    "test.test_pathlib": ["*.PathTest.*", "*WalkTests*"],
    "test.test_shutil": ["*"],
    "test.test_tempfile": ["*"],
    "test.test_zipfile": ["*Append*", "*Extract*", "*Stored*", "*OtherTests*"],
}

LINKS = "the service has no hard links"
# Tests that fail, or skip themselves where something is not permitted, each with its reason.
UNFIT = {
    "test.test_os.LinkTests.test_link": LINKS,
    "test.test_os.LinkTests.test_link_bytes": LINKS,
    "test.test_os.LinkTests.test_unicode_name": LINKS,
    "test.test_os.TestScandir.test_attributes": LINKS,
    "test.test_pathlib.PathTest.test_hardlink_to": LINKS,
    "test.test_pathlib.PathTest.test_link_to": LINKS,
    "test.test_pathlib.PosixPathTest.test_hardlink_to": LINKS,
    "test.test_pathlib.PosixPathTest.test_link_to": LINKS,
    "test.test_shutil.TestCopy.test_dont_copy_file_onto_link_to_itself": LINKS,
}

RUNNER = """
import json, os, sys, unittest
loader = unittest.TestLoader()
loader.testNamePatterns = sys.argv[2:]
class Result(unittest.TextTestResult):
    def startTest(self, test):
        ran.append(test.id())
        super().startTest(test)
ran = []
with open(os.devnull, "w") as nowhere:
    runner = unittest.TextTestRunner(stream=nowhere, resultclass=Result)
    result = runner.run(loader.loadTestsFromName(sys.argv[1]))
failed = {test.id(): text for test, text in result.errors + result.failures}
skipped = {test.id(): text for test, text in result.skipped}
print(json.dumps([ran, failed, skipped]))
"""


@pytest.fixture
def python(run):
    """An interpreter that has its tests with it."""
    for name in (sys.executable, sys._base_executable, "/usr/bin/python3"):
        if run(name, "-c", "import test.test_shutil", check=False).returncode == 0:
            return name
    pytest.skip("no Python here has its tests: Debian has them in libpython3.x-testsuite")


def without_package(id):
    """The id that a test has where its module is not a package, as more are in newer Pythons."""
    return re.sub(r"^test\.(test_\w+)\.\1\.", r"test.\1.", id)


@pytest.mark.parametrize("module", MODULES)
def test_cpythons_tests_of_files_pass_but_for_what_is_listed(
    mount, run, python, module, pytestconfig
):
    mounted = mount()
    box = mounted / "box"
    for name in ("", "tmp", "work"):
        (box / name).mkdir()
    patterns = ["*"] if pytestconfig.getoption("--deep") else MODULES[module]
    said = run(
        *(python, "-c", RUNNER, module, *patterns),
        cwd=box / "work",
        patience=240,
        TMPDIR=str(box / "tmp"),
    )
    ran, failed, skipped = json.loads(said.splitlines()[-1])
    refused = {id for id, reason in skipped.items() if "not permitted" in reason}
    assert len(ran) > 10
    unfit = set(map(without_package, refused | failed.keys()))
    assert unfit == UNFIT.keys() & set(map(without_package, ran)), "\n".join(failed.values())
    assert not list((box / "work").iterdir())
    shutil.rmtree(box / "tmp")
