"""docs/drive.md is true: its examples run, and its tables name every public method."""

import inspect
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

import ddrive
from ddrive.drive.tags import Tags
from ddrive.store.namespace import Namespace
from tests.support.until import until

TEXT = (Path(__file__).resolve().parent.parent.parent / "docs" / "drive.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


async def run(source: str, **names: object) -> None:
    """Run an example."""
    body = "async def example():\n" + "".join(f"    {line}\n" for line in source.splitlines())
    space: dict[str, Any] = {"ddrive": ddrive, "trio": trio, "partial": partial, **names}
    exec(compile(body, "docs/drive.md", "exec"), space)
    await space["example"]()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that the examples take for theirs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_one_writes_and_the_other_reads(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = memory_stream_pair()
    async with ddrive.open_store("state") as store, await ddrive.open_drive(store, create=True) as drive:
        key = drive.key
    author, reader = EXAMPLES[:2]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run, author, stream=ours))
            async with trio.open_nursery() as links:
                done = reader + "    nursery.cancel_scope.cancel()\n"
                links.start_soon(partial(run, done, stream=theirs, key=key, nursery=links))
            nursery.cancel_scope.cancel()
    assert capsys.readouterr().out == "docs 0\ndocs/hello.txt 5\nb'hello'\n[]\n"


async def test_the_database(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await run(EXAMPLES[2])
    assert capsys.readouterr().out == "['bob/mail']\n"


async def test_writing_and_watching(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ddrive.open_store("state") as store, await ddrive.open_drive(store, create=True) as drive:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(run, EXAMPLES[3] + "    return\n", drive=drive))
                await until(lambda: drive.version > 1)
                await trio.testing.wait_all_tasks_blocked()
                await drive.write_file("docs/new", b"")
        assert await drive.read_file("log.txt") == b"one more line\n"
    assert capsys.readouterr().out == "['docs/new']\n"


@pytest.mark.parametrize(
    ("what", "heading"),
    [
        (ddrive.Drive, "## The drive"),
        (Tags, "## The drive"),
        (ddrive.FileHandle, "## The drive"),
        (ddrive.Trie, "## The trie"),
        (Namespace, "## The store"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_method_is_named(what: type, heading: str) -> None:
    section = TEXT.split(heading + "\n")[1].split("\n## ")[0]
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", section))))
    inside = {
        "nodes",
        "header",
        "head",
        "helped",
        "store",
        "owner",
        "bytes_feed",
        "default_name",
    }  # for what is built on them
    public = {name for name, _ in inspect.getmembers(what) if not name.startswith("_")} - inside
    assert public <= named, f"docs/drive.md does not name {sorted(public - named)}"


@pytest.mark.parametrize(
    ("what", "heading"),
    [(ddrive.Drive, "## The drive"), (ddrive.Trie, "## The trie"), (ddrive.OwnedStore, "## The store")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_plain_calls_are_told_from_those_that_are_awaited(what: type, heading: str) -> None:
    section = TEXT.split(heading + "\n")[1].split("\n## ")[0]
    listed = set(re.findall(r"`(\w+)`", section.split("Plain calls")[1].split(";")[0]))
    tables = {word for line in section.splitlines() if line.startswith("|") for word in re.findall(r"(\w+)\(", line)}
    calls = {name: call for name, call in inspect.getmembers(what, inspect.isfunction) if name in tables | listed}
    assert {name for name, call in calls.items() if not inspect.iscoroutinefunction(call)} == listed


@pytest.mark.parametrize("call", [ddrive.import_tree, ddrive.export_tree, ddrive.mirror])
def test_signatures_are_right(call: Callable[..., object]) -> None:
    [told] = re.findall(rf"`await {call.__name__}\((.*?)\)`", TEXT, re.DOTALL)
    assert [one.split("=")[0].strip() for one in told.split(",")] == list(inspect.signature(call).parameters)


def test_every_call_of_a_store_exists() -> None:
    section = TEXT.split("## The store\n")[1].split("`ddrive.namespace(")[0]
    calls = set(re.findall(r"`(\w+)\(", section.split("|---|---|")[1]))
    assert {call for call in calls if not hasattr(ddrive.OwnedStore, call)} == set()
    assert len(calls) > 10


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == 4
