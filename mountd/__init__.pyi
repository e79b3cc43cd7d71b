from . import cli, engine, metrics

__all__ = ["cli", "engine", "metrics"]
