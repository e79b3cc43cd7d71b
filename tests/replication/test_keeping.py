"""Nodes that a peer keeps are sent once; one that dropped some says so and is sent all again."""

import pytest

from ddrive.errors import InvalidProof
from ddrive.feed import Feed
from ddrive.feed.merkle import Proof
from ddrive.ids import BlockIndex
from ddrive.protocol.codec import decode, encode
from ddrive.protocol.messages import Request, Want
from ddrive.replication.local import HeldBlocks
from ddrive.replication.peer import PeerStats
from ddrive.replication.scheduler import MAX_BROKEN_PROMISES, Scheduler, Send
from ddrive.replication.serving import Uploads
from tests.feed.samples import copy, reader, writer

BLOCKS = [bytes([number]) * 9 for number in range(64)]


def answers(requests, *, keeps, again_after=None):
    """Return what is sent for requests whose digests know nothing, as when many are under way at once."""
    log, sent = writer(BLOCKS), []
    uploads = Uploads(sent.append, (PeerStats(),))
    if keeps:
        uploads.begin_account()
    for count, request in enumerate(requests):
        if count == again_after:
            uploads.begin_account()
        uploads.add(request)
        uploads.serve(Feed(log), log, lambda: True)
    return sent


def test_a_node_is_sent_once_to_a_peer_that_keeps_it():
    requests = [Request(BlockIndex(index)) for index in range(64)]
    plain = sum(len(data.nodes) for data in answers(requests, keeps=False))
    kept = answers(requests, keeps=True)
    assert plain == 64 * 6
    assert sum(len(data.nodes) for data in kept) == 63
    target = reader()
    for data in kept:
        target.put(data.index, data.value, proof_of(data))
    assert target.held(0, 64) == 64


def proof_of(data):
    return Proof(data.nodes, data.signature)


def test_after_a_new_account_nothing_counts_as_sent():
    requests = [Request(BlockIndex(index)) for index in (0, 1, 2)]
    sent = answers(requests, keeps=True, again_after=2)
    target = reader()
    target.put(2, sent[2].value, proof_of(sent[2]))
    assert target.has(2)


def test_it_is_told_when_nodes_were_not_kept_because_another_peer_had_proven_those_below():
    sent = answers([Request(BlockIndex(37)), Request(BlockIndex(40))], keeps=True)
    target, with_less = reader(), writer(BLOCKS[:39])
    copy(with_less, target, [38])
    stored = target.put(37, sent[0].value, proof_of(sent[0]))
    assert stored.block
    assert not stored.proof
    with pytest.raises(InvalidProof):
        target.put(40, sent[1].value, proof_of(sent[1]))
    assert (
        target.put_all({BlockIndex(36): (BLOCKS[36], proof_of(answers([Request(BlockIndex(36))], keeps=True)[0]))})
        == []
    )


def test_nodes_that_are_held_already_are_kept():
    target, other = reader(), writer(BLOCKS)
    copy(other, target, [38])
    sent = answers([Request(BlockIndex(37))], keeps=True)
    assert target.put(37, sent[0].value, proof_of(sent[0])).proof


def test_the_promise_goes_over_the_wire():
    kind, body = encode(Want(BlockIndex(0), 8192, keeps=True))
    message = decode(kind, body)
    assert isinstance(message, Want)
    assert message.keeps
    assert encode(Want(BlockIndex(0), 8192)) == (5, b"\x08\x00\x10\x80\x40")


def asking_scheduler():
    """Return a scheduler with one peer that has everything and is asked for blocks 0 to 3 at time 1."""
    scheduler = Scheduler(HeldBlocks(reader()))
    peer, actions = scheduler.add_peer(0.0)
    assert [action.message.keeps for action in actions] == [True]
    scheduler.has(peer, 0, 64, 1.0)
    for index in range(4):
        scheduler.want_blocks(index, index + 1, 1.0, urgent=True)
    return scheduler, peer


def test_a_peer_is_excused_for_what_was_asked_before_an_answer_was_dropped():
    scheduler, peer = asking_scheduler()
    assert not scheduler.excuses(peer, 0)
    again = scheduler.dropped(peer)
    assert again == [Send(peer.id, Want(BlockIndex(0), 1 << 20))]
    assert again[0].message.keeps
    assert scheduler.excuses(peer, 0)
    assert 0 not in peer.asked


def begins_anew(scheduler, peer):
    """Let the peer answer a Want for the first region, as it does before it answers what was asked later."""
    scheduler.has_bits(peer, 0, 1 << 20, b"\xff" * 8, 3.5)


def test_a_peer_is_not_excused_for_what_it_answers_after_it_has_begun_anew():
    scheduler, peer = asking_scheduler()
    begins_anew(scheduler, peer)
    scheduler.dropped(peer)
    assert scheduler.excuses(peer, 0)
    scheduler.tick(4.0)
    assert 0 in peer.asked
    begins_anew(scheduler, peer)
    assert not scheduler.excuses(peer, 0)


def test_an_answer_that_was_on_its_way_is_excused_although_the_block_was_asked_for_again_meanwhile():
    scheduler, peer = asking_scheduler()
    begins_anew(scheduler, peer)
    scheduler.dropped(peer)
    scheduler.withdraw(scheduler.demand.blocks[0], 4.0)
    scheduler.want_blocks(0, 1, 5.0, urgent=True)
    assert peer.asked[0].sent_at == 5.0
    assert scheduler.excuses(peer, 0)


def test_one_want_is_enough_for_all_that_is_dropped_until_it_is_answered():
    scheduler, peer = asking_scheduler()
    begins_anew(scheduler, peer)
    assert scheduler.dropped(peer)
    assert not scheduler.dropped(peer)
    begins_anew(scheduler, peer)
    assert scheduler.dropped(peer)


def test_a_peer_that_does_not_answer_the_want_is_excused_only_for_what_was_under_way():
    scheduler, peer = asking_scheduler()
    scheduler.dropped(peer)
    for index in range(4):
        assert scheduler.excuses(peer, index)
    scheduler.tick(4.0)
    assert not scheduler.excuses(peer, 0)


def test_a_peer_that_makes_us_drop_again_and_again_is_to_blame():
    scheduler, peer = asking_scheduler()
    for _ in range(MAX_BROKEN_PROMISES + 1):
        scheduler.dropped(peer)
    assert not scheduler.excuses(peer, 0)
