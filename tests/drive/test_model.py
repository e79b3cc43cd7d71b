"""A drive against a dictionary: any series of calls leaves in both the same tree, at every version."""

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ddrive.crypto import KeyPair, hash_of
from ddrive.dialect import DWEB
from ddrive.drive.drive import Drive, open_drive
from ddrive.drive.paths import parent
from ddrive.errors import DriveError
from ddrive.feed import Feed
from ddrive.ids import PublicKey
from tests.drive.loopback import own_feed


class MemoryStore:
    """Feeds in memory, by name or key."""

    dialect = DWEB

    default_name = "default"
    owner = None

    def __init__(self) -> None:
        self.feeds: dict[PublicKey, Feed] = {}

    async def open_feed(
        self, *, key: PublicKey | None = None, name: bytes | str | None = None, live: bool = False
    ) -> Feed:
        if key is None:
            pair = KeyPair.from_seed(hash_of(str(name).encode()))
            key = pair.public_key
            if key not in self.feeds:
                self.feeds[key] = own_feed(pair)
        return self.feeds[key]


paths = st.lists(st.sampled_from(["a", "b", "ü", "😀"]), min_size=1, max_size=3).map("/".join)
data = st.binary(max_size=20)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), paths, data),
        st.tuples(st.just("mkdir"), paths),
        st.tuples(st.just("unlink"), paths),
        st.tuples(st.just("rmdir"), paths),
        st.tuples(st.just("rename"), paths, paths),
    ),
    max_size=25,
)

Model = dict[str, bytes | None]  # path -> content, None for a directory


def play(model: Model, step: tuple) -> bool:  # type: ignore[type-arg]
    """Do a step on the model; tell whether it is possible."""
    verb, path = step[:2]
    here, is_there = model.get(path), path in model
    below = [other for other in model if other.startswith(path + "/")]
    match verb:
        case "write" | "mkdir":
            if (is_there and (verb == "mkdir" or here is None)) or not make_parents(model, path):
                return False
            model[path] = step[2] if verb == "write" else None
        case "unlink" | "rmdir":
            if not is_there or (here is None) != (verb == "rmdir") or below:
                return False
            del model[path]
        case "rename":
            return rename(model, path, step[2], below)
    return True


def make_parents(model: Model, path: str) -> bool:
    """Make the directories on the way to `path`; tell whether that is possible."""
    if not (directory := parent(path)):
        return True
    if directory in model:
        return model[directory] is None
    if not make_parents(model, directory):
        return False
    model[directory] = None
    return True


def rename(model: Model, path: str, target: str, below: list[str]) -> bool:
    """Move a path of the model; tell whether it is possible."""
    if path not in model:
        return False
    if path == target:
        return True
    if target.startswith(path + "/") or path.startswith(target + "/"):
        return False
    if target in model:
        in_the_way = any(other.startswith(target + "/") for other in model)
        if (model[target] is None) != (model[path] is None) or in_the_way:
            return False
    if not make_parents(model, target):
        return False
    for old in [path, *below]:
        model[target + old.removeprefix(path)] = model.pop(old)
    return True


async def contents(drive: Drive) -> Model:
    """Return the whole drive as a model."""
    return {path: None if stat.is_dir else await drive.read_file(path) async for path, stat in drive.walk()}


async def call(drive: Drive, step: tuple) -> bool:  # type: ignore[type-arg]
    """Do a step on the drive; tell whether it was possible."""
    verbs = {
        "write": drive.write_file,
        "mkdir": drive.mkdir,
        "unlink": drive.unlink,
        "rmdir": drive.rmdir,
        "rename": drive.rename,
    }
    try:
        await verbs[step[0]](*step[1:])
    except DriveError:
        return False
    return True


@settings(max_examples=80, deadline=None)
@given(steps)
def test_any_series_of_calls_leaves_the_tree_of_the_model(series: list[tuple]) -> None:  # type: ignore[type-arg]
    async def check() -> None:
        drive = await open_drive(MemoryStore(), create=True)
        model: Model = {}
        history: list[tuple[int, Model]] = []
        for step in series:
            before = dict(model)
            possible = play(model, step)
            if not possible:
                model = before
            assert await call(drive, step) is possible, step
            history.append((drive.version, dict(model)))
        assert await contents(drive) == model
        for version, then in history[::5]:
            assert await contents(drive.checkout(version)) == then

    trio.run(check)
