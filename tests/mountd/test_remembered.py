"""Where peers were met, kept over restarts."""

from pathlib import Path

from ddrive.ids import DiscoveryKey
from ddrive.swarm import Address
from mountd.remembered import MAX_PER_TOPIC, Remembered

TOPIC, OTHER = DiscoveryKey(b"t" * 32), DiscoveryKey(b"o" * 32)
PEERS = [Address("10.0.0.1", 4000 + number) for number in range(MAX_PER_TOPIC + 3)]


async def test_addresses_are_kept_the_latest_first(tmp_path: Path) -> None:
    remembered = Remembered(tmp_path / "peers.sqlite")
    for address in PEERS:
        remembered.note(TOPIC, address)
    remembered.note(OTHER, PEERS[0])
    await remembered.save()
    again = Remembered(tmp_path / "peers.sqlite")
    assert again.addresses(TOPIC) == PEERS[:2:-1]
    assert again.addresses(OTHER) == PEERS[:1]
    again.forget(TOPIC)
    await again.save()
    assert Remembered(tmp_path / "peers.sqlite").addresses(TOPIC) == []


async def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "peers.sqlite"
    path.write_bytes(b"nonsense" * 1000)
    remembered = Remembered(path)
    remembered.note(TOPIC, PEERS[0])
    await remembered.save()
    assert Remembered(path).addresses(TOPIC) == PEERS[:1]


async def test_a_disk_that_fails_only_costs_the_memory(tmp_path: Path) -> None:
    remembered = Remembered(tmp_path / "peers.sqlite")
    remembered.note(TOPIC, PEERS[0])
    (tmp_path / "peers.sqlite").unlink()
    (tmp_path / "peers.sqlite").mkdir()
    await remembered.save()
    assert remembered.addresses(TOPIC) == PEERS[:1]
