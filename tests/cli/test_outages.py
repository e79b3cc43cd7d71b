"""Links come back after outages of which nobody tells the engines: a router that restarts, a peer that sleeps."""

import time
from pathlib import Path

from tests.cli.test_discovery import seeded, shown, until
from tests.support.hosts import Host, routed
from tests.support.program import Program, program, stopped

RESTART_S = 30.0  # of a router
SLEEP_S = 60.0


def is_linked(engine: Program, other: Host) -> bool:
    """Tell whether the peer that was dialled on a host is connected."""
    found: list[dict[str, object]] = engine.ask("peer", "ls")
    return any(peer["connected"] and str(peer["address"]).startswith(f"{other.address}:") for peer in found)


def test_links_come_back_after_a_router_has_restarted_and_a_peer_has_slept(tmp_path: Path) -> None:
    """Both at the same time. `scripts/bench/outages.py` shows how long it takes; here it may take a while."""
    with (
        routed(3) as (router, hosts),
        program(tmp_path / "author", hosts[0]) as author,
        program(tmp_path / "reader", hosts[1]) as reader,
        program(tmp_path / "sleeper", hosts[2]) as sleeper,
    ):
        key, other_key = seeded(author, tmp_path / "source"), seeded(sleeper, tmp_path / "other")
        awake = sleeper.pid
        shown(reader.run("ls", key, "/", "--peer", author.address.replace("0.0.0.0", hosts[0].address)))
        shown(author.run("ls", other_key, "/", "--peer", sleeper.address.replace("0.0.0.0", hosts[2].address)))
        time.sleep(11)  # a link that lasted

        with stopped(awake):
            wakes_s = time.monotonic() + SLEEP_S
            router.ip("link", "set", "net2", "down")
            time.sleep(RESTART_S)
            assert not is_linked(reader, hosts[0])
            router.ip("link", "set", "net2", "up")
            until(lambda: is_linked(reader, hosts[0]))
            assert shown(reader.run("cat", key, "greeting.txt")) == b"hello\n"
            time.sleep(max(0.0, wakes_s - time.monotonic()))
            assert not is_linked(author, hosts[2])
        until(lambda: is_linked(author, hosts[2]))
        assert shown(author.run("cat", other_key, "greeting.txt")) == b"hello\n"
