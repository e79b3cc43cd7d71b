"""The program around the ddrive library: engine, mount workers and the `ddrive` command."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
