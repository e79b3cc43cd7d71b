"""What a call may look like beside `ddrive VERB …`: common options before the verb, `help`, and no verb at all."""

from collections.abc import Collection, Sequence

COMMON_FLAGS = {"--json", "--no-start"}
COMMON_VALUES = {"--state"}
HELP = "--help"


def arranged(arguments: Sequence[str], groups: Collection[str]) -> list[str]:
    """Return a call with the verb first. `groups` are the words that need another one behind them.

    `help VERB`, no verb, and a group without a verb all ask for help.
    """
    rest = list(arguments)
    common: list[str] = []
    while rest and (rest[0] in COMMON_FLAGS or rest[0].partition("=")[0] in COMMON_VALUES):
        count = 2 if rest[0] in COMMON_VALUES else 1
        common += rest[:count]
        del rest[:count]
    if not rest:
        return [HELP]
    if rest[0].startswith("-"):  # --help, --version: about no engine
        return rest
    if rest[0] == "help":
        return [*rest[1:], HELP]
    if len(rest) == 1 and rest[0] in groups:
        return [*rest, HELP]
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *common, *rest[end:]]
