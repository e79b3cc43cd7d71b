"""The command line: one module per group of verbs.

A module is loaded when something of it is asked for first, so that a verb waits for nothing but its own.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
