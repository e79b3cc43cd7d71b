"""What a person is told of an error."""

import pytest

from ddrive.appdb.node import InvalidEntry
from ddrive.errors import InvalidProof
from ddrive.trie.node import InvalidNode, decode_node
from mountd.cli import report


def told(error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the line that is written about `error`, which ends a verb with 4."""
    assert report.fail(error, as_json=False) == 4
    return capsys.readouterr().err


def test_what_an_author_signed_is_not_blamed_on_a_peer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidNode) as caught:
        decode_node(5, b"\xff" * 50, "feed 59295897")
    assert "only he can mend it" in told(caught.value, capsys)
    assert "only he can mend it" in told(InvalidEntry("block 5 of feed 59295897 is no entry"), capsys)
    assert "a peer sent wrong bytes" in told(InvalidProof("block 5 of feed 59295897 does not verify"), capsys)
