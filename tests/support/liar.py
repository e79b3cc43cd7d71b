"""A peer that breaks the protocol in one chosen way: `python -m tests.support.liar STORE DIALECT CONTENT_KEY FAULT`.

It serves every feed of a store directory honestly, except the feed CONTENT_KEY. Prints one JSON line with its port and
runs until it is killed.
"""

import dataclasses
import json
import os
import socket
import sys
import threading
from pathlib import Path

from ddrive import crypto
from ddrive.dialect import DIALECTS, Dialect
from ddrive.feed.log import FeedLog
from ddrive.feed.merkle import RemoteTree
from ddrive.feed.storage import FileDirectory
from ddrive.ids import BlockIndex, ChannelId, DiscoveryKey
from ddrive.protocol.connection import ChannelOpened, ChannelRequested, Connection, Event, Received
from ddrive.protocol.framing import frame_head
from ddrive.protocol.messages import Data, Have, Options, Request, Status, Unhave, Want

FAULTS = (
    "corrupt-block",
    "cut-block",
    "other-block",
    "bad-signature",
    "truncated-proof",
    "wrong-capability",
    "oversize-frame",
    "garbage",
    "stalled",
    "vanishing",
)
CHUNK_BYTES = 65536


class Vanish(Exception):
    """The peer leaves without a word."""


class Liar:
    """One connection."""

    def __init__(self, feeds: dict[bytes, FeedLog], dialect: Dialect, content: bytes, fault: str) -> None:
        self._feeds = feeds
        self._dialect = dialect
        self._content = content
        self._fault = fault
        self._channels: dict[ChannelId, tuple[FeedLog, RemoteTree]] = {}
        self.connection = Connection(initiator=False, static_secret=os.urandom(32), nonce=os.urandom(24))

    def answer(self, event: Event) -> None:
        """Do what the fault says about one event."""
        match event:
            case ChannelRequested(discovery_key):
                self._open(discovery_key)
            case ChannelOpened(channel):
                log = self._channels[channel][0]
                self.connection.send(channel, Options())
                self.connection.send(channel, Status(uploading=True))
                self.connection.send(channel, Have(BlockIndex(0), log.length))
            case Received(channel, Want(start, _)):
                self.connection.send(channel, Have(start, self._channels[channel][0].length - start))
            case Received(channel, Request() as request):
                self._serve(channel, request)

    def _open(self, discovery_key: DiscoveryKey) -> None:
        log = self._feeds.get(discovery_key)
        if log is None:
            self.connection.refuse(discovery_key)
            return
        dialect = self._dialect
        if self._fault == "wrong-capability" and log.key == self._content:
            dialect = dataclasses.replace(dialect, capability_ns=b"nonsense")
        channel = self.connection.open_channel(log.key, dialect)
        self._channels[channel] = log, RemoteTree()

    def _serve(self, channel: ChannelId, request: Request) -> None:
        log, remote = self._channels[channel]
        index = request.index
        if request.bytes:
            located = log.locate(request.bytes)
            if located is None:
                return
            index = located[0]
        proof = log.proof(index, digest=request.nodes, hash_only=request.hash, remote=remote)
        if proof is None:
            self.connection.send(channel, Unhave(index))
            return
        value = None if request.hash else log.block(index)
        data = Data(index, value, proof.nodes, proof.signature)
        if log.key == self._content:
            self._lie(channel, data, log)
        else:
            self.connection.send(channel, data)

    def _lie(self, channel: ChannelId, data: Data, log: FeedLog) -> None:
        value = data.value
        match self._fault:
            case "corrupt-block" if value:
                data = dataclasses.replace(data, value=bytes([value[0] ^ 1]) + value[1:])
            case "cut-block" if value:
                data = dataclasses.replace(data, value=value[:-1])
            case "other-block" if value is not None:
                data = dataclasses.replace(data, value=log.block(BlockIndex((data.index + 7) % log.length)))
            case "bad-signature":
                signature = data.signature or bytes(64)
                data = dataclasses.replace(data, signature=bytes([signature[0] ^ 1]) + signature[1:])
            case "truncated-proof":
                data = dataclasses.replace(data, nodes=data.nodes[:-1])
            case "oversize-frame":
                self.connection._queue(frame_head(channel, 9, 1 << 30))  # no honest call makes such a frame
            case "garbage":
                self.connection._queue(os.urandom(CHUNK_BYTES))
            case "stalled":
                return
            case "vanishing":
                raise Vanish
        self.connection.send(channel, data)


def serve(stream: socket.socket, liar: Liar) -> None:
    """Answer one connection until it ends."""
    with stream:
        try:
            while chunk := stream.recv(CHUNK_BYTES):
                for event in liar.connection.receive_data(chunk):
                    liar.answer(event)
                for event in liar.connection.take_events():
                    liar.answer(event)
                stream.sendall(liar.connection.data_to_send())
        except (OSError, Vanish):
            return


def main() -> None:
    """Listen on loopback and serve until killed."""
    store, dialect_name, content, fault = sys.argv[1:]
    assert fault in FAULTS
    dialect = DIALECTS[dialect_name]
    feeds: dict[bytes, FeedLog] = {}
    for key_file in Path(store).glob("*/*/*/key"):
        log = FeedLog.open(FileDirectory(key_file.parent))
        feeds[crypto.discovery_key(log.key, dialect.discovery_ns)] = log
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    while True:
        stream, _ = listener.accept()
        liar = Liar(feeds, dialect, bytes.fromhex(content), fault)
        threading.Thread(target=serve, args=(stream, liar), daemon=True).start()


if __name__ == "__main__":
    main()
