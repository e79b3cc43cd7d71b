"""Programs that people run in a directory, run in a mounted drive: they notice no difference."""

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.writing import WritableMount, sh, writable_mount

ROOT = Path(__file__).resolve().parents[2]
GIT = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b;"


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WritableMount]:
    with writable_mount(tmp_path_factory.mktemp("programs")) as made:
        yield made


@pytest.fixture
def place(mount: WritableMount, request: pytest.FixtureRequest) -> Path:
    """A directory of its own for each test."""
    path = mount.path / str(request.node.name).replace("[", "-").replace("]", "")
    path.mkdir()
    return path


def test_git(place: Path) -> None:
    sh(
        f"{GIT} git init -q one; cd one; for i in $(seq 50); do echo $i > f$i; done; git add .; git commit -qm 1;"
        "for i in 1 2 3; do echo $i >> f1; git commit -qam $i; done;"
        "git checkout -qb side; git rm -q f2; git commit -qm side; git checkout -q -; git merge -q side -m merge;"
        'git gc -q; git fsck --strict; test -z "$(git status --short)";'
        'git clone -q . ../two; cd ../two; git fsck --strict; test -z "$(git status --short)";'
        "diff -r -x .git . ../one",
        place,
    )


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "memory", "wal"])
def test_sqlite(place: Path, mode: str) -> None:
    told = sh(
        f"sqlite3 a.db 'pragma journal_mode={mode}; create table t(a, b);"
        "with recursive c(x) as (values(1) union all select x + 1 from c where x < 3000)"
        " insert into t select x, randomblob(200) from c;"
        "delete from t where a % 3 = 0; update t set b = randomblob(300) where a % 5 = 0; vacuum;';"
        'for i in 1 2 3; do sqlite3 a.db "insert into t values ($i, randomblob(50000))"; done;'
        "sqlite3 a.db 'pragma integrity_check; select count(*) from t'",
        place,
    )
    assert told.split()[-2:] == ["ok", "2003"]


def test_rsync(place: Path) -> None:
    sh(f"rsync -a {ROOT}/ddrive/ copy/; touch -d 2020-01-01 copy/errors.py; rsync -a {ROOT}/ddrive/ copy/", place)
    assert sh(f"rsync -anc --delete --itemize-changes {ROOT}/ddrive/ copy/", place) == ""
    sh("rsync -a copy/ again/; rsync -a --inplace --append-verify copy/ again/", place)
    assert sh("rsync -anc --delete --itemize-changes copy/ again/", place) == ""


def test_tar(place: Path) -> None:
    sh(f"tar cf - -C {ROOT} mountd tests/support | tar xf -; tar cf t.tar mountd; tar df t.tar", place)
    sh(f"diff -r {ROOT}/mountd mountd; rm -r mountd; tar xf t.tar; diff -r {ROOT}/mountd mountd", place)


def test_a_package_is_installed_and_imported(place: Path) -> None:
    with zipfile.ZipFile(place / "thing-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing/__init__.py", "from thing.part import NAME\n")
        wheel.writestr("thing/part.py", "NAME = 1\n")
        wheel.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        wheel.writestr("thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("thing-1.dist-info/RECORD", "")
    sh(
        f"{sys.executable} -m pip install -q --no-index --target target *.whl;"
        f"cd target; {sys.executable} -c 'import thing; assert thing.NAME == 1'; test -d thing/__pycache__",
        place,
    )


@pytest.mark.parametrize(
    "job",
    [
        "--rw=write --bs=128k --size=24m",
        "--rw=randwrite --bs=4k --size=6m --numjobs=3",
        "--rw=randwrite --bs=4k --size=6m --ioengine=mmap",
        "--rw=randrw --bs=1k-70k --size=6m --fsync=50",
    ],
    ids=["sequential", "random", "mapped", "mixed"],
)
def test_fio(place: Path, job: str) -> None:
    sh(f"fio --directory={place} --name=job --verify=crc32c --verify_fatal=1 --group_reporting {job}", place)


NAMES = (
    *("access", "chdir", "chmod", "chown", "dentry", "dir", "dirdeep", "dirmany", "dnotify", "filename", "flock"),
    *("inotify", "lease", "locka", "lockf", "lockofd", "mknod", "open", "rename", "symlink"),
    *("touch", "utime", "xattr"),
)
CONTENTS = (
    *("aio", "copy-file", "dup", "fallocate", "fcntl", "hdd", "iomix", "mmap", "msync", "revio", "seek", "sendfile"),
    *("splice", "sync-file"),
)
SIZES = (
    "--copy-file-bytes 128m --fallocate-bytes 8m --hdd-bytes 8m --iomix-bytes 8m --mmap-bytes 4m --mmap-file"
    " --msync-bytes 4m --revio-bytes 8m --seek-size 4m --sync-file-bytes 4m"
)


@pytest.mark.parametrize(("stressors", "sizes"), [(NAMES, ""), (CONTENTS, SIZES)], ids=["names", "contents"])
def test_stress_ng(place: Path, stressors: tuple[str, ...], sizes: str) -> None:
    """All of them at once.

    Left out: `link`, `fiemap` and `verity`, which FUSE or the format has not; `getdent` and `io`, which go through all
    mounts there are, those of other tests too.
    """
    each = " ".join(f"--{name} 1" for name in stressors)
    told = sh(f"stress-ng --temp-path {place} --verify --timeout 5 {each} {sizes} 2>&1", place)
    assert "successful run completed" in told
    assert "skipp" not in told
    assert list(place.iterdir()) == []


def test_editors_and_build_tools(place: Path) -> None:
    (place / "Makefile").write_text("all: a.out b.out\n\tcat $^ > all\n%.out: %.in\n\tcp $< $@\n")
    sh(
        "echo a > a.in; echo b > b.in; make -s; test $(cat all | wc -l) = 2; make -q;"
        "sleep 0.01; touch a.in; ! make -q; make -s; make -q;"
        "sed -i s/a/x/ a.in; grep -q x a.in; dd if=/dev/urandom of=r bs=70000 count=5 status=none; split -b 50000 r p;"
        "cat p* | cmp - r; sort -r Makefile -o Makefile; install -m 755 a.in bin; test -x bin;"
        "ln -s a.in l; ln -sfn b.in l; test $(readlink l) = b.in; mkdir -p x/y/z; cp -a x w; mv w x; rm -r x",
        place,
    )


def test_what_all_of_them_have_left_is_there_after_a_remount(mount: WritableMount) -> None:
    list_all = (
        "find . -mindepth 1 -type f -exec sha256sum {} + | sort; find . -mindepth 1 -printf '%p %y %m %l\\n' | sort"
    )
    before = sh(list_all, mount.path)
    mount.remount()
    assert sh(list_all, mount.path) == before
