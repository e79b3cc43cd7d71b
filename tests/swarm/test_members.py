"""Who makes room when more peers come than there is room for."""

from typing import Any

from ddrive.swarm.members import MAX_INCOMING_HANDSHAKES, Member, make_room

NOBODY: Any = None


def crowd(begun: int, silent: int) -> list[Member]:
    """Return peers that came and have not finished the handshake, those first that have begun it."""
    made = [Member(lambda member, link: None, NOBODY, None) for _ in range(begun + silent)]
    for member in made[:begun]:
        member.has_begun = True
    return made


def leaves(members: list[Member]) -> list[int]:
    """Return who has been asked to leave."""
    return [number for number, member in enumerate(members) if member.scope.cancel_called]


async def test_there_is_room_for_a_few() -> None:
    members = crowd(1, MAX_INCOMING_HANDSHAKES - 2)
    assert make_room(members, 0.0)
    assert leaves(members) == []


async def test_who_is_silent_does_not_push_out_who_has_begun() -> None:
    half = MAX_INCOMING_HANDSHAKES // 2
    members = crowd(half, half)
    for _ in range(half):
        assert make_room(members, 0.0)
        members = [*members, *crowd(0, 1)]
    assert leaves(members) == list(range(half, 2 * half))


async def test_who_has_begun_does_not_push_out_all_that_are_new() -> None:
    half = MAX_INCOMING_HANDSHAKES // 2
    members = crowd(half + 1, half - 1)
    assert make_room(members, 0.0)
    assert leaves(members) == [0]
