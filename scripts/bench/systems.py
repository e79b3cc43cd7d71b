"""The file systems that `mount.py` compares, and what is measured on each of them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memory import GIB, take_memory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DDRIVE = [sys.executable, "-m", "mountd.cli"]
NPM = HERE / "npm"
MIB = 1024 * 1024
WRITTEN_MIB = 128
CREATED_FILES = 2000
RANDOM_READS = 4000

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # for users modules are compiled once, not at each start


def drop_caches(*, in_order: bool = False) -> None:
    """Empty the kernel's page, dentry and inode caches; the memory for two copies of the large file is at hand then.

    `in_order`: as `take_memory` has it.
    """
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    take_memory(5 * GIB // 2, in_order=in_order)


def forget(path: Path) -> None:
    """Drop what the kernel keeps of a file of a mount; the files below the mount stay in its cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(command: list[str] | Callable[[], object]) -> float:
    """Return the seconds that `command` takes; a list runs as a process and must succeed."""
    started = time.perf_counter()
    if callable(command):
        command()
    else:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def children(pid: int) -> list[int]:
    """Return the processes that the first thread of a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def peak_mib(pids: list[int]) -> float:
    """Return the peak resident memory of processes together, in MiB: pages of files that several have count once."""
    total = 0
    mapped: dict[str, list[int]] = {}  # of each file, what each process has of it in memory, in KiB
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1])
        for name, kib in file_pages(pid).items():
            mapped.setdefault(name, []).append(kib)
    return (total - sum(sum(each) - max(each) for each in mapped.values())) / 1024


def file_pages(pid: int) -> dict[str, int]:
    """Return how many KiB of each file a process has in memory unchanged."""
    found: dict[str, int] = {}
    name = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            name = words[5] if len(words) > 5 else ""
        elif name.startswith("/") and words[0] in ("Rss:", "Anonymous:"):
            found[name] = found.get(name, 0) + (int(words[1]) if words[0] == "Rss:" else -int(words[1]))
    return found


STAT_ALL = """import os, sys, time
place, count = sys.argv[1], int(sys.argv[2])
names = [f"{place}/file-{number:06}.txt" for number in range(count)]
started = time.perf_counter()
for name in names:
    os.stat(name)
print(count / (time.perf_counter() - started))
"""


RANDOM = """import os, random, sys, time
file, count = os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[2])
random.seed(1)
places = [random.randrange(os.fstat(file).st_size // 4096) * 4096 for _ in range(count)]
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
started = time.perf_counter()
for place in places:
    assert len(os.pread(file, 4096, place)) == 4096
print(count / (time.perf_counter() - started))
"""

WRITE = """import os, sys, time
place, size = sys.argv[1], int(sys.argv[2])
piece = os.urandom(1 << 20)
started = time.perf_counter()
with open(place, "wb", buffering=0) as file:
    for _ in range(size):
        file.write(piece)
print(size * (1 << 20) / 1e6 / (time.perf_counter() - started))
"""

CREATE = """import os, sys, time
place, count = sys.argv[1], int(sys.argv[2])
os.mkdir(place)
content = os.urandom(1024)
started = time.perf_counter()
for number in range(count):
    with open(f"{place}/{number}", "wb", buffering=0) as file:
        file.write(content)
print(count / (time.perf_counter() - started))
"""


LIST = """import sys, time, trio
from pathlib import Path
import ddrive
async def main(socket, key, path):
    async with ddrive.open_attached(Path(socket)) as engine:
        drive = await ddrive.open_drive(engine.store(ddrive.DWEB), key=ddrive.PublicKey(bytes.fromhex(key)))
        started = time.perf_counter()
        entries = await drive.list(path)
        assert all(entry.stat.size for entry in entries)
        print(1000 * (time.perf_counter() - started))
trio.run(main, *sys.argv[1:])
"""


def program(text: str, *arguments: object) -> float:
    """Return the number that a Python program prints."""
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


class System:
    """One file system under test: a place for its state, a mountpoint and the metrics common to all."""

    name = ""

    def __init__(self, place: Path, tree: Path) -> None:
        self.place, self.tree = place, tree
        self.mountpoint = place / "mnt"
        self.mountpoint.mkdir()
        self.count = len(os.listdir(tree / "many"))

    def __enter__(self) -> "System":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextmanager
    def mounted(self) -> Iterator[list[int]]:
        """Mount the whole tree afresh; yields the pids that serve it."""
        raise NotImplementedError(f"{self.name} cannot mount")

    def large(self) -> Path:
        """Return a directory with the large file alone."""
        place = self.place / "large"
        place.mkdir()
        (place / "big").hardlink_to(self.tree / "big")
        return place

    def written(self) -> Iterator[tuple[str, float]]:
        """Yield (metric, value) of writing into the mount."""
        with self.mounted():
            yield f"write {WRITTEN_MIB} MiB, MB/s", program(WRITE, f"{self.mountpoint}/written", WRITTEN_MIB)
        with self.mounted():
            yield "create files of 1 KiB, files/s", program(CREATE, f"{self.mountpoint}/created", CREATED_FILES)

    def read_files(self) -> None:
        """Have the large files below the mount in the kernel's cache, so that no disk is measured."""
        for path in self.place.rglob("*"):
            if self.mountpoint not in path.parents and path.is_file() and path.stat().st_size >= MIB:
                subprocess.run(["cp", path, "/dev/null"], check=True)

    def measure(self) -> Iterator[tuple[str, float]]:
        """Yield (metric, value) of the local scenarios."""
        with self.mounted() as pids:
            drop_caches(in_order=True)
            seconds = timed(["dd", f"if={self.mountpoint}/big", "of=/dev/null", "bs=1M", "status=none"])
            yield "sequential read cold, MB/s", (self.tree / "big").stat().st_size / 1e6 / seconds
            yield "peak memory after it, MiB", peak_mib(pids)
            again = timed(["dd", f"if={self.mountpoint}/big", "of=/dev/null", "bs=1M", "status=none"])
            yield "sequential read again, MB/s", (self.tree / "big").stat().st_size / 1e6 / again
            forget(self.mountpoint / "big")
            self.read_files()
            yield "random reads of 4 KiB, read before, reads/s", program(RANDOM, f"{self.mountpoint}/big", RANDOM_READS)
        with self.mounted():
            drop_caches()
            yield "random reads of 4 KiB, reads/s", program(RANDOM, f"{self.mountpoint}/big", RANDOM_READS)
        with self.mounted():
            drop_caches()
            yield "stat cold, files/s", program(STAT_ALL, f"{self.mountpoint}/many", self.count)
        with self.mounted():
            drop_caches()
            yield "ls -la, ms", 1000 * timed(["ls", "-la", f"{self.mountpoint}/many"])
        with self.mounted():
            drop_caches()
            yield "find, ms", 1000 * timed(["find", f"{self.mountpoint}/many", "-size", "+9"])
        with self.mounted():
            drop_caches()
            yield "grep -r, ms", 1000 * timed(["grep", "-rc", "-m1", "^", f"{self.mountpoint}/many"])


class Child:
    """A background process that says when it is ready in one line of JSON and ends when its stdin is closed."""

    def __init__(self, command: list[str], cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout
        self.ready: dict[str, Any] = json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """Ask the process to end and wait for it."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)


class Memory(System):
    """The in-memory pyfuse3 file system: what a mount in Python can reach at best."""

    name = "pyfuse3-memory"

    @contextmanager
    def mounted(self) -> Iterator[list[int]]:
        child = Child([sys.executable, str(HERE / "memfs.py"), str(self.tree), str(self.mountpoint)])
        try:
            yield [child.process.pid]
        finally:
            subprocess.run(["umount", str(self.mountpoint)], check=True)
            child.end()

    def measure(self) -> Iterator[tuple[str, float]]:
        yield from super().measure()
        large = self.tree / "big"
        drop_caches(in_order=True)
        seconds = timed(["dd", f"if={large}", "of=/dev/null", "bs=1M", "status=none"])
        yield "the disk alone: sequential read cold, MB/s", large.stat().st_size / 1e6 / seconds


class Npm(System):
    """npm `hyperdrive-fuse` over a store that npm `hyperdrive` imported."""

    name = "hyperdrive-fuse"

    def __enter__(self) -> "Npm":
        self.store = self.place / "store"
        self.key, _ = self.imported(self.store, self.tree)
        return self

    def imported(self, store: Path, tree: Path) -> tuple[str, float]:
        """Import `tree` into a new drive in `store`; returns its key and the seconds spent."""
        done = subprocess.run(
            ["node", "peer.js", "import", str(store), str(tree)], cwd=NPM, check=True, stdout=subprocess.PIPE
        )
        value = json.loads(done.stdout)
        return value["key"], value["seconds"]

    @contextmanager
    def mounted(self) -> Iterator[list[int]]:
        with self.mount(self.store) as pids:
            yield pids

    @contextmanager
    def mount(self, store: Path, *port: str) -> Iterator[list[int]]:
        """Mount the drive from `store`, with a peer at `port` on loopback when given."""
        child = Child(["node", "peer.js", "mount", str(store), self.key, str(self.mountpoint), *port], cwd=NPM)
        try:
            yield [child.process.pid]
        finally:
            child.end()

    def measure(self) -> Iterator[tuple[str, float]]:
        large = self.large()
        take_memory(5 * GIB // 2)
        _, seconds = self.imported(self.place / "big", large)
        yield "import of the large file, MB/s", (self.tree / "big").stat().st_size / 1e6 / seconds
        _, seconds = self.imported(self.place / "many", self.tree / "many")
        yield "import of small files, files/s", self.count / seconds
        yield from super().measure()
        yield from self.written()
        listed = subprocess.run(
            ["node", "peer.js", "list", str(self.store), self.key, "/many"], cwd=NPM, check=True, stdout=subprocess.PIPE
        )
        yield "list with attributes by API, ms", json.loads(listed.stdout)["ms"]
        server = Child(["node", "peer.js", "serve", str(self.store), self.key], cwd=NPM)
        try:
            with self.mount(self.place / "remote", str(server.ready["port"])):
                seconds = timed(["dd", f"if={self.mountpoint}/remote", "of=/dev/null", "bs=1M", "status=none"])
                yield "remote cat cold, MB/s", (self.tree / "remote").stat().st_size / 1e6 / seconds
        finally:
            server.end()


class Ours(System):
    """ddrive itself: engine, worker and command line as a user runs them."""

    name = "ddrive"

    def __enter__(self) -> "Ours":
        self.daemon("a")
        self.key = self.command("a", "import", str(self.tree))["key"]
        return self

    def __exit__(self, *_: object) -> None:
        for state in ("a", "b"):
            if (self.place / state).is_dir():
                self.command(state, "stop")

    def daemon(self, state: str) -> dict[str, Any]:
        """Start the engine of `state` with a listener on loopback; returns its status."""
        command = [*DDRIVE, "daemon", "--state", str(self.place / state), "--listen", "127.0.0.1:0", "--no-discovery"]
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        deadline = time.monotonic() + 15
        while True:
            try:
                return self.command(state, "status", "--no-start")
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def command(self, state: str, verb: str, *arguments: str) -> dict[str, Any]:
        """Run one verb of the command line and return its JSON value."""
        command = [*DDRIVE, verb, "--state", str(self.place / state), "--json", *arguments]
        value: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
        return value

    @contextmanager
    def mounted(self) -> Iterator[list[int]]:
        self.command("a", "stop")
        engine = self.daemon("a")
        with self.mount("a") as worker:
            yield [engine["pid"], worker, *children(worker)]

    @contextmanager
    def mount(self, state: str, *arguments: str) -> Iterator[int]:
        """Mount the drive in `state`; yields the worker's pid."""
        mounted = self.command(state, "mount", self.key, str(self.mountpoint), *arguments)
        try:
            yield mounted["pid"]
        finally:
            self.command(state, "unmount", str(self.mountpoint))

    def measure(self) -> Iterator[tuple[str, float]]:
        large = str(self.large())
        take_memory(5 * GIB // 2)
        seconds = timed(lambda: self.command("a", "import", large))
        yield "import of the large file, MB/s", (self.tree / "big").stat().st_size / 1e6 / seconds
        seconds = timed(lambda: self.command("a", "import", f"{self.tree}/many"))
        yield "import of small files, files/s", self.count / seconds
        yield from super().measure()
        yield from self.written()
        self.command("a", "stop")
        self.daemon("a")
        yield "list with attributes by API, ms", program(LIST, self.place / "a" / "control.sock", self.key, "/many")
        address = self.command("a", "status")["listen"][0]
        self.daemon("b")
        with self.mount("b", "--peer", address):
            seconds = timed(["dd", f"if={self.mountpoint}/remote", "of=/dev/null", "bs=1M", "status=none"])
            yield "remote cat cold, MB/s", (self.tree / "remote").stat().st_size / 1e6 / seconds
