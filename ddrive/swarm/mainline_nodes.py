"""The nodes of the Mainline DHT that a session knows, kept over a restart as addresses, one in a line."""

import logging
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import libtorrent

from ddrive.swarm.static import Address

MAX_KEPT = 200  # nodes that are kept over a restart

_STATE = libtorrent.save_state_flags_t.save_dht_state

_log = logging.getLogger(__name__)

Save = Callable[[bytes], None]  # keeps the state of the session; called in a thread


def state_of(session: Any) -> bytes:
    """Return the addresses of the nodes that a session knows, one in a line."""
    table: dict[bytes, Any] = libtorrent.write_session_params(session.session_state(_STATE), _STATE)
    packed = table.get(b"dht state", {})
    nodes = [*packed.get(b"nodes", ()), *packed.get(b"nodes6", ())][:MAX_KEPT]
    found = [Address(str(ip_address(node[:-2])), int.from_bytes(node[-2:], "big")) for node in nodes]
    return "".join(f"{node}\n" for node in found).encode()


def nodes_of(state: bytes) -> list[Address]:
    """Return the addresses in what `state_of` gave; what is no address is passed over."""
    found = []
    for line in state.decode(errors="replace").splitlines()[:MAX_KEPT]:
        with suppress(ValueError):
            found.append(Address.parse(line))
    return found


def keep(save: Save, session: Any) -> None:
    """Keep what a session knows, if it knows anything: after a time without a network the old state is better."""
    try:
        if state := state_of(session):
            save(state)
    except OSError as error:
        _log.warning("the state of the mainline dht was not saved reason=%s", error)
