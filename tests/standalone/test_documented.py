"""The example and the table of options in docs/feed.md are true."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
import trio

import ddrive
from ddrive import standalone
from ddrive.replication.peer import FeedStats

TEXT = (Path(__file__).resolve().parent.parent.parent / "docs" / "feed.md").read_text()


async def test_the_example_runs(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert code is not None
    author, reader = code[1].split("\n\n")
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f'"127.0.0.1", {listeners[0].socket.getsockname()[1]}'
    keys: dict[str, bytes] = {}

    async def run(source: str, **names: object) -> None:
        body = "async def example():\n" + "".join(f"    {line}\n" for line in source.splitlines())
        space: dict[str, object] = {"ddrive": ddrive, "trio": trio, **names}
        exec(compile(body, "docs/feed.md", "exec"), space)
        await space["example"]()  # type: ignore[operator]

    with trio.fail_after(20):
        async with ddrive.open_feed("log") as feed:
            keys["log"] = feed.key
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reader.replace('"10.0.0.7", 9000', address).replace(", key", f", {keys['log']!r}"))
            async with listeners[0] as listener:
                stream = await listener.accept()
            await _run_author(run, author, stream)
    assert capsys.readouterr().out == "b'hello'\n"


async def _run_author(run, author: str, stream: trio.SocketStream) -> None:
    await run(author.replace("stream,", "the_stream,"), the_stream=stream)


def _documented(heading: str) -> set[str]:
    section = TEXT.split(heading)[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_option_of_opening_is_documented():
    assert _documented("## Opening\n") == set(inspect.signature(ddrive.open_feed).parameters) - {"place"}


def test_every_option_of_replicate_is_documented():
    options = set(inspect.signature(ddrive.StandaloneFeed.replicate).parameters) - {"self", "stream"}
    assert _documented("## Peers\n") == options


def test_what_is_awaited_is_documented():
    awaited = {name for name, _ in inspect.getmembers(ddrive.StandaloneFeed, inspect.iscoroutinefunction)}
    public = {name for name in awaited if not name.startswith("_")}
    listed = re.search(r"awaited: of a feed (.*?), of a replication", TEXT, re.DOTALL)
    assert listed is not None
    inside = {"append_blocks", "close_links", "wait_for_length"}  # what the feed and its streams call themselves
    assert set(re.findall(r"`(\w+)`", listed[1])) == public - inside


def test_the_methods_of_a_factorys_files_are_documented():
    rows = TEXT.split("| method | |")[1].split("\n\n")[0]
    methods = {name for name, _ in inspect.getmembers(ddrive.feed.Storage, inspect.isfunction) if name[0] != "_"}
    assert set(re.findall(r"`(\w+)\(", rows)) == methods


INSIDE = {
    "finish",
    "grew",
    "nodes_stored",
    "append_blocks",
    "carried_by",
    "close_links",
    "follow",
    "giver",
    "left_by",
    "wait_for_length",
}


@pytest.mark.parametrize("name", ["StandaloneFeed", "Peer", "Replication", "Download", "ReadStream", "WriteStream"])
def test_every_public_name_is_documented(name):
    members = {member for member in dir(getattr(standalone, name)) if member[0] != "_"}
    assert {member for member in members - INSIDE if not re.search(rf"`[^`]*\b{member}\b", TEXT)} == set()


def test_every_class_is_documented():
    assert {name for name in standalone.__all__ if not re.search(rf"\b{name}\b", TEXT)} == {"open_trie"}


def test_every_count_is_documented():
    assert {field.name for field in fields(FeedStats) if f"`{field.name}`" not in TEXT} == set()
