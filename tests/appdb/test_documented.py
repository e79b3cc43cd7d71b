"""The worked examples in docs/appdb.md and docs/graph.md do what their comments say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def example(page: str) -> str:
    """Return the one whole program on a page."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    [program] = [block for block in blocks if "trio.run" in block]
    return str(program)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("appdb.md", ["[b'New York', b'Philadelphia']", "[b'Philadelphia']", "['people/linus', 'people/grace']"]),
        (
            "graph.md",
            [
                "weather-2019 -> climate-model-3",
                "climate-model-3 -> crop-forecast",
                "crop-forecast -> weather-2019",
                "tell the authors of paper-17",
                "Edge(source='crop-forecast', target='weather-2019', label='derived') removed",
            ],
        ),
    ],
)
def test_worked_example(page: str, expected: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", example(page)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[: len(expected)] == expected


@pytest.mark.parametrize(("page", "verbs"), [("appdb.md", "db"), ("graph.md", "graph")])
def test_every_verb_is_documented(page: str, verbs: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "mountd.cli", verbs, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    ).stdout
    names = re.findall(r"^│ ([a-z]+) +[A-Z]", shown, re.MULTILINE)
    assert {"create", "list", "watch"} <= set(names)
    for place in (page, "cli.md"):
        text = (ROOT / "docs" / place).read_text()
        missing = [name for name in names if not re.search(rf"{verbs} {name}\b|`{name}\b", text)]
        assert not missing, f"docs/{place} says nothing of {missing}"
