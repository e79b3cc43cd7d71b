"""The awkward tree: what a drive may hold that trips file systems, as a list of steps.

The same steps are played by `tests/interop/peer.js` on the npm packages and by `build` on a local disk, and
`expected` tells what must be seen afterwards. File bytes come from `content`, which peer.js repeats.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

KIB = 1024
MIB = 1024 * KIB
OLD_MS = 981_173_106_000  # 2001-02-03 04:05:06 UTC
MTIME_MS = 1_600_000_000_000

Step = dict[str, Any]


def content(path: str, seed: str, size: int) -> bytes:
    """Return the bytes of the file that a step with this path, seed and size makes."""
    return hashlib.shake_128((path + seed).encode()).digest(size)


def file(path: str, size: int, *, drive: str = "root", seed: str = "", **more: Any) -> Step:
    """Return the step that writes (or overwrites) a file."""
    step = {"do": "file", "path": path, "size": size, "drive": drive, "seed": seed, "mode": 0o644, "mtime": MTIME_MS}
    return step | {"uid": os.getuid(), "gid": os.getgid()} | more


def link(path: str, target: str, *, drive: str = "root") -> Step:
    """Return the step that makes a symbolic link."""
    return {"do": "link", "path": path, "target": target, "drive": drive}


def directory(path: str, *, drive: str = "root", mode: int = 0o755) -> Step:
    """Return the step that makes an explicit directory."""
    step = {"do": "directory", "path": path, "drive": drive, "mode": mode, "mtime": MTIME_MS}
    return step | {"uid": os.getuid(), "gid": os.getgid()}


def plain_steps(*, many: int = 300, big: int = 5 * MIB) -> list[Step]:
    """Return the steps of one drive: everything awkward but nesting."""
    deep = "/deep/" + "/".join(f"level{number}" for number in range(1, 12))
    steps = [
        file("/empty-first", 0),
        file("/after-the-empty-one", 11),
        file("/one", 1),
        file("/exactly-64k", 64 * KIB),
        file("/big.bin", big, chunk=64 * KIB),
        file("/odd-chunks.bin", 300_001, chunk=7001),
        file("/overwritten", 100_000, seed="first"),
        file("/deleted", 4000),
        file("/gone/only-child", 10),
    ]
    steps += [file(f"/many/file-{number:03}.txt", 20 + number) for number in range(many)]
    steps += [
        file(f"{deep}/bottom.txt", 77),
        file("/unicode/ünïcödé-文件-ファイル.txt", 33),
        file("/unicode/emoji 😀 🗂.dat", 34),
        file("/with spaces/a  file with  spaces ", 35),
        file("/.dotfile", 36),
        file("/.dot/.hidden", 37),
        file('/it\'s "quoted" \\n $HOME;*?[x]'.replace("\\", "_"), 38),
        file("/" + "n" * 255, 39),
        file("/bin/tool.sh", 40, mode=0o755),
        file("/secret", 41, mode=0o600),
        file("/old", 42, mtime=OLD_MS),
        file("/before-1970s-billion", 43, mtime=1),
        directory("/empty-dir"),
        directory("/locked-dir", mode=0o700),
        file("/locked-dir/inside", 44),
        link("/link-to-file", "one"),
        link("/links/up", "../unicode"),
        link("/links/nested", "../links/up"),
        link("/dangling", "nowhere/at-all"),
        file("/overwritten", 50_000, seed="second"),
        {"do": "unlink", "path": "/deleted", "drive": "root"},
        {"do": "unlink", "path": "/gone/only-child", "drive": "root"},
        file("/zero-at-the-end", 0),
    ]
    return steps


def nested_steps() -> list[Step]:
    """Return `plain_steps` with a drive in a drive in a drive and a mount pinned to an old version."""
    inner = [
        file("/changes.txt", 20, drive="inner", seed="old"),
        file("/only-old.txt", 21, drive="inner"),
        {"do": "mark", "mark": "old", "drive": "inner"},
        file("/changes.txt", 70_000, drive="inner", seed="new"),
        {"do": "unlink", "path": "/only-old.txt", "drive": "inner"},
        file("/sub/new.txt", 22, drive="inner"),
    ]
    middle = [
        file("/middle.txt", 100, drive="middle"),
        {"do": "mount", "path": "/inner", "of": "inner", "drive": "middle"},
    ]
    root = [
        {"do": "mount", "path": "/nested/middle", "of": "middle", "drive": "root"},
        {"do": "mount", "path": "/pinned", "of": "inner", "mark": "old", "drive": "root"},
    ]
    return inner + middle + plain_steps() + root


def write_steps(path: Path, steps: list[Step]) -> Path:
    """Write `steps` as the JSON file that peer.js reads; return its path."""
    path.write_text(json.dumps({"steps": steps}))
    return path


def play(steps: Iterable[Step]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return drive name -> path -> entry, as the last step leaves it; marks are drives named `name@mark`."""
    drives: dict[str, dict[str, dict[str, Any]]] = {}
    for step in steps:
        entries = drives.setdefault(step["drive"], {})
        match step["do"]:
            case "mark":
                drives[f"{step['drive']}@{step['mark']}"] = dict(entries)
            case "unlink":
                del entries[step["path"]]
            case _:
                entries[step["path"]] = step
    return drives


def expected(steps: list[Step], drive: str = "root") -> dict[str, dict[str, Any]]:
    """Return what must be seen, nested drives included: path -> type, size, mode, mtime, sha256, target."""
    drives = play(steps)
    manifest: dict[str, dict[str, Any]] = {}
    _collect(drives, drive, "", manifest)
    return manifest


def _collect(
    drives: dict[str, dict[str, dict[str, Any]]], drive: str, prefix: str, manifest: dict[str, dict[str, Any]]
) -> None:
    for path, step in drives[drive].items():
        for parent in list(Path(path).parents)[:-1]:
            manifest.setdefault(f"{prefix}{parent}", {"type": "directory"})
        full = prefix + path
        match step["do"]:
            case "file":
                data = content(path, step["seed"], step["size"])
                manifest[full] = {
                    "type": "file",
                    "size": step["size"],
                    "mode": step["mode"],
                    "mtime": step["mtime"],
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
            case "link":
                manifest[full] = {"type": "link", "target": step["target"]}
            case "directory":
                manifest[full] = {"type": "directory", "mode": step["mode"]}
            case "mount":
                manifest[full] = {"type": "directory"}
                inner = f"{step['of']}@{step['mark']}" if "mark" in step else step["of"]
                _collect(drives, inner, full, manifest)


def build(root: Path, steps: list[Step], drive: str = "root") -> Path:
    """Make the tree that `steps` leave in one drive below `root` on the local disk; return `root`."""
    root.mkdir(parents=True, exist_ok=True)
    directories: list[tuple[Path, Step]] = []
    for path, step in play(steps)[drive].items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        match step["do"]:
            case "file":
                place.write_bytes(content(path, step["seed"], step["size"]))
                place.chmod(step["mode"])
                os.utime(place, ns=(step["mtime"] * 1_000_000,) * 2)
            case "link":
                place.symlink_to(step["target"])
            case "directory":
                place.mkdir(exist_ok=True)
                directories.append((place, step))
    for place, step in directories:
        place.chmod(step["mode"])
    return root


def observe(root: Path) -> dict[str, dict[str, Any]]:
    """Return the manifest of what the file system shows below `root`, read with plain system calls."""
    manifest: dict[str, dict[str, Any]] = {}
    for folder, directories, files in os.walk(root):
        for name in sorted(directories + files):
            place = Path(folder) / name
            manifest["/" + str(place.relative_to(root))] = _observed(place)
    return manifest


def _observed(place: Path) -> dict[str, Any]:
    status = place.lstat()
    mode = status.st_mode & 0o7777
    if place.is_symlink():
        return {"type": "link", "target": os.readlink(place)}
    if place.is_dir():
        return {"type": "directory", "mode": mode}
    with place.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    mtime_ms = status.st_mtime_ns // 1_000_000
    return {"type": "file", "size": status.st_size, "mode": mode, "mtime": mtime_ms, "sha256": digest}


def differences(seen: dict[str, dict[str, Any]], wanted: dict[str, dict[str, Any]]) -> list[str]:
    """Return one line per path that is missing, too much or different; only what `wanted` names is compared."""
    lines = [f"missing {path}" for path in sorted(wanted.keys() - seen.keys())]
    lines += [f"too much {path}" for path in sorted(seen.keys() - wanted.keys())]
    for path in sorted(wanted.keys() & seen.keys()):
        for field, value in wanted[path].items():
            if seen[path].get(field) != value:
                lines.append(f"{path}: {field} is {seen[path].get(field)!r}, not {value!r}")
    return lines
