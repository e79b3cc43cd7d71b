"""Which paths of a tree are left out, by files with patterns as in `.gitignore`, which may lie in any directory.

As with git, in one file the last line that fits decides, a file further down goes before one further up, and below a
directory that is left out nothing can be taken in again. Source: gitignore(5).
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pathspec import GitIgnoreSpec, RegexPattern

IGNORE_FILES = (".ddriveignore", ".datignore", ".drivesignore")  # read in this order, as if they were one file

Ignore = Callable[[str, bool], bool]  # (path below the source, whether it is a directory) -> leave it out
ReadPatterns = Callable[[str], Iterable[str]]  # the lines of the ignore files in a directory of the source


class _Rules(NamedTuple):
    """Patterns, the last one first, each with whether what it fits is left out.

    `base` is the directory that they are seen from: "" for the source itself, else it ends with a slash.
    """

    base: str
    lines: tuple[tuple[bool, re.Pattern[str]], ...]

    def decision(self, path: str, *, is_directory: bool) -> bool | None:
        """Return whether `path` is left out, None when no line is about it."""
        name = path[len(self.base) :]
        if is_directory:
            name += "/"
        fits = _fits_directory if is_directory else _fits_file
        for include, regex in self.lines:  # `check_file` lets some lines go before later ones
            if (found := regex.search(name)) is not None and fits(regex, found, name):
                return include
        return None


def _fits_file(_regex: re.Pattern[str], found: re.Match[str], _name: str) -> bool:
    """Tell whether what was found in a name is about the file itself.

    A slash behind it, which is the group `ps_d`, shows that it is about a directory above: that one is asked for alone.
    """
    return found.lastgroup != "ps_d"


def _fits_directory(regex: re.Pattern[str], found: re.Match[str], name: str) -> bool:
    """Tell the same of a directory, whose name ends with a slash."""
    is_at_end = found.end() == len(name)
    if found.lastgroup == "ps_d":
        return is_at_end or not regex.pattern.startswith("^")  # `*/` begins anywhere
    return not is_at_end  # `a/**` is not about `a/`


def _rules(base: str, lines: Iterable[str]) -> _Rules:
    """Return the patterns in these lines. As with git, one that cannot be a pattern fits nothing."""
    lines = [f"{line}*/" if line.endswith("/**/") else line for line in lines]  # which pathspec takes for `a/`
    try:
        spec = GitIgnoreSpec.from_lines(lines)
    except ValueError:
        spec = GitIgnoreSpec.from_lines(line for line in lines if _is_pattern(line))
    lines_in_order = [
        (bool(pattern.include), pattern.regex)
        for pattern in spec.patterns
        if isinstance(pattern, RegexPattern) and pattern.regex is not None
    ]
    return _Rules(base, tuple(reversed(lines_in_order)))


def _is_pattern(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


class Ignoring:
    """What is left out of one tree. `given` patterns go before those of the tree, `extra` before everything."""

    def __init__(self, read: ReadPatterns, given: Iterable[str] = (), extra: Ignore | None = None) -> None:
        self._read = read
        self._extra = extra
        rules = _rules("", given)
        self._given = [rules] if rules.lines else []
        self._known: dict[str, tuple[_Rules, ...]] = {}  # directory -> what holds in it, the nearest first
        self._left_out: dict[str, bool] = {}  # of directories

    def leaves_out(self, path: str, *, is_directory: bool) -> bool:
        """Tell whether `path` is left out, by itself or with a directory that it lies in."""
        if is_directory and path in self._left_out:
            return self._left_out[path]
        above = self._known_above(path)
        out = self._left_out.get(above, False)
        while not out and (end := path.find("/", len(above) + 1 if above else 0)) >= 0:  # trees may be very deep
            above = path[:end]
            out = self._left_out[above] = self.leaves_out_here(above, is_directory=True)
        out = out or self.leaves_out_here(path, is_directory=is_directory)
        if is_directory:
            self._left_out[path] = out
        return out

    def _known_above(self, path: str) -> str:
        """Return the nearest directory above a path of which is known whether it is left out, "" when there is none."""
        above = path.rpartition("/")[0]
        while above and above not in self._left_out:
            above = above.rpartition("/")[0]
        return above

    def leaves_out_here(self, path: str, *, is_directory: bool) -> bool:
        """Tell whether `path` is left out when the directory that it lies in is not."""
        if self._extra is not None and self._extra(path, is_directory):
            return True
        for rules in (*self._given, *self._in(path.rpartition("/")[0])):
            decision = rules.decision(path, is_directory=is_directory)
            if decision is not None:
                return decision
        return False

    def _in(self, directory: str) -> tuple[_Rules, ...]:
        """Return the rules of the tree that hold for what is in a directory."""
        if directory in self._known:
            return self._known[directory]
        unknown = [directory]
        while unknown[-1] and (above := unknown[-1].rpartition("/")[0]) not in self._known:
            unknown.append(above)
        for inner in reversed(unknown):  # from above: trees may be very deep
            rules = _rules(f"{inner}/" if inner else "", self._read(inner))
            known = self._known[inner.rpartition("/")[0]] if inner else ()
            self._known[inner] = (rules, *known) if rules.lines else known
        return self._known[directory]
