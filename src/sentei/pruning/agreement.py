"""Agreement: processes that hold copies of the same weights must come to the same masks.

Every process decides for itself, by weights and gradients that are the same everywhere if they were
synchronised. Where they were not, masks drift apart and nothing else would say so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sentei.distributed import exchange_device, group_of_copies, together
from sentei.tensors import CHUNK, spans

_LARGEST = (1 << 62) - 1


class Agreement:
    """Compares the masks of every decision among the processes that hold copies.

    A number made of all masks goes around while training goes on, and is looked at when the next
    decision has been made, or at the end: nobody waits for it.

    Args:
        model: The model being trained; under DDP, or sharded and replicated (HSDP), those who hold
            copies are known. Otherwise :meth:`among` tells.
        weights: Its prunable ones.
    """

    def __init__(self, model: nn.Module, weights: Iterable[Tensor]) -> None:
        self._group = group_of_copies(model, weights)
        self._pending: tuple[int, Tensor, Any] | None = None

    def among(self, group: Any) -> None:
        """Compare with the processes of a group, unless others are known already."""
        self._group = self._group or group

    def compare(self, masks: Iterable[Tensor], step: int) -> None:
        """Send the masks of a decision around, and look at those of the one before.

        Raises:
            RuntimeError: Those were not the same everywhere; in all of the processes.
        """
        if self._group is None:
            return
        self.check()
        number = digest(masks).to(exchange_device())
        ends = torch.stack([number, -number])
        work = together(
            lambda: torch.distributed.all_reduce(
                ends, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
            )
        )
        self._pending = step, ends, work

    def check(self) -> None:
        """Look at what went around last.

        Raises:
            RuntimeError: The masks were not the same everywhere; in all of the processes.
        """
        if self._pending is None:
            return
        step, ends, work = self._pending
        self._pending = None
        together(work.wait)
        if int(ends[0]) != -int(ends[1]):
            raise RuntimeError(
                f"the masks of step {step} are not the same on all processes that hold copies of "
                "the weights: these, or their gradients, were not the same either. Begin with the "
                "same weights everywhere and let DDP reduce every gradient (no no_sync() in the "
                "last backward pass before a step, no gradients made outside of DDP's forward)"
            )


@torch.no_grad()
def digest(masks: Iterable[Tensor]) -> Tensor:
    """A number, 0-d int64 and not negative, that says where every mask is True."""
    total: Tensor | None = None
    for number, mask in enumerate(masks):
        flat = mask.reshape(-1).view(torch.uint8)
        for start, stop in spans(flat.numel(), flat.device):
            piece = flat[start:stop]
            if piece.numel() % 8 or piece.storage_offset() % 8:
                piece = nn.functional.pad(piece, (0, -piece.numel() % 8))
            words = piece.view(torch.int64)
            own = (words * _odd(words.numel(), words.device)).sum()
            own = own * (2 * (number * 1_000_003 + start // CHUNK) + 1)
            total = own if total is None else total.to(own.device) * 31 + own
    return torch.zeros((), dtype=torch.int64) if total is None else total & _LARGEST


def _odd(size: int, device: torch.device) -> Tensor:
    """Odd numbers that look drawn by lot: wraps around, as the sums do."""
    numbers = torch.arange(size, dtype=torch.int64, device=device)
    return (numbers * 0x5851F42D4C957F2D + 0x14057B7EF767814F) | 1
