"""Stores on a temporary directory, in both dialects."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ddrive.dialect import DWEB, HYPERCORE
from ddrive.drive.drive import Drive, open_drive
from ddrive.store.store import OwnedStore, open_store


@pytest.fixture
async def own_store(tmp_path: Path) -> AsyncIterator[OwnedStore]:
    """An empty store of the dialect dweb."""
    async with open_store(tmp_path / "store", DWEB) as opened:
        yield opened


@pytest.fixture
async def other_store(tmp_path: Path) -> AsyncIterator[OwnedStore]:
    """An empty store of the dialect hypercore."""
    async with open_store(tmp_path / "other", HYPERCORE) as opened:
        yield opened


@pytest.fixture
async def own(own_store: OwnedStore) -> Drive:
    """A new drive of our own."""
    return await open_drive(own_store, create=True)
