"""The command line with an engine of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.program import Program, program


@pytest.fixture
def ddrive(tmp_path: Path) -> Iterator[Program]:
    """The command line with a fresh state directory."""
    with program(tmp_path / "state") as made:
        yield made
