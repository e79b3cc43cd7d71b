"""CPython's own tests of files, with their temporary directory in a mounted drive.

What is left out a drive cannot hold, see docs/mount.md: times of access and microseconds, names that are not UTF-8, and
hard links. `test_zipfile`, `test_tarfile` and `test_pathlib` take a minute more: `CPYTHON=all` runs them too.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.writing import WritableMount, sh, writable_mount

MODULES = ["test_os", "test_posix", "test_shutil", "test_tempfile", "test_glob"]
if os.environ.get("CPYTHON") == "all":
    MODULES += ["test_zipfile", "test_tarfile", "test_pathlib"]
LEFT_OUT = ("*UtimeTests.test_utime*", "*Pep383Tests*", "*.test_hardlink_to")
LIMIT_S = 240.0  # a safety net


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WritableMount]:
    with writable_mount(tmp_path_factory.mktemp("cpython")) as made:
        yield made


@pytest.mark.parametrize("module", MODULES)
def test_cpython(mount: WritableMount, module: str) -> None:
    place = mount.path / module
    place.mkdir(mode=0o1777)
    left_out = " ".join(f"-i '{pattern}'" for pattern in LEFT_OUT)
    python = Path(sys.executable).resolve()
    told = sh(f"TMPDIR={place} {python} -m test --tempdir {place} {left_out} {module}", place, timeout_s=LIMIT_S)
    assert "Result: SUCCESS" in told
