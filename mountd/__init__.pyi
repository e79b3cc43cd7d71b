from . import cli, metrics

__all__ = ["cli", "metrics"]
