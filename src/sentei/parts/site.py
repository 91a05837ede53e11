"""One prunable tensor, as scope, patterns and the pruner know it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, eq=False)
class Site:
    """One prunable tensor: its plain name, the parameter, its block's number and its role.

    ``layer`` is None outside numbered blocks. ``role`` is what the family calls the module
    (``query``, ``ffn_in``, ...) or the module's last name if the family has no word for it; for
    any parameter but the weight the parameter's own name follows, as in ``query.bias``.
    """

    name: str
    parameter: nn.Parameter
    layer: int | None
    role: str
    transposed: bool = False
    """Whether the matrix is stored (in, out), as GPT-2's are, and not (out, in)."""
