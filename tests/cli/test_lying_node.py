"""An engine that is told by a node of its DHT about thousands of peers that are not there finds the one that is."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.test_discovery import seeded, shown, until
from tests.support.hosts import Host, routed
from tests.support.program import Program, program

FILES = 40  # open in an engine on top of those before: 8 dials, and what its own work takes
MEMORY_KIB = 30_000  # likewise

# Every answer names another hundred peers: most are dead, some take a connection and then say nothing. All nodes that
# it names are itself. Whoever asks is flooded besides.
LIAR = """
import random, socket, sys
from ddrive.swarm import dht_rpc as rpc
from ddrive.swarm.static import Address
host = sys.argv[1]
pits = [socket.create_server((host, 0), backlog=100) for _ in range(8)]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((host, 49737))
print("ready", flush=True)
while True:
    data, source = udp.recvfrom(65536)
    asked = rpc.decode(data)
    dead = [f"11.9.{random.randrange(256)}.{random.randrange(1, 255)}:{random.randrange(1, 65536)}" for _ in range(90)]
    peers = [Address.parse(text) for text in dead] + [Address(*pit.getsockname()) for pit in pits]
    random.shuffle(peers)
    near = tuple(rpc.Contact(random.randbytes(32), Address(host, port)) for port in random.sample(range(1, 65536), 20))
    answer = rpc.Datagram(rpc.Kind.ANSWER, asked.rid, id=random.randbytes(32), closer=near, token=bytes(32),
                          value=rpc.encode_peers_answered(peers))
    udp.sendto(rpc.encode(answer), source)
    for size in range(0, 3000, 10):
        udp.sendto(random.randbytes(size), source)
"""


@contextmanager
def liar(host: Host) -> Iterator[str]:
    """Run a node that lies; give its address."""
    command = [*host.prefix, sys.executable, "-c", LIAR, host.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield f"{host.address}:49737"
        finally:
            process.kill()


@contextmanager
def node(host: Host, directory: Path) -> Iterator[str]:
    """Run a node that does not lie; give its address."""
    with Program(directory, host).running("bootstrap", "--listen", f"{host.address}:49737", "--json") as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"]


def taken(pid: int) -> tuple[int, int]:
    """Return how many files a process has open, and its memory, KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return len(os.listdir(f"/proc/{pid}/fd")), int(status.split("VmRSS:")[1].split()[0])


def test_a_lying_node_keeps_nobody_from_a_drive(tmp_path: Path) -> None:
    with (
        routed(4) as (router, hosts),
        liar(hosts[0]) as lying,
        node(hosts[1], tmp_path / "node") as honest,
        program(tmp_path / "author", hosts[2]) as author,
        program(tmp_path / "reader", hosts[3]) as reader,
    ):
        router.ip("route", "add", "blackhole", "11.9.0.0/16")
        for engine in (author, reader):
            engine.settings["DDRIVE_DHT_NODES"] = f"{lying},{honest}"
        key = seeded(author, tmp_path / "source")
        until(lambda: author.ask("status")["discovery"]["dht"]["announced"])
        files, memory = taken(reader.pid)
        assert shown(reader.run("cat", key, "greeting.txt", "--timeout", "60s")) == b"hello\n"
        files_now, memory_now = taken(reader.pid)
        assert files_now <= files + FILES
        assert memory_now <= memory + MEMORY_KIB
        report = reader.ask("status")["discovery"]["dht"]
        assert 0 < report["found"] <= 17 * report["asked"], "of hundreds"
