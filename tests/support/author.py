"""Plays the steps of a tree on drives of our own, through the library: what `make` of peer.js does with npm."""

from pathlib import Path
from typing import Any

from ddrive.dialect import DIALECTS
from ddrive.drive import Drive, open_drive
from ddrive.store.store import open_store
from tests.support.tree import Step, content


async def make(dialect: str, path: Path, steps: list[Step]) -> dict[str, dict[str, Any]]:
    """Make the drives of `steps` in the store directory `path`; return drive name -> {key, version}."""
    drives: dict[str, Drive] = {}
    marks: dict[str, int] = {}
    async with open_store(path, DIALECTS[dialect]) as store:
        for step in steps:
            name = step["drive"]
            if name not in drives:
                drives[name] = await open_drive(store, name=name, create=True)
            await _apply(drives[name], step, drives, marks)
        made = {name: {"key": drive.key.hex(), "version": drive.version} for name, drive in drives.items()}
        for drive in drives.values():
            await drive.close()
    return made


async def _apply(drive: Drive, step: Step, drives: dict[str, Drive], marks: dict[str, int]) -> None:
    about = {name: step[name] for name in ("mode", "uid", "gid") if name in step}
    match step["do"]:
        case "file":
            data = content(step["path"], step["seed"], step["size"])
            await drive.write_file(step["path"], data, mtime_ms=step["mtime"], **about)
        case "directory":
            await drive.mkdir(step["path"], mtime_ms=step["mtime"], **about)
        case "link":
            await drive.symlink(step["path"], step["target"])
        case "unlink":
            await drive.unlink(step["path"])
        case "mark":
            marks[step["mark"]] = drive.version
        case "mount":
            version = marks[step["mark"]] if "mark" in step else None
            await drive.mount(step["path"], drives[step["of"]].key, version=version)
