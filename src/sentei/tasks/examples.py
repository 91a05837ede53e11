"""The examples of one part of a corpus, as they were read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self


class Examples(Protocol):
    """What every task's examples can tell."""

    @property
    def source(self) -> str:
        """Where they come from, in words."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes in their order; empty where there are none."""

    def __len__(self) -> int: ...

    def counts(self) -> dict[str, int]:
        """How often each class occurs; empty where there are none."""

    def relabel(self, label_names: Sequence[str]) -> Self:
        """The same under another order of the class names, such as a saved model's.

        Raises:
            ValueError: A class that occurs is not among them.
        """

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """The examples without a part, and the part, set aside for evaluation.

        Raises:
            ValueError: ``fraction`` is not inside (0, 1), or nothing can be set aside.
        """


class Unlabelled:
    """Examples without classes."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def counts(self) -> dict[str, int]:
        """None."""
        return {}

    def relabel(self, label_names: Sequence[str]) -> Self:
        """The same."""
        return self
