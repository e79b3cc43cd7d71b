"""Signatures of a feed: reading them back, own functions to make and check them, blocks refused before a write."""

import pytest

from ddrive import crypto
from ddrive.errors import InvalidProof, NotHeld
from ddrive.feed.log import FeedLog
from ddrive.feed.signing import Signing
from ddrive.feed.storage import MemoryDirectory
from ddrive.ids import PublicKey
from tests.feed.samples import PAIR, copy, proof_of, reader, writer

BLOCKS = [b"a", b"bb", b"ccc"]


def test_the_first_signature_at_or_after_a_block_is_found():
    log = writer([b"a", b"b", b"c", b"d"], batch=2)
    assert [log.signature(index)[0] for index in range(4)] == [1, 1, 3, 3]
    assert log.signature()[0] == 3


def test_a_block_after_the_last_signature_has_none():
    with pytest.raises(NotHeld):
        writer(BLOCKS).signature(3)


def test_an_empty_feed_has_no_signature():
    with pytest.raises(NotHeld):
        writer().signature()


def test_a_signature_verifies_for_its_own_last_block():
    log = writer(BLOCKS)
    log.verify(2, log.signature(2)[1])


def test_a_signature_does_not_verify_for_another_block():
    log = writer(BLOCKS)
    with pytest.raises(InvalidProof):
        log.verify(1, log.signature(2)[1])


def test_root_hashes_are_those_of_the_length_up_to_the_block():
    log = writer(BLOCKS)
    assert [root.number for root in log.root_hashes(2)] == [1, 4]
    assert [root.number for root in log.root_hashes(1)] == [1]


def test_roots_of_blocks_that_do_not_exist_are_not_held():
    with pytest.raises(NotHeld):
        writer(BLOCKS).root_hashes(3)


def backwards(message: bytes) -> bytes:
    """Sign in a way that only `forwards` accepts."""
    return crypto.sign(message, PAIR.secret_key)[::-1]


def forwards(message: bytes, signature: bytes, key: PublicKey) -> bool:
    """Check what `backwards` made."""
    return crypto.verify(message, signature[::-1], key)


OWN = Signing(backwards, forwards)


def test_an_own_signer_makes_a_feed_writable_without_a_secret_key():
    log = FeedLog.create(MemoryDirectory(), key=PAIR.public_key, signing=OWN)
    log.append(BLOCKS)
    assert log.signature()[1] == backwards(crypto_text(log))


def crypto_text(log: FeedLog) -> bytes:
    """Return what is signed for the whole log."""
    from_roots = b"".join(
        root.hash + root.number.to_bytes(8, "big") + root.size.to_bytes(8, "big") for root in log.roots
    )
    return crypto.hash_of(b"\x02" + from_roots) + log.length.to_bytes(8, "big")


def test_an_own_check_decides_what_is_accepted():
    log = FeedLog.create(MemoryDirectory(), key=PAIR.public_key, signing=OWN)
    log.append(BLOCKS)
    target = FeedLog.create(MemoryDirectory(), key=PAIR.public_key, signing=Signing(verify=forwards))
    copy(log, target, [0])
    assert target.length == 3


def test_an_own_check_decides_what_a_reopened_feed_holds():
    directory = MemoryDirectory()
    log = FeedLog.create(directory, key=PAIR.public_key, signing=OWN)
    log.append(BLOCKS)
    log.close()
    assert FeedLog.open(directory, signing=Signing(verify=forwards)).length == 3


def refuse(index: int, block: object) -> None:
    """Refuse block 1."""
    if index == 1:
        raise ValueError("not this one")


def test_a_refused_block_of_a_peer_leaves_no_trace():
    source, target = writer(BLOCKS), reader()
    copy(source, target, [0])
    before = {name: bytes(content) for name, content in target._directory.files.items()}  # type: ignore[attr-defined]
    target.on_write = refuse
    with pytest.raises(ValueError, match="not this one"):
        target.put(1, BLOCKS[1], proof_of(source, 1, target.digest(1)))
    assert {name: bytes(content) for name, content in target._directory.files.items()} == before  # type: ignore[attr-defined]


def test_a_refused_append_leaves_no_trace():
    log = writer()
    log.on_write = refuse
    with pytest.raises(ValueError, match="not this one"):
        log.append(BLOCKS)
    assert log.length == 0
    assert log._files.data.size() == 0


def test_what_does_not_verify_is_never_shown_to_the_hook():
    source, target = writer(BLOCKS), reader()
    seen: list[int] = []
    target.on_write = lambda index, block: seen.append(index)
    with pytest.raises(InvalidProof):
        target.put(0, b"wrong", proof_of(source, 0))
    assert seen == []
