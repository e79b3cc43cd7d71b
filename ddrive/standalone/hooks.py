"""Functions that a program gives to be called: all of them are plain ones."""

from inspect import iscoroutinefunction


def check_hooks(**hooks: object) -> None:
    """Return when each of the named hooks can be called or is None.

    Raises: TypeError for what is no function, ValueError for one whose result would have to be awaited.
    """
    for name, hook in hooks.items():
        if hook is not None and not callable(hook):
            raise TypeError(f"{name} is a function, not {hook!r:.80}")
        if iscoroutinefunction(hook):
            raise ValueError(f"{name} is called and not awaited: give a plain function")
