"""What a program passes: refused at once, by an error that says what to pass, not where it is first used."""

from ddrive.feed.merkle import MAX_LENGTH

SHOWN = 80  # characters of a value that is refused


def shown(value: object) -> str:
    """Return a value for a message."""
    return f"{value!r:.{SHOWN}}"


def check_number(name: str, value: object) -> None:
    """Raise TypeError for what is no integer; a truth value is none."""
    if type(value) is not int and (isinstance(value, bool) or not hasattr(value, "__index__")):
        raise TypeError(f"{name} is a number, not {shown(value)}")


def check_blocks(start: int, end: int | None = None) -> None:
    """Raise ValueError when `start`, or what lies before `end`, is no block of any feed; nothing counts back.

    TypeError for what is no number, like a truth value, which would be found to be none when it is sent to a peer.
    """
    check_number("the number of a block", start)
    if end is not None:
        check_number("the number of a block", end)
    if min(start, end or 0) < 0 or max(start + 1, end or 0) > MAX_LENGTH:
        what = f"{start} is not the index of a block" if end is None else f"{start} to {end} are not blocks"
        raise ValueError(f"{what}: these are numbered from 0 and at most {MAX_LENGTH}")


def check_seconds(name: str, value: object) -> None:
    """Raise TypeError for what is neither a number of seconds nor None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"{name} is a number of seconds or None, not {shown(value)}")


def check_kind(what: str, value: object, kind: type | tuple[type, ...]) -> None:
    """Raise TypeError, which says `what` is needed, for a value that is not of this kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{what}, not {shown(value)}")
