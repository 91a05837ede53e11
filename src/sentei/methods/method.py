"""What a method's file declares besides its recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sentei.recipe import Recipe


@dataclass(frozen=True)
class Method:
    """A method's card in short.

    ``build(sparsity)`` makes its recipe; other arguments are keywords with the authors' values as
    defaults. ``summary`` is one line, ``paper`` a citation with an arXiv id.
    """

    name: str
    build: Callable[..., Recipe]
    summary: str
    paper: str
