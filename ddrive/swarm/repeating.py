"""How often a topic is looked for again: often while nobody is found, then rarely. The dice are given."""

QUIET_S = 30.0  # after the first time that nobody was found, doubled each time
SILENT_S = 5.0  # after the first time that nobody answered, doubled each time
LONGEST_SILENCE_S = 80.0


def wait_s(usual_s: tuple[float, float], vain: int, roll: float) -> float:
    """Return how long to wait after `vain` attempts in a row that found nobody.

    When somebody was found it is a time between the two of `usual_s`, as `roll` (0 to 1) says, and never longer.
    """
    shortest, longest = usual_s
    usual = shortest + roll * (longest - shortest)
    return usual if not vain else min(usual, QUIET_S * (1 << min(vain - 1, 16)))


def silence_s(vain: int) -> float:
    """Return how long to wait after `vain` attempts in a row, the last of which got no answer."""
    return min(LONGEST_SILENCE_S, SILENT_S * (1 << min(max(vain - 1, 0), 16)))
