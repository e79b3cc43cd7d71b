"""Key/value databases that several writers share without a server: conflicts are kept, not resolved by chance."""

from ddrive.appdb.appdb import AppDB
from ddrive.appdb.batch import AnyChange, Delete, Put
from ddrive.appdb.clock import Clock
from ddrive.appdb.iterate import Change
from ddrive.appdb.node import Entry, InvalidEntry
from ddrive.appdb.opening import open_appdb

__all__ = ["AnyChange", "AppDB", "Change", "Clock", "Delete", "Entry", "InvalidEntry", "Put", "open_appdb"]
