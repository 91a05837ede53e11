"""Hooks of modules that stay with the one module they were made for."""

from __future__ import annotations

from typing import Any


class Hook:
    """A hook of one module, which its deep copies and pickles do not carry on."""

    def __init__(self, act: Any = None) -> None:
        self.act = act

    def __call__(self, *args: Any) -> None:
        """Act, unless this is a copy."""
        if self.act is not None:
            self.act(*args)

    def __deepcopy__(self, memo: Any) -> Hook:
        return Hook()

    def __reduce__(self) -> Any:
        return Hook, ()
