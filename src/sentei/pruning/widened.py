"""Memory that is kept in less precision than scores are computed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

KEPT = torch.bfloat16
"""The precision that parts never see."""


class Widened(Mapping[str, Tensor]):
    """Memory as a part works on it: what is kept in bf16 is copied when it is first asked for.

    Args:
        kept: The memory by name, as it is kept.
        dtype: The precision of scores.
    """

    def __init__(self, kept: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self._kept = kept
        self._dtype = dtype
        self._wide = dict[str, Tensor]()

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._kept[name]
        if tensor.dtype != KEPT:
            return tensor
        if name not in self._wide:
            self._wide[name] = tensor.to(self._dtype)
        return self._wide[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def round_(self) -> None:
        """Keep what the part has made of it, rounded to the nearest."""
        for name, tensor in self._wide.items():
            self._kept[name].copy_(tensor)


def is_narrow(memory: Mapping[str, Tensor]) -> bool:
    """Whether some of it is kept in less precision."""
    return any(tensor.dtype == KEPT for tensor in memory.values())


def widened(memory: Mapping[str, Tensor], dtype: torch.dtype) -> Mapping[str, Tensor]:
    """Memory in ``dtype`` at least; the same where nothing is kept in less."""
    return Widened(memory, dtype) if is_narrow(memory) else memory


def round_(memory: Mapping[str, Tensor]) -> None:
    """Keep what has been written into memory that was widened."""
    if isinstance(memory, Widened):
        memory.round_()
