"""Signed append-only feeds: their tree, their files, and waiting for blocks that peers send."""

import lazy_loader

# What is exported is in the stub beside; a module is loaded when its first name is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
