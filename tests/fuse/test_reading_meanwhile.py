"""Reading while what is read is dropped from the cache, and while its author writes it anew: never a wrong byte."""

import random
import subprocess
import sys
from pathlib import Path

from tests.support.program import program
from tests.support.writing import writable_mount

MIB = 1 << 20
GENERATIONS = 40

CHECK_ALL = """
import os, random, sys
mount, source, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
dice = random.Random(seed)
names = sorted(os.listdir(source))
wanted = {name: open(f"{source}/{name}", "rb").read() for name in names}
for turn in range(2):
    dice.shuffle(names)
    for name in names:
        with open(f"{mount}/{name}", "rb", buffering=0) as file:
            if dice.random() < 0.5:
                data = b"".join(iter(lambda: file.read(131072), b""))
                assert data == wanted[name], f"{name} differs"
            else:
                for _ in range(20):
                    at, size = dice.randrange(len(wanted[name])), dice.choice((1, 4096, 100_000, 300_000))
                    data = os.pread(file.fileno(), size, at)
                    assert data == wanted[name][at : at + size], f"{name} differs at {at}"
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
"""

# Each generation of the file has its own length and says its number in every word.
WORDS = """
import struct
def content(number):
    return struct.pack("<I", number) * (1000 + number * 7919 % 100_000)
"""
READ_ON = (
    WORDS
    + """
import sys
path, last = sys.argv[1], int(sys.argv[2])
seen = set()
newest = 0
while newest < last:
    with open(path, "rb") as file:
        data = file.read()
    number = struct.unpack_from("<I", data)[0]
    assert data == content(number), f"{len(data)} bytes, first of {number}"
    assert number >= newest, f"{number} after {newest}"
    newest = number
    seen.add(number)
print(len(seen))
"""
)
OVERWRITE = (
    WORDS
    + """
import sys, time
path, last = sys.argv[1], int(sys.argv[2])
for number in range(2, last + 1):
    with open(path, "wb") as file:
        file.write(content(number))
    time.sleep(0.1)
"""
)


def run_all(*programs: list[str]) -> list[str]:
    """Run Python programs together; return what they print. All must succeed."""
    running = [
        subprocess.Popen([sys.executable, "-c", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for words in programs
    ]
    try:
        told = [process.communicate(timeout=60) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(running, told, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in told]


def test_several_read_what_does_not_fit_in_the_cache(tmp_path: Path) -> None:
    source, mount = tmp_path / "tree", tmp_path / "mount"
    source.mkdir()
    dice = random.Random(1)
    for number in range(12):
        (source / f"{number}").write_bytes(dice.randbytes(dice.randrange(MIB // 2, MIB)))
    with (
        program(tmp_path / "author" / "state") as author,
        program(tmp_path / "other" / "state", cache_size="2MiB") as other,
    ):
        key = author.ask("import", source)["key"]
        other.mount(key, mount, "--peer", author.address)
        run_all(*([CHECK_ALL, str(mount), str(source), str(seed)] for seed in range(3)))
        space = other.ask("status")["space"]
        assert space["cached"] <= 2 * MIB
        assert space["evicted"] > 2 * MIB
        assert other.ask("verify", key)["bad"] == []


def test_others_read_a_file_while_its_author_overwrites_it(tmp_path: Path) -> None:
    with (
        writable_mount(tmp_path / "author") as author,
        program(tmp_path / "other" / "state", cache_size="1MiB") as other,
    ):
        mount = tmp_path / "other" / "mount"
        run_all([WORDS + "import sys; open(sys.argv[1], 'wb').write(content(1))", str(author.path / "a")])
        second = author.second()
        other.mount(author.key, mount, "--peer", author.program.address)
        last = str(GENERATIONS)
        readers = [[READ_ON, str(root / "a"), last] for root in (mount, mount, second.path)]
        run_all([OVERWRITE, str(author.path / "a"), last], *readers)
