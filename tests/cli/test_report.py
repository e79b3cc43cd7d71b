"""What a person is told of an error."""

import os
import subprocess

import pytest

from ddrive.appdb.node import InvalidEntry
from ddrive.drive.address import parse_key
from ddrive.drive.paths import check_name
from ddrive.errors import InvalidKey, InvalidPath, InvalidProof
from ddrive.trie.lookup import misplaced
from ddrive.trie.node import InvalidNode, TrieNode, decode_node
from mountd.cli import report
from tests.support.program import COMMAND


def told(error: Exception, capsys: pytest.CaptureFixture[str], *, code: int = 4) -> str:
    """Return the line that is written about `error`, which ends a verb with `code`."""
    assert report.fail(error, as_json=False) == code
    return capsys.readouterr().err


def test_what_an_author_signed_is_not_blamed_on_a_peer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidNode) as caught:
        decode_node(5, b"\xff" * 50, "feed 59295897")
    assert "only he can mend it" in told(caught.value, capsys)
    assert "only he can mend it" in told(misplaced(TrieNode(5, "key", None, origin="feed 59295897")), capsys)
    assert "only he can mend it" in told(InvalidEntry("block 5 of feed 59295897 is no entry"), capsys)
    assert "a peer sent wrong bytes" in told(InvalidProof("block 5 of feed 59295897 does not verify"), capsys)


def test_of_a_version_that_cannot_be_the_key_is_not_blamed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidKey) as caught:
        parse_key("a" * 64 + "+0")
    assert "hex digits" not in told(caught.value, capsys, code=2)


def test_a_name_that_no_drive_takes_is_answered_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("", "a/b", "..", "x" * 300):
        with pytest.raises(InvalidPath) as caught:
            check_name(name)
        assert ": choose a" in told(caught.value, capsys, code=2)


def test_help_that_nobody_reads_ends_as_every_verb() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "help", "import"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (report.EXIT_BROKEN_PIPE, b"")
