"""ddrive: a file system backed by signed, append-only feeds that peers exchange.

What a program needs is here: `open_feed` gives one feed by itself, `open_store` or `open_attached` many, `open_drive`
a drive in them, `open_trie` a database in a feed, and `ddrive.errors` says what can go wrong.
"""

import lazy_loader

# What is exported is in the stub beside; a module is loaded when its first name is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
