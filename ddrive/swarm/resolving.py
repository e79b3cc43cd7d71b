"""Names of hosts to IP addresses, all at the same time and within a deadline; libraries would wait for longer."""

import socket
from collections.abc import Sequence

import trio

from ddrive.swarm.static import Address

RESOLVE_S = 5.0


async def resolve(given: Sequence[Address], *, family: int = socket.AF_UNSPEC) -> tuple[list[Address], str | None]:
    """Return the IP addresses of the given hosts, and in words for people why some are missing. Takes 5 s at most."""
    found: dict[Address, list[Address]] = {}
    errors: list[str] = []

    async def look_up(name: Address) -> None:
        try:
            answers = await trio.socket.getaddrinfo(name.host, name.port, family=family, type=socket.SOCK_DGRAM)
            found[name] = [Address(str(answer[4][0]), int(answer[4][1])) for answer in answers]
        except (OSError, UnicodeError) as error:
            errors.append(f"the name {name.host} is not known here: {getattr(error, 'strerror', None) or error}")

    with trio.move_on_after(RESOLVE_S) as scope:
        async with trio.open_nursery() as nursery:
            for name in given:
                nursery.start_soon(look_up, name)
    if scope.cancelled_caught:
        errors.append(f"no name server has answered within {RESOLVE_S:g} s")
    addresses = [address for name in given for address in found.get(name, ())]
    return list(dict.fromkeys(addresses)), errors[0] if errors else None
