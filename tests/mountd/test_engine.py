"""One engine per state directory: started, refused, killed, ended and started again, as real processes."""
# ruff: noqa: ASYNC110, ASYNC221, ASYNC240 - engines are other processes, and nothing else runs in this one

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.drive import open_drive
from ddrive.errors import (
    AlreadyExists,
    DriveError,
    EngineError,
    InvalidKey,
    LocalProtocolError,
    NoPeers,
    NotFound,
    StorageLocked,
)
from ddrive.ids import PublicKey
from mountd.client import connect_engine
from tests.mountd.engines import COMMAND, Engine, engine, environment
from tests.mountd.test_mounting import read, write_drive
from tests.support.until import until

NOBODY = "ab" * 32

CONNECT = """
import sys, trio
from mountd.client import connect_engine
async def main():
    async with connect_engine(sys.argv[1]) as engine:
        print((await engine.call("status"))["pid"])
trio.run(main)
"""

NOBODY_UID = 65534
ASK_AS = """
import os, socket, sys
uid = int(sys.argv[1])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
caller = socket.socket(socket.AF_UNIX)
caller.settimeout(20)
caller.connect(sys.argv[2])
try:
    caller.send(bytes.fromhex("0000000b 94 00 01 a6 737461747573 80"))
    print(len(caller.recv(100)))
except (ConnectionResetError, BrokenPipeError):
    print(0)
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def test_the_state_directory_is_private(state: Path) -> None:
    state.mkdir(mode=0o755)
    async with engine(state) as running:
        status = await running.call("status")
        assert running.process is not None
        assert (status["pid"], status["state"]) == (running.process.pid, str(state))
        assert status["listen"][0].startswith("127.0.0.1:")
        assert (status["drives"], status["mounts"], status["peers"]) == (0, [], 0)
        assert state.stat().st_mode & 0o777 == 0o700
        for name in ("control.sock", "engine.lock", "identity"):
            assert (state / name).stat().st_mode & 0o777 == 0o600


async def test_a_second_engine_is_refused_in_one_line(state: Path) -> None:
    async with engine(state) as running:
        assert running.process is not None
        second = subprocess.run([*COMMAND, str(state)], capture_output=True, env=environment(), timeout=30)
        assert second.returncode == 7
        assert second.stderr.count(b"\n") == 1
        assert str(running.process.pid) in second.stderr.decode()
        assert str(state) in second.stderr.decode()
        await running.call("status")


async def test_what_a_killed_engine_leaves_is_healed(state: Path) -> None:
    async with engine(state) as running:
        made = await running.call("create", name="mine", dialect="hypercore")
        before = (state / "identity").read_bytes()
        assert await running.kill() == -signal.SIGKILL
        assert running.socket.exists()
        await running.start()
        listed = await running.call("list")
        assert [(drive["key"], drive["name"], drive["writable"], drive["seeding"]) for drive in listed] == [
            (made["key"], "mine", True, True)
        ]
        assert made["url"] == listed[0]["url"] == f"hyper://{made['key']}"
        assert (state / "identity").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, None])
async def test_it_ends_cleanly(state: Path, number: int | None) -> None:
    async with engine(state) as running:
        if number is None:
            assert await running.call("stop") == {"left": []}
            code = await running.ended()
        else:
            code = await running.kill(number)
        assert code == 0
        assert not running.socket.exists()
        with pytest.raises(EngineError):
            await running.call("status")


def test_it_is_interrupted_without_a_word_while_it_starts(state: Path) -> None:
    """Ctrl-C comes while `ddrive daemon` is loaded, and waits until the engine is."""
    command = [sys.executable, "-P", "-m", "mountd", "daemon", "--state", str(state)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        starting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        starting.send_signal(signal.SIGINT)
        assert starting.communicate(timeout=30) == (b"", b"")
    finally:
        starting.kill()
    assert starting.returncode == -signal.SIGINT


async def test_eight_starters_share_one_engine(state: Path) -> None:
    command = [sys.executable, "-c", CONNECT, str(state)]
    pids: list[bytes] = []

    async def connect() -> None:
        done = await trio.run_process(command, capture_stdout=True, env=environment())
        pids.append(done.stdout)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(connect)
    try:
        assert len(pids) == 8
        assert len(set(pids)) == 1
        os.kill(int(pids[0]), 0)
    finally:
        async with connect_engine(state, start=False) as attached:
            await attached.call("stop")
    await until(lambda: not (state / "control.sock").exists())


async def test_a_new_engine_follows_one_that_is_leaving(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDRIVE_LISTEN", "127.0.0.1:0")
    async with engine(state) as running:
        first = (await running.call("status"))["pid"]
        async with running.attached() as attached, trio.open_nursery() as nursery:
            nursery.start_soon(attached.call, "stop")
            await until(lambda: not running.socket.exists())
            async with connect_engine(state) as follower:
                assert (await follower.call("status"))["pid"] != first
                await follower.call("stop")
        assert await running.ended() == 0
    await until(lambda: not running.socket.exists())


async def test_no_engine_is_started_unless_wanted(state: Path) -> None:
    with pytest.raises(EngineError, match="no engine runs"):
        async with connect_engine(state, start=False):
            raise AssertionError
    assert not state.exists()


async def test_why_an_engine_does_not_start_is_told(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDRIVE_LISTEN", "203.0.113.1:1")
    with pytest.raises(EngineError, match=r"203\.0\.113\.1:1.*--listen"):
        async with connect_engine(state):
            raise AssertionError


@pytest.mark.parametrize("name", ["drives.json", "mounts.json", "peers.json"])
async def test_a_damaged_table_is_named(state: Path, name: str) -> None:
    state.mkdir()
    (state / name).write_text("{")
    done = subprocess.run([*COMMAND, str(state)], capture_output=True, env=environment(), timeout=30)
    assert done.returncode == 7
    assert done.stderr.count(b"\n") == 1
    assert str(state / name) in done.stderr.decode()
    with pytest.raises(DriveError, match=name):
        async with connect_engine(state):
            raise AssertionError


def test_a_state_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    done = subprocess.run([*COMMAND, str(tmp_path / "state")], capture_output=True, env=environment(), timeout=30)
    assert done.returncode == 7
    assert str(tmp_path / "state") in done.stderr.decode()


async def test_the_service_manager_is_told(state: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(20)
        async with engine(state, NOTIFY_SOCKET=str(tmp_path / "notify")) as running:
            assert receiver.recv(100) == b"READY=1"
            await running.kill(signal.SIGTERM)
            assert receiver.recv(100) == b"STOPPING=1"


async def test_other_users_are_not_answered() -> None:
    if os.geteuid() != 0:
        pytest.fail("this test has to run as root: it becomes another user")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        async with engine(Path(place, "state")) as running:
            running.state.chmod(0o755)
            running.socket.chmod(0o666)
            await _ask_as_others(running)


async def _ask_as_others(running: Engine) -> None:
    for uid, answered in ((NOBODY_UID, False), (0, True)):
        done = subprocess.run([sys.executable, "-c", ASK_AS, str(uid), str(running.socket)], capture_output=True)
        assert done.returncode == 0, done.stderr
        assert (int(done.stdout) > 0) == answered
    assert "caller refused" in running.log()
    await running.call("status")


async def test_calls_that_make_no_sense_are_answered(state: Path) -> None:
    async with engine(state) as running, running.attached() as attached:
        with pytest.raises(LocalProtocolError, match="fly"):
            await attached.call("fly")
        with pytest.raises(LocalProtocolError, match="key"):
            await attached.call("seed")
        with pytest.raises(InvalidKey):
            await attached.call("info", {"key": "xyz"})
        with pytest.raises(NotFound):
            await attached.call("info", {"key": NOBODY})
        with pytest.raises(NotFound):
            await attached.call("info", {"path": "/nowhere"})
        with pytest.raises(DriveError, match="dialect"):
            await attached.call("create", {"dialect": "klingon"})
        with pytest.raises(DriveError, match="HOST:PORT"):
            await attached.call("peer.add", {"address": "here"})
        with pytest.raises(NotFound):
            await attached.call("peer.rm", {"address": "127.0.0.1:1"})
        assert (await attached.call("status"))["drives"] == 0


async def test_drives_are_made_and_described(state: Path) -> None:
    async with engine(state) as running:
        made = await running.call("create", name="mine")
        assert (made["dialect"], made["version"], made["writable"]) == ("dweb", 1, True)
        with pytest.raises(AlreadyExists, match="mine"):
            await running.call("create", name="mine")
        hidden = await running.call("create", private=True)
        assert {drive["key"]: drive["seeding"] for drive in await running.call("list")} == {
            made["key"]: True,
            hidden["key"]: True,
        }
        info = await running.call("info", key=made["url"])
        assert info["metadata"] == {"length": 1, "downloaded": 1, "byte_length": info["metadata"]["byte_length"]}
        assert info["content"] == {"length": 0, "downloaded": 0, "byte_length": 0, "bytes_downloaded": 0}
        assert (info["peers"], info["mounts"], info["forked"], info["writable"]) == (0, [], False, True)
        stats = await running.call("stats", key=made["key"])
        assert stats["uploaded"] == stats["downloaded"] == {"bytes": 0, "blocks": 0}
        json.dumps([info, stats, await running.call("status")])


@pytest.mark.parametrize("dialect", ["dweb", "hypercore"])
async def test_a_bare_key_is_found_among_peers(tmp_path: Path, dialect: str) -> None:
    async with engine(tmp_path / "a") as author, engine(tmp_path / "b") as reader:
        made = await author.call("create", dialect=dialect)
        address = (await author.call("status"))["listen"][0]
        found = await reader.call("drive.open", key=made["key"], peers=[address])
        assert found == {"key": made["key"], "url": made["url"], "dialect": dialect, "version": 1, "writable": False}
        other = {"dweb": "hypercore", "hypercore": "dweb"}[dialect]
        assert not list((tmp_path / "b" / other).rglob("key"))
        with pytest.raises(InvalidKey, match=dialect):
            await reader.call("drive.open", key=made["key"], dialect=other)
        peer = (await reader.call("peer.ls"))[0]
        assert (peer["address"], peer["connected"], peer["drives"]) == (address, True, [made["key"]])
        assert peer["dialects"] == [dialect]
        assert (await reader.call("info", key=made["key"]))["peers"] == 1
        assert (await reader.call("stats"))["downloaded"]["blocks"] >= 1
        await reader.kill()
        await reader.start()
        await connected(reader, address)


async def connected(running: Engine, address: str) -> None:
    """Return when the engine has a link to `address`."""
    with trio.fail_after(20):
        while not any(peer["connected"] for peer in await running.call("peer.ls") if peer["address"] == address):
            await trio.sleep(0.05)


async def test_a_key_that_nobody_has_is_forgotten(state: Path) -> None:
    async with engine(state) as running:
        with pytest.raises(NoPeers, match="abababab"):
            await running.call("drive.open", key=NOBODY, wait_s=0.1)
        assert await running.call("list") == []
        assert not list(state.rglob("key"))


async def test_peers_are_remembered_and_forgotten(state: Path) -> None:
    async with engine(state) as running:
        assert await running.call("peer.add", address="127.0.0.1:9") == {"address": "127.0.0.1:9"}
        await running.kill()
        await running.start()
        peers = await running.call("peer.ls")
        assert [(peer["address"], peer["connected"]) for peer in peers] == [("127.0.0.1:9", False)]
        await running.call("peer.rm", address="127.0.0.1:9")
        assert await running.call("peer.ls") == []


async def test_an_unseeded_drive_is_not_served(tmp_path: Path) -> None:
    async with engine(tmp_path / "a") as author, engine(tmp_path / "b") as reader:
        made = await author.call("create")
        address = (await author.call("status"))["listen"][0]
        await author.call("unseed", key=made["key"])
        await author.kill()
        await author.start(DDRIVE_LISTEN=address)
        with pytest.raises(NoPeers):
            await reader.call("drive.open", key=made["key"], peers=[address], wait_s=1.0)
        await author.call("seed", key=made["key"])
        found = await reader.call("drive.open", key=made["key"], peers=[address])
        assert found["dialect"] == "dweb"
        await author.call("unseed", key=made["key"])
        with trio.fail_after(20):
            while (await reader.call("info", key=made["key"]))["peers"]:
                await trio.sleep(0.05)
        async with author.attached() as attached:
            assert (await attached.call("info", {"key": made["key"]}))["version"] == 1


async def test_the_port_is_remembered(state: Path) -> None:
    async with engine(state, DDRIVE_LISTEN="") as running:
        first = (await running.call("status"))["listen"]
        await running.kill(signal.SIGTERM)
        await running.start(DDRIVE_LISTEN="")
        assert (await running.call("status"))["listen"] == first


@pytest.mark.parametrize("is_mounted", [False, True])
async def test_an_unseeded_drive_of_others_is_still_fetched(tmp_path: Path, is_mounted: bool) -> None:
    place = tmp_path / "place"
    place.mkdir()
    async with (
        engine(tmp_path / "a") as author,
        engine(tmp_path / "b") as reader,
        engine(tmp_path / "c") as other,
        reader.attached() as attached,
    ):
        key = await write_drive(author, first=b"1" * 1000, second=b"2" * 1000)
        address, readers = [(await running.call("status"))["listen"][0] for running in (author, reader)]
        await reader.call("drive.open", key=key, peers=[address])
        if is_mounted:
            await reader.call("mount", key=key, mountpoint=str(place))
            assert await read(place / "first") == b"1" * 1000
        await reader.call("unseed", key=key)
        if is_mounted:
            assert await read(place / "second") == b"2" * 1000
        else:
            assert (await reader.call("info", key=key))["peers"] == 0
            await reader.call("drive.open", key=key)
            with trio.fail_after(20):
                drive = await open_drive(attached.store(DWEB), key=PublicKey(bytes.fromhex(key)))
                assert await drive.read_file("/second") == b"2" * 1000
                await drive.close()
        with pytest.raises(NoPeers):
            await other.call("drive.open", key=key, peers=[readers], wait_s=1.0)
        await reader.call("seed", key=key)
        assert (await other.call("drive.open", key=key, peers=[readers]))["dialect"] == "dweb"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_an_engine_that_a_verb_starts_is_as_closed_as_the_last_one(
    state: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for name in [name for name in os.environ if name.startswith(("DDRIVE_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    async with engine(state, DDRIVE_ALLOW_PEER="11" * 32) as running:
        given = (await running.call("status"))["options"]
        assert given == {"allow_peer": "11" * 32, "listen": "127.0.0.1:0", "no_discovery": "1"}
        await running.kill(number)
        monkeypatch.setenv("DDRIVE_UPLOAD_SLOTS", "3")
        async with connect_engine(state) as started:
            shown = await started.call("status")
            assert [address.rpartition(":")[0] for address in shown["listen"]] == ["127.0.0.1"]
            assert not any(about["running"] for about in shown["discovery"].values())
            assert shown["options"] == given | {"upload_slots": "3"}
            await started.call("stop")
    assert not (state / "options.json").exists()


async def test_an_engine_that_says_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mountd.client.ANSWER_LIMIT_S", 0.5)
    async with engine(tmp_path / "state") as running:
        assert running.process is not None
        running.process.send_signal(signal.SIGSTOP)
        try:
            with trio.fail_after(30), pytest.raises(StorageLocked, match=rf"pid {running.process.pid}\)"):
                async with connect_engine(running.state):
                    pass
        finally:
            running.process.send_signal(signal.SIGCONT)
