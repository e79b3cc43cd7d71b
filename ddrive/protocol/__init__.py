"""How two peers talk: handshake, encryption, frames, messages and channels.

Everything but `link` is a machine without I/O: bytes in, events out. `link` puts one such machine on a stream.
"""

import lazy_loader

# What is exported is in the stub beside; a module is loaded when its first name is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
