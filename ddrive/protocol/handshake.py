"""The Noise handshake: two peers prove their static keys to each other and agree on the keys of two byte streams.

Pattern XX in three messages, each preceded by its varint length. Each carries a payload with the sender's 24-byte
nonce of the stream cipher. Only the keys of Noise's split are used; its own transport cipher is not.
Source: `simple-handshake` and `noise-protocol` on npm.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError
from nacl import bindings
from nacl.exceptions import CryptoError
from noise.exceptions import NoiseValueError
from noise.noise_protocol import NoiseProtocol

from ddrive.errors import RemoteProtocolError
from ddrive.protocol import schema_pb2
from ddrive.protocol.hsalsa20 import NONCE_BYTES
from ddrive.protocol.noise_backend import SodiumBackend, X25519KeyPair
from ddrive.protocol.varint import decode_varint, encode_varint

MAX_MESSAGE_BYTES = 65535  # of one Noise message; a longer one is refused as soon as its length is read
_NAME = b"Noise_XX_25519_ChaChaPoly_BLAKE2b"
_BROKEN = (CryptoError, NoiseValueError, ValueError)
_BACKEND = SodiumBackend()


Authenticate = Callable[[bytes], object]  # given the peer's static key; False or an exception refuses it


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """The result of a handshake, from the point of view of one side."""

    tx_key: bytes = field(repr=False)  # 32 bytes, of what we send
    tx_nonce: bytes  # 24 bytes, ours
    rx_key: bytes = field(repr=False)  # 32 bytes, of what we receive
    rx_nonce: bytes  # 24 bytes, the peer's
    remote_public_key: bytes  # 32 bytes, X25519: the peer's static key
    handshake_hash: bytes  # 64 bytes, equal on both sides


def static_public_key(static_secret: bytes) -> bytes:
    """Return the X25519 public key (32 bytes) by which peers know the holder of `static_secret` (32 bytes)."""
    return bytes(bindings.crypto_scalarmult_base(static_secret))


class Handshake:
    """One side of the exchange as a machine: `start`, then `receive` until `keys` is there."""

    def __init__(
        self,
        *,
        initiator: bool,
        static_secret: bytes,
        nonce: bytes,
        ephemeral_secret: bytes | None,
        authenticate: Authenticate | None = None,
    ) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"the nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        self._initiator = initiator
        self._authenticate = authenticate
        self._nonce = nonce
        self._remote_nonce = b""
        self._remote_key = b""
        self._held = bytearray()  # received bytes of an unfinished message
        self._noise = NoiseProtocol(_NAME, _BACKEND)
        self._noise.initiator = initiator
        self._noise.keypairs["s"] = X25519KeyPair.from_private_bytes(static_secret)
        self._noise.validate()
        self._noise.initialise_handshake_state()
        if ephemeral_secret is not None:  # only tests give one; set before the start, the library would warn
            self._noise.handshake_state.e = X25519KeyPair.from_private_bytes(ephemeral_secret)
        self.keys: SessionKeys | None = None
        self.rest = b""  # received bytes behind the last message, once `keys` is there

    def start(self) -> bytes:
        """Return what this side sends unasked: the initiator's first message, the responder's nothing."""
        return self._write() if self._initiator else b""

    def receive(self, chunk: bytes) -> bytes:
        """Return what to send in answer to `chunk`; afterwards `keys` may be there.

        Raises: RemoteProtocolError when the peer's message is too long, does not verify or lacks its nonce.
        """
        self._held += chunk
        answer = b""
        while self.keys is None:
            message = self._take_message()
            if message is None:
                return answer
            answer += self._read(message)
        self.rest = bytes(self._held)
        self._held.clear()
        return answer

    def _take_message(self) -> bytes | None:
        """Return the first whole message of what is held and remove it; None when there is none yet."""
        found = decode_varint(self._held, 0, len(self._held))
        if found is None:
            return None
        size, start = found
        if size > MAX_MESSAGE_BYTES:
            raise RemoteProtocolError(f"a handshake message of {size} bytes is over the limit of {MAX_MESSAGE_BYTES}")
        if len(self._held) < start + size:
            return None
        message = bytes(self._held[start : start + size])
        del self._held[: start + size]
        return message

    def _read(self, message: bytes) -> bytes:
        """Take in one whole message and return our answer to it."""
        state = self._noise.handshake_state
        payload = bytearray()
        try:
            is_done = state.read_message(message, payload) is not None
            if payload:
                self._remote_nonce = schema_pb2.NoisePayload.FromString(bytes(payload)).nonce
        except (*_BROKEN, DecodeError) as error:
            raise RemoteProtocolError("the handshake message does not verify") from error
        if len(self._remote_nonce) != NONCE_BYTES:
            raise RemoteProtocolError("the handshake message carries no nonce")
        if not self._remote_key and (remote_key := getattr(state.rs, "public_bytes", b"")):
            self._remote_key = remote_key
            self._decide(remote_key)
        if is_done:
            self._finish()
            return b""
        return self._write()

    def _decide(self, remote_key: bytes) -> None:
        """Let the program refuse a peer as soon as its key is known, before ours is sent if we are the initiator."""
        if self._authenticate is None:
            return
        try:
            accepted = self._authenticate(remote_key)
        except Exception as error:
            raise RemoteProtocolError(f"the peer {remote_key[:4].hex()} was refused: {error}") from error
        if isinstance(accepted, Coroutine):  # nobody can wait for it here, and it is no yes
            accepted.close()
            raise RemoteProtocolError(f"the peer {remote_key[:4].hex()} was refused: authenticate is not a plain call")
        if accepted is False:
            raise RemoteProtocolError(f"the peer {remote_key[:4].hex()} was refused")

    def _write(self) -> bytes:
        message = bytearray()
        payload = schema_pb2.NoisePayload(nonce=self._nonce).SerializeToString()
        try:
            is_done = self._noise.handshake_state.write_message(payload, message) is not None
        except _BROKEN as error:  # the peer's public key has no usable product with ours
            raise RemoteProtocolError("the peer's handshake key is not usable") from error
        if is_done:
            self._finish()
        return encode_varint(len(message)) + bytes(message)

    def _finish(self) -> None:
        protocol = self._noise
        self.keys = SessionKeys(
            tx_key=protocol.cipher_state_encrypt.k,
            tx_nonce=self._nonce,
            rx_key=protocol.cipher_state_decrypt.k,
            rx_nonce=self._remote_nonce,
            remote_public_key=self._remote_key,
            handshake_hash=bytes(protocol.handshake_hash),
        )
