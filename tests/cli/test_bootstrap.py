"""`ddrive bootstrap` as people run it: what it says, how it ends, what goes wrong."""

import signal
import socket

import pytest

from tests.support.program import Program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_when_told_to(ddrive: Program, number: signal.Signals) -> None:
    with ddrive.running("bootstrap", "--listen", "127.0.0.1:0") as process:
        assert process.stdout is not None
        said = process.stdout.readline().decode()
        assert said.startswith("listening on 127.0.0.1:")
        assert said.endswith(" (UDP)\n")
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
    assert not ddrive.state.exists(), "it needs no engine"


def test_an_address_that_cannot_be_had_is_told(ddrive: Program) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = ddrive.run("bootstrap", "--listen", address)
    assert (failed.code, failed.out) == (1, b"")
    assert failed.err == (
        f"ddrive: cannot listen on {address} (UDP, Address already in use): choose another address with --listen\n"
    )


def test_a_wrong_node_is_a_wrong_call(ddrive: Program) -> None:
    assert ddrive.run("bootstrap", "--listen", "127.0.0.1:0", "--dht-node", "nowhere").code == 2
