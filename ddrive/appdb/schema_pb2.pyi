from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Header(_message.Message):
    __slots__ = ("protocol",)
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    protocol: str
    def __init__(self, protocol: _Optional[str] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("key", "value", "deleted", "trie", "clock", "inflate", "feeds", "contentFeed")
    class Feed(_message.Message):
        __slots__ = ("key",)
        KEY_FIELD_NUMBER: _ClassVar[int]
        key: bytes
        def __init__(self, key: _Optional[bytes] = ...) -> None: ...
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    TRIE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    INFLATE_FIELD_NUMBER: _ClassVar[int]
    FEEDS_FIELD_NUMBER: _ClassVar[int]
    CONTENTFEED_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: bytes
    deleted: bool
    trie: bytes
    clock: _containers.RepeatedScalarFieldContainer[int]
    inflate: int
    feeds: _containers.RepeatedCompositeFieldContainer[Entry.Feed]
    contentFeed: bytes
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ..., deleted: bool = ..., trie: _Optional[bytes] = ..., clock: _Optional[_Iterable[int]] = ..., inflate: _Optional[int] = ..., feeds: _Optional[_Iterable[_Union[Entry.Feed, _Mapping[str, object]]]] = ..., contentFeed: _Optional[bytes] = ...) -> None: ...

class Table(_message.Message):
    __slots__ = ("numbers",)
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    numbers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, numbers: _Optional[_Iterable[int]] = ...) -> None: ...
