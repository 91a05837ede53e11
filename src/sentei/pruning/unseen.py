"""Steps that nobody sees: weights move, and the optimizer that was attached to does not."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sentei.parts.site import Site

PATIENCE = 3
"""Moves of the weights without a step, after which it is said: loading makes one or two."""


class Unseen:
    """Looks at one weight at every backward pass, until the first step is seen.

    Args:
        site: The weight.
        seen: Whether a step was seen.
    """

    def __init__(self, site: Site, seen: Callable[[], bool]) -> None:
        self._name = site.name
        self._seen = seen
        self._moves = -1
        self._version: int | None = None
        self._hook = site.parameter.register_post_accumulate_grad_hook(self._look)

    def remove(self) -> None:
        """Look no more."""
        self._hook.remove()

    def _look(self, parameter: Tensor) -> None:
        if self._seen():
            self.remove()
            return
        if parameter._version != self._version:
            self._version = parameter._version
            self._moves += 1
        if self._moves >= PATIENCE:
            self.remove()
            raise ValueError(
                f"{self._name} moves, and no step of the optimizer that the pruner is attached to "
                "was seen: attach to the optimizer whose step() is called; one that steps in "
                "another way (first_step, second_step) or skips Optimizer.__init__ runs no hooks"
            )
