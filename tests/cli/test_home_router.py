"""An engine at home lets itself be reached through its router, and shows what it got."""

from pathlib import Path

from tests.cli.test_discovery import mainline_node, seeded, shown, until
from tests.support.home import home
from tests.support.program import alive, program


def test_a_host_elsewhere_reads_a_drive_of_a_host_at_home(tmp_path: Path) -> None:
    with (
        home(tmp_path, natpmp=False) as place,
        program(tmp_path / "author", place.inside) as author,
        program(tmp_path / "reader", place.outside) as reader,
        mainline_node(place.outside) as node,
    ):
        author.settings["DDRIVE_MAINLINE_NODES"] = reader.settings["DDRIVE_MAINLINE_NODES"] = node
        key = seeded(author, tmp_path / "source")
        port = int(author.ask("status")["listen"][0].rpartition(":")[2])
        until(lambda: port in place.opened())
        until(lambda: author.ask("status")["discovery"]["mainline"]["announced"])
        assert f"port {port} of the router by UPnP" in author.ask("status")["discovery"]["mainline"]["detail"]
        reader.mount(key, tmp_path / "mnt")
        assert (tmp_path / "mnt" / "greeting.txt").read_text() == "hello\n"
        assert [peer["address"] for peer in reader.ask("peer", "ls") if peer["connected"]] == [f"11.0.9.1:{port}"]


def test_the_port_that_the_router_gave_is_announced_to_npm_peers_too(tmp_path: Path) -> None:
    with (
        home(tmp_path, upnp=False, ports="20010-65535") as place,
        program(tmp_path / "author", place.inside, listen="0.0.0.0:20000") as author,
        program(tmp_path / "reader", place.outside) as reader,
        reader.running("bootstrap", "--listen", f"{place.outside.address}:49737") as node,
    ):
        assert node.stdout is not None
        assert node.stdout.readline().startswith(b"listening")
        author.settings["DDRIVE_DHT_NODES"] = reader.settings["DDRIVE_DHT_NODES"] = f"{place.outside.address}:49737"
        author.settings["DDRIVE_MAINLINE_NODES"] = f"{place.outside.address}:1"
        key = seeded(author, tmp_path / "source")
        until(lambda: 20010 in place.opened())
        until(lambda: author.ask("status")["discovery"]["dht"]["announced"] > 1)
        assert shown(reader.run("cat", key, "greeting.txt")) == b"hello\n"
        assert [peer["address"] for peer in reader.ask("peer", "ls") if peer["connected"]] == ["11.0.9.1:20010"]


def test_a_port_of_the_router_is_given_back(tmp_path: Path) -> None:
    with home(tmp_path, upnp=False) as place, program(tmp_path / "author", place.inside) as author:
        author.settings["DDRIVE_MAINLINE_NODES"] = f"{place.outside.address}:1"
        port = int(author.ask("status")["listen"][0].rpartition(":")[2])
        until(lambda: port in place.opened())
        detail = f"0 nodes, port {port} of the router by NAT-PMP"
        until(lambda: author.ask("status")["discovery"]["mainline"]["detail"] == detail)
        author.ask("stop")
        until(lambda: not place.opened())


def test_an_engine_ends_though_the_router_has_gone(tmp_path: Path) -> None:
    with home(tmp_path) as place, program(tmp_path / "author", place.inside) as author:
        author.settings["DDRIVE_MAINLINE_NODES"] = f"{place.outside.address}:1"
        pid = author.pid
        until(lambda: "router" in author.ask("status")["discovery"]["mainline"]["detail"])
        place.router.ip("link", "set", "home", "down")
        author.ask("stop")
        until(lambda: not alive(pid), timeout_s=8)  # libtorrent would wait for the router for longer


def test_the_router_is_left_alone_when_told_so(tmp_path: Path) -> None:
    with (
        home(tmp_path) as place,
        program(tmp_path / "author", place.inside) as author,
        mainline_node(place.outside) as node,
    ):
        author.settings |= {"DDRIVE_MAINLINE_NODES": node, "DDRIVE_NO_PORT_MAPPING": "1"}
        seeded(author, tmp_path / "source")
        until(lambda: author.ask("status")["discovery"]["mainline"]["announced"])
        assert "router" not in author.ask("status")["discovery"]["mainline"]["detail"]
        assert place.opened() == set()
