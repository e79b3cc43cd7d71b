"""Loss of power at every step of a mixed load: appends that share a sync, appends that do not wait, flushes."""

from contextlib import suppress

import pytest
import trio

from ddrive.errors import DriveError
from ddrive.feed import Feed, FeedLog, appending
from ddrive.feed.owned import Staged
from tests.feed.samples import PAIR, Crashed, CrashingDirectory, content, writer

GROUPS = 6


async def load(feed: Feed, durable: set[bytes]) -> None:
    """Append in all ways; what is acknowledged as durable is noted."""

    async def append(name: bytes) -> None:
        with suppress(Crashed, DriveError):
            await feed.append([name, name * 150])
            durable.add(name)

    for group in range(GROUPS):
        base = b"%d" % group
        early = [base + b"unsynced", base + b"too"]
        await feed.append(early, durable=False)
        if group % 2:
            await feed.flush()
            durable.update(early)
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(append, base + b"-%d" % number)
    await feed.append([b"last"], durable=False)


@pytest.mark.parametrize("ahead", [False, True], ids=["one-by-one", "staged-ahead"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("changes", range(0, 96, 2))
async def test_what_was_acknowledged_survives_and_the_rest_is_a_prefix(
    monkeypatch: pytest.MonkeyPatch, changes: int, seed: int, ahead: bool
) -> None:
    disk, durable = CrashingDirectory(changes), set[bytes]()
    if ahead:
        disk.blocking = True
        monkeypatch.setattr(appending, "BESIDE_BYTES", 1)
        monkeypatch.setattr(appending, "TOGETHER_BYTES", 500)
    written: list[bytes] = []
    with suppress(Crashed, DriveError):
        feed = Feed(writer(directory=disk))
        begin = feed.log.begin_staging  # type: ignore[union-attr]

        def noted(blocks: list[bytes], after: Staged | None) -> Staged:
            before = begin(blocks, after)
            del written[before.length :]
            written.extend(blocks)
            return before

        feed.log.begin_staging = noted  # type: ignore[method-assign,union-attr,assignment]
        await load(feed, durable)
    directory = disk.after_restart(seed)
    if not directory.exists("key") or len(directory.files["key"]) < 32:
        assert not durable
        return
    log = FeedLog.open(directory, secret_key=PAIR.secret_key)
    found = content(log)
    assert found == dict(enumerate(written[: log.length]))
    assert durable <= set(found.values())
    before = log.length
    assert log.append([b"after"]) == before  # only possible where nothing longer can have been signed
    log.close()
    assert content(FeedLog.open(directory))[before] == b"after"
