"""Who trains beside us: which process this is, and what holds in any of them."""

from __future__ import annotations

import os

import torch
from torch import distributed


def is_main() -> bool:
    """Whether this process writes: the only one, or the first of those a launcher started."""
    return int(os.environ.get("RANK", 0)) == 0


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether a flag is up in any of the processes that train together.

    Args:
        flag: This process's.
        device: Where the processes exchange tensors.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return flag
    up = torch.tensor(float(flag), device=device)
    distributed.all_reduce(up, distributed.ReduceOp.MAX)
    return bool(up)
