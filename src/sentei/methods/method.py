"""What a method's file declares besides its recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentei.recipe import Recipe


@dataclass(frozen=True)
class Card:
    """What is told of a method in a list.

    ``summary`` is one line, ``paper`` a citation with an arXiv id, ``bytes_per_weight`` what the
    pruner keeps beside a prunable float32 weight.
    """

    name: str
    summary: str
    paper: str
    bytes_per_weight: int


@dataclass(frozen=True)
class Method:
    """A method's card in short.

    ``build(sparsity)`` makes its recipe; other arguments are keywords. Their defaults are the
    authors' values, but for those of ``published``: there ours are made for short trainings too,
    and these are the authors'. ``summary`` is one line, ``paper`` a citation with an arXiv id.
    """

    name: str
    build: Callable[..., Recipe]
    summary: str
    paper: str
    published: Mapping[str, object] = field(default_factory=dict)

    @property
    def card(self) -> Card:
        """The method in a list."""
        return Card(self.name, self.summary, self.paper, self.build().bytes_per_weight)
