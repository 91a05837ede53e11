"""Who trains beside us: which process this is, and what holds in any of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def is_main() -> bool:
    """Whether this process writes: the only one, or the first of those a launcher started."""
    return int(os.environ.get("RANK", 0)) == 0


def processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def wait_for_all() -> None:
    """Go on when all processes that train together have come here."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether a flag is up in any of the processes that train together.

    Args:
        flag: This process's.
        device: Where the processes exchange tensors.
    """
    import torch  # takes seconds, and which process this is can be asked without
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return flag
    up = torch.tensor(float(flag), device=device)
    distributed.all_reduce(up, distributed.ReduceOp.MAX)
    return bool(up)


def mean_over_ranks_(tensor: torch.Tensor) -> None:
    """Make a tensor its mean over the processes that train together, in place, in all of them."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(tensor)
        tensor /= distributed.get_world_size()
