"""Where the data recorded from the npm packages lies, and how to read it."""

import json
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).resolve().parent.parent / "vectors"


def vector(name: str) -> Any:
    """Return the parsed JSON file `name` of the recorded vectors."""
    return json.loads((VECTORS / name).read_text())
