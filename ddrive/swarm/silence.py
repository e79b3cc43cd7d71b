"""Whether what we send on a TCP connection still arrives, by what the system tells of it. The time is given.

The system sends again what is not confirmed, at intervals that double: after an outage of half a minute it would be
silent for another half. A link that is lost is better ended, and dialled anew.
"""

import sys
from typing import Final, NamedTuple

LOST_S: Final = 6.0  # without any confirmation while something is under way
LOOK_S: Final = 1.0  # between two looks

INFO_BYTES: Final = 72  # of what the system tells. Source: linux/tcp.h, tcp_info
_UNCONFIRMED: Final = 24  # where it tells how many packets are under way, in 4 bytes
_SILENT: Final = 56  # how long ago the last confirmation was received, milliseconds
_ROUND_TRIP: Final = 68  # microseconds


class Told(NamedTuple):
    """What the system tells of a connection."""

    under_way: int  # packets that are not confirmed yet
    silent_s: float  # since the last confirmation of anything
    round_trip_s: float

    @classmethod
    def parse(cls, info: bytes) -> "Told":
        """Return what `INFO_BYTES` of TCP_INFO say."""

        def number(offset: int) -> int:
            return int.from_bytes(info[offset : offset + 4], sys.byteorder)

        return cls(number(_UNCONFIRMED), number(_SILENT) / 1e3, number(_ROUND_TRIP) / 1e6)


class Silence:
    """How long one connection has been waiting for a confirmation."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    def is_lost(self, told: Told, now: float) -> bool:
        """Tell whether to give the connection up, by what the system tells now."""
        if not told.under_way:
            self._since_s = None
        elif self._since_s is None or now - told.silent_s > self._since_s:
            self._since_s = now  # that is when we learned that something is under way
        return self._since_s is not None and now - self._since_s >= LOST_S
