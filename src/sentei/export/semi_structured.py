"""2:4 weights as a GPU's sparse tensor cores read them.

A model pruned by ``--pattern 2:4`` is a plain model on disk and stays one. What its linear layers
hold in memory is exchanged: the two values that are left of every four, and two bits for the place
of each, so that they take 9/16 of the memory in fp16 and half the products.
"""

from __future__ import annotations

import warnings
from typing import Final

import torch
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured

from sentei.messages import counted
from sentei.records import Record

GROUP, KEPT = 4, 2

CAPABILITY: Final = (8, 0)
"""The oldest NVIDIA GPUs with sparse tensor cores: Ampere."""

DTYPES: Final = (torch.float16, torch.bfloat16)

ROWS, COLUMNS = 32, 64
"""A weight's outputs and inputs are multiples of these, in both dtypes."""


class SemiStructured(Record):
    """Which linear layers were converted, and why each of the others was not."""

    converted: tuple[str, ...]
    others: dict[str, str]


@torch.no_grad()
def semi_structured_(model: nn.Module) -> SemiStructured:
    """Exchange the 2:4 weights of a model's linear layers for PyTorch's semi-structured tensors.

    In place, for inference on an NVIDIA GPU of compute capability 8.0 or newer. Each new weight is
    compared with the old one, entry by entry.

    Args:
        model: In fp16 or bf16 on the GPU, pruned by the pattern 2:4.

    Returns:
        What was converted.

    Raises:
        ValueError: There is no such GPU, the model is not on it or in another dtype, no linear
            layer is 2:4, or PyTorch cannot convert one; the model is as it was.

    References:
        Mishra et al., 2021, arXiv 2104.08378.
    """
    _check_hardware()
    layers = linear(model)
    reasons = {name: unfit(layer) for name, layer in layers.items()}
    fit = [name for name, reason in reasons.items() if reason is None]
    others = {name: reason for name, reason in reasons.items() if reason is not None}
    if not fit:
        first = "".join(f"; {name}: {reason}" for name, reason in [*others.items()][:1])
        raise ValueError(
            f"model: none of {counted(len(reasons), 'linear layer')} can be converted{first}. "
            "Prune with --pattern 2:4, and give the model in fp16 or bf16 on the GPU"
        )
    converted = {name: _converted(layers[name].weight, name) for name in fit}
    for name, weight in converted.items():
        layers[name].weight = nn.Parameter(weight, requires_grad=False)
    return SemiStructured(converted=tuple(fit), others=others)


def linear(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a model by name."""
    return {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear)}


def unfit(layer: nn.Linear) -> str | None:
    """Why a layer cannot be converted; None where it can."""
    weight = layer.weight
    rows, columns = weight.shape
    if rows % ROWS or columns % COLUMNS:
        return f"its shape {rows} x {columns} is no multiple of {ROWS} x {COLUMNS}"
    most = int((weight.detach().reshape(rows, -1, GROUP) != 0).sum(-1).max())
    if most > KEPT:
        return f"of some {GROUP} weights side by side {most} are left, and {KEPT} may be"
    if weight.dtype not in DTYPES:
        return f"it is in {str(weight.dtype).removeprefix('torch.')}, not in fp16 or bf16"
    return None if weight.is_cuda else f"it is on {weight.device}, not on the GPU"


def _check_hardware() -> None:
    if torch.version.cuda is None or not torch.cuda.is_available():
        here = "this PyTorch finds no NVIDIA GPU"
    elif torch.cuda.get_device_capability() < CAPABILITY:
        here = f"{torch.cuda.get_device_name()} has none"
    else:
        return
    raise ValueError(
        f"2:4 weights run on sparse tensor cores, and {here} (compute capability "
        f"{CAPABILITY[0]}.{CAPABILITY[1]} or newer has them). The model's folder needs no "
        "conversion: load it where they are, and call this there"
    )


def _converted(weight: Tensor, name: str) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*prototype.*")
            sparse: Tensor = to_sparse_semi_structured(weight.detach().contiguous())
        same = torch.equal(sparse.to_dense(), weight)
    except RuntimeError as error:
        line = str(error).strip().partition("\n")[0]
        raise ValueError(f"{name}: PyTorch cannot convert it to 2:4 here: {line}") from error
    if not same:
        raise ValueError(f"{name}: PyTorch's conversion to 2:4 changes its weights here")
    return sparse
