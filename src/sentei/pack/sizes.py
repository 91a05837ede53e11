"""How large a model is packed, without writing it: packed in memory, and counted.

Bytes are of tensors; what a file of safetensors has before them comes on top.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib.util import find_spec
from typing import Final, NamedTuple

import torch
from torch import Tensor

from sentei.pack import format
from sentei.pack.folder import Values, compact

_PIECE: Final = 1 << 18
"""Entries of a tensor, at most, that are packed to predict the size of all of it."""


class Sizes(NamedTuple):
    """Bytes of a model's tensors: numbers as they are, and rounded."""

    exact: int
    bf16: int
    int8: int


def measure(tensors: Iterable[tuple[str, Tensor]], tables: Collection[str]) -> Sizes:
    """The sizes of a model that is sparse already.

    Args:
        tensors: By the names of its files.
        tables: The names of its embeddings.
    """
    return _total(_each(tensor, table=name in tables) for name, tensor in tensors)


def predict(
    weights: Iterable[tuple[str, Tensor]],
    tables: Collection[str],
    pruned: Collection[str],
    sparsity: float,
) -> Sizes:
    """The sizes of a model that is to be pruned: some rows of each tensor stand for all.

    Args:
        weights: By name, dense.
        tables: The names of its embeddings.
        pruned: The names of what is pruned: the smallest numbers of each.
        sparsity: The fraction of those.
    """
    sizes = []
    for name, tensor in weights:
        if not tensor.numel():
            continue
        rows = tensor.detach().reshape(len(tensor), -1) if tensor.ndim > 1 else tensor[None]
        step = -(-rows.numel() // _PIECE)
        piece = rows[::step].clone()
        if name in pruned:
            _zero_smallest_(piece, sparsity)
        share = tensor.numel() / piece.numel()
        found = _each(piece if tensor.ndim > 1 else tensor, table=name in tables)
        sizes.append(Sizes(*(round(share * size) for size in found)))
    return _total(sizes)


def _each(tensor: Tensor, *, table: bool) -> Sizes:
    return Sizes(*(_bytes(tensor, kind, table=table) for kind in ("fp32", "bf16", "int8")))


def _bytes(tensor: Tensor, kind: Values, *, table: bool) -> int:
    compress = find_spec("zstandard") is not None
    try:
        made = compact("", tensor.contiguous(), kind, table=table, compress=compress)
    except ValueError:  # such as of NaN in int8: it can only be as it is
        made = None
    return tensor.nbytes if made is None else format.size(made)


def _total(sizes: Iterable[Sizes]) -> Sizes:
    every = list(sizes)
    return Sizes(*(sum(one[place] for one in every) for place in range(len(Sizes._fields))))


def _zero_smallest_(weights: Tensor, sparsity: float) -> None:
    flat = weights.view(-1)
    count = round(sparsity * flat.numel())
    if count:
        flat[torch.topk(flat.abs().float(), count, largest=False, sorted=False).indices] = 0
