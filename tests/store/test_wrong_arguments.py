"""What cannot be is refused at once, by an error that says what to pass."""

from pathlib import Path
from typing import Any

import pytest
from trio.testing import memory_stream_pair

from ddrive.errors import InvalidKey
from ddrive.store.linked import replicate
from ddrive.store.namespace import namespace
from ddrive.store.store import OwnedStore, open_store

REFUSED: dict[str, Any] = {
    "name number": (lambda store: store.open_feed(name=5), "text or bytes"),
    "name true": (lambda store: store.open_feed(name=True), "text or bytes"),
    "create": (lambda store: store.create_feed([]), "text or bytes"),
    "key": (lambda store: store.open_feed(key="x"), "key of 32 bytes"),
    "discovery key": (lambda store: store.open_feed(discovery_key="x"), "discovery key is bytes"),
    "load": (lambda store: store.load(None), "discovery key is bytes"),
    "forget": (lambda store: store.forget(None), "key of 32 bytes"),
    "folder": (lambda store: store.folder("x"), "key of 32 bytes"),
    "release": (lambda store: store.release(None), "open_feed"),
    "session": (lambda store: store.session(5), "open_feed"),
    "events": (lambda store: store.events("grew"), "classes"),
    "namespace": (lambda store: namespace(store, None), "text or bytes"),
    "stream": (lambda store: replicate(store, None, initiator=True), "stream of trio"),
    "initiator": (lambda store: replicate(store, memory_stream_pair()[0], initiator=None), "initiator"),
}


@pytest.mark.parametrize("call", REFUSED)
async def test_what_is_wrong_is_refused_by_an_error_that_says_what_to_pass(call: str, tmp_path: Path) -> None:
    wrong, message = REFUSED[call]
    async with open_store(tmp_path) as store:
        with pytest.raises((TypeError, InvalidKey), match=message):
            await wrong(store)
        assert isinstance(store, OwnedStore)
        assert await (await store.open_feed(name="ours")).append([b"x"]) == 0, "nothing has ended"


@pytest.mark.parametrize(
    "options", [{"dialect": None}, {"dialect": "dweb"}, {"master_key": "x" * 32}, {"master_key": b"x"}]
)
async def test_a_store_is_opened_with_what_it_can_use(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises((TypeError, InvalidKey), match=next(iter(options)).replace("_", " ")):
        async with open_store(tmp_path / "new", **options):
            pass
    assert not (tmp_path / "new").exists()
