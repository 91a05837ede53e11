"""What is done to tensors everywhere: in pieces that stay in the cache, in place, elementwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sentei.sharded import local

CHUNK = 1 << 18
"""Entries in a piece on a CPU: 1 MiB of float32, which stays in the second-level cache."""

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def spans(size: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Yield the ``(start, stop)`` pieces in which ``size`` entries on ``device`` are visited.

    Cache-sized on a CPU; whole tensors elsewhere, where every piece costs kernel launches.
    """
    step = CHUNK if device.type == "cpu" else max(size, 1)
    for start in range(0, size, step):
        yield start, min(start + step, size)


def cut_up(tensor: Tensor) -> Sequence[Tensor]:
    """The pieces of a contiguous tensor that :func:`spans` names, flat: views."""
    if tensor.device.type != "cpu" or not tensor.numel():
        return [tensor.view(-1)] if tensor.numel() else []
    pieces: Sequence[Tensor] = tensor.view(-1).split(CHUNK)
    return pieces


@dataclass(frozen=True)
class Scores:
    """The scores of one tensor, readable in pieces.

    ``read(start, stop)`` returns entries ``[start, stop)`` as a contiguous 1-D float32 or float64
    tensor on ``device``. It is only looked at until the next call, so one buffer can serve all.
    """

    size: int
    device: torch.device
    read: Callable[[int, int], Tensor]
    stands: bool = False
    """Whether they stand in memory, and ``read`` gives views of them: to several threads too."""

    def pieces(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yield ``(start, stop, scores)`` over the whole tensor."""
        for start, stop in spans(self.size, self.device):
            yield start, stop, self.read(start, stop)


def score_dtype(weight: Tensor) -> torch.dtype:
    """The precision of the scores of ``weight``, products near 1e-16: float32 at least."""
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device has an instruction for bf16 matrix products, so that they are the faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@torch.no_grad()
def count_zeros(tensor: Tensor) -> int:
    """How many entries are exactly zero, of those that this process holds."""
    here = local(tensor)
    return here.numel() - int(torch.count_nonzero(here))


def product_(out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Write a b (all of one shape) into ``out``, in its precision."""
    if a.dtype == b.dtype == out.dtype:
        return torch.mul(a, b, out=out)
    return out.copy_(a).mul_(b)


def zero_pruned_(weight: Tensor, keep: Tensor) -> None:
    """Zero the entries of ``weight`` where ``keep`` (same shape, bool) is False, in place.

    The bits are multiplied by 0 or 1 as integers, which leaves +0.0 whatever was there, NaN and
    negative numbers too, and on a CPU takes a third of the time of ``masked_fill_``.
    """
    weight.view(_BITS[weight.element_size()]).mul_(keep)


def copy_kept_(weight: Tensor, dense: Tensor, keep: Tensor) -> None:
    """Write ``dense`` into ``weight`` (one dtype, all of one shape), zero where ``keep`` is False.

    Through the bits, as :func:`zero_pruned_` does.
    """
    bits = _BITS[weight.element_size()]
    torch.mul(dense.view(bits), keep, out=weight.view(bits))
