"""Our promise to a peer that every node of its answers is kept, and what it is excused for after we broke it.

It leaves out of its answers what it has sent before. When one had to be dropped, a new Want tells it to begin anew, and
what it has sent before it got that may not verify. It answers a Want before anything that was asked later, so from that
answer on it is to blame again, however long the line took.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Promise:
    """What one peer may think of us."""

    wants: int = 0  # for the first region that are not answered yet; with each the peer begins anew
    is_broken: bool = False  # and the peer has not shown yet that it knows
    excuses: int = 0  # answers that may fail to verify: as many as were under way when it was broken

    def break_it(self, under_way: int) -> bool:
        """Note that an answer was dropped while so many more may come; tells whether the peer has to hear of it."""
        if self.is_broken and self.wants:
            return False
        self.is_broken, self.excuses = True, under_way
        return True

    def want_answered(self) -> None:
        """Note that the peer has said what it holds in the first region."""
        self.wants = max(0, self.wants - 1)
        self.is_broken = self.is_broken and self.wants > 0

    def excuse(self) -> bool:
        """Tell whether an answer that does not verify may be our fault; it is counted."""
        if not self.is_broken or not self.excuses:
            return False
        self.excuses -= 1
        return True
