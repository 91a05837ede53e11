"""Who trains beside us: which process this is, and what holds in all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from sentei.sharded import is_sharded, split_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


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


class Ranks:
    """Those who share weights out among them: what is summed over them holds of all.

    Where weights are whole there is nobody else, and everything is as it was.

    Args:
        tensors: Shared out alike, see :func:`sentei.sharded.why_unlike`.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._mesh: Any = None
        self._dims: tuple[int, ...] = ()
        if split := split_of(tensors[0]) if tensors else None:
            self._mesh, self._dims = split

    @property
    def share(self) -> bool:
        """Whether weights are shared out."""
        return self._mesh is not None

    @property
    def first(self) -> bool:
        """Whether this process is the first of them."""
        return not any(self._mesh.get_local_rank(dim) for dim in self._dims)

    def reduce_(self, tensor: Tensor, how: Literal["sum", "min", "max"] = "sum") -> Tensor:
        """Make a tensor its sum, minimum or maximum over them, in place.

        Raises:
            RuntimeError: One of them has ended.
        """
        if self._mesh is None:
            return tensor
        from torch import distributed

        op = getattr(distributed.ReduceOp, how.upper())
        # Offloaded weights lie on the CPU, and the processes may speak on their devices only.
        there = tensor.to(self._mesh.device_type)
        for dim in self._dims:
            together(partial(distributed.all_reduce, there, op, group=self._mesh.get_group(dim)))
        return tensor if there is tensor else tensor.copy_(there)

    def reduce_all_(
        self, tensors: Sequence[Tensor], how: Literal["sum", "min", "max"] = "sum"
    ) -> None:
        """What :meth:`reduce_` does, to several tensors of any shapes: in one exchange for each of
        their precisions.
        """
        import torch

        for dtype in dict.fromkeys(one.dtype for one in tensors) if self.share else ():
            alike = [one for one in tensors if one.dtype == dtype]
            flat = self.reduce_(torch.cat([one.reshape(-1) for one in alike]), how)
            for one, part in zip(alike, flat.split([one.numel() for one in alike]), strict=True):
                one.copy_(part.view_as(one))

    def total(self, number: int) -> int:
        """The sum of a number over them."""
        import torch

        return int(self.reduce_(torch.tensor(number, dtype=torch.int64))) if self.share else number

    def anywhere(self, flag: bool) -> bool:
        """Whether a flag is up in any of them."""
        return self.total(int(flag)) > 0


def is_first() -> bool:
    """Whether this is the first of the processes that train together, as torch numbers them."""
    from torch import distributed

    return not (distributed.is_available() and distributed.is_initialized()) or (
        distributed.get_rank() == 0
    )


def exchange_device() -> torch.device:
    """Where the processes that train together exchange tensors."""
    import torch
    from torch import distributed

    speaks = distributed.is_initialized() and "gloo" not in distributed.get_backend()
    return torch.device("cuda", torch.cuda.current_device()) if speaks else torch.device("cpu")


def gathered(tensor: Tensor) -> Tensor | None:
    """A tensor, whole, on the first process and its CPU; None on the others.

    All processes call it together, and each has room for the whole of it, in passing.
    """
    sharded: Any = tensor
    whole: Tensor = sharded.detach().full_tensor() if is_sharded(tensor) else tensor
    return whole.cpu() if is_first() else None


def together(exchange: Callable[[], Any]) -> Any:
    """Do what all processes do together, and return what it gives.

    Raises:
        RuntimeError: One of them has ended; says what to do.
    """
    try:
        return exchange()
    except RuntimeError as error:
        if words := of_another(error):
            raise RuntimeError(words) from error
        raise


def of_another(error: BaseException) -> str | None:
    """What to say of an error of torch's that another process was the cause of; None of others."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if not (
        kinds & {"DistNetworkError", "DistBackendError", "DistStoreError"}
        or "gloo/transport" in text
    ):
        return None
    first = text.splitlines()[0]
    if "gloo/transport" in text:  # its file and line, what it says, and advice
        first = first.partition("] ")[2].partition(". ")[0]
    return (
        "another of the processes that train together has ended, or waits for something else "
        f"({first[:200]}): see what it said, then start as many again; a run goes on from its last "
        "checkpoint (--resume)"
    )


def group_of_copies(model: nn.Module, weights: Iterable[Tensor]) -> Any:
    """The process group of those who hold copies of the same weights: under DDP, or where shards
    are replicated (HSDP). None where they are not known so, or there is no other.
    """
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    group = next(
        (one.process_group for one in model.modules() if isinstance(one, DistributedDataParallel)),
        None,
    )
    first: Any = next(iter(weights), None)
    if split := split_of(first):
        mesh, dims = split
        others = [dim for dim in range(mesh.ndim) if dim not in dims]
        group = mesh.get_group(others[0]) if len(others) == 1 else group
    return group if group is not None and distributed.get_world_size(group) > 1 else None
