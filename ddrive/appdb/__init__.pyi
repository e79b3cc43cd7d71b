from .appdb import AppDB
from .batch import AnyChange, Delete, Put
from .clock import Clock
from .iterate import Change
from .node import Entry, InvalidEntry, check_header
from .opening import open_appdb

__all__ = [
    "AnyChange",
    "AppDB",
    "Change",
    "Clock",
    "Delete",
    "Entry",
    "InvalidEntry",
    "Put",
    "check_header",
    "open_appdb",
]
