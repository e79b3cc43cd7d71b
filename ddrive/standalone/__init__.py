"""Feeds that a program opens by themselves, without a store: `open_feed` and what it gives.

It stands beside `store` in the layers: both bind feeds to links, the store for many feeds under one master key.
"""

import lazy_loader

# What is exported is in the stub beside; a module is loaded when its first name is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
