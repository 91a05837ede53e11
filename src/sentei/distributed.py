"""Who trains beside us: which process this is, its part of a weight, and what holds in all of them.

Nothing but this room knows how a weight is shared out. A *sharded* weight is one of ``fully_shard``
(FSDP2): every process holds some of its rows, one after another, so that what a process holds is
one span of the flattened weight.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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


def is_sharded(tensor: object) -> bool:
    """Whether something is a tensor that processes share out, of which each holds a part."""
    # Its module takes half as long to import as torch; where nobody has, there is none.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, to be read and written: ``data``, outside of autograd
    and its count of changes.
    """
    return _rows_of(tensor).data if is_sharded(tensor) else tensor.data


def version(tensor: Tensor) -> int:
    """How often it was written to, as torch counts it; whole, or through what is held here."""
    return tensor._version + (_rows_of(tensor)._version if is_sharded(tensor) else 0)


def _rows_of(sharded: Any) -> Tensor:
    """The plain tensor in a sharded one."""
    rows: Tensor = sharded.detach().to_local()
    return rows


@dataclass(frozen=True)
class Shard:
    """The rows of a weight that this process holds.

    ``shape`` is the whole weight's; its rows from ``start`` on are here, ``rows`` of them. They may
    be none.
    """

    shape: tuple[int, ...]
    start: int
    rows: int

    @property
    def offset(self) -> int:
        """Where they begin in the flattened weight."""
        return self.start * math.prod(self.shape[1:])

    def part(self, whole: Tensor) -> Tensor:
        """The rows of a tensor of the whole shape that this process holds: a view."""
        return whole.narrow(0, self.start, self.rows)

    def whole(self, part: Tensor, fill: float = 0.0) -> Tensor:
        """A tensor of the whole shape: ``part`` in its place, ``fill`` elsewhere."""
        whole = part.new_full(self.shape, fill)
        self.part(whole).copy_(part)
        return whole


def why_unlike(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Why tensors are not shared out in the one way that is known here: by rows, all or none of
    them, over the same processes. None where they are, or where all are whole.

    Args:
        tensors: With their names.
    """
    first: tuple[str, Any] | None = None
    for name, tensor in tensors:
        split = _split(tensor) if is_sharded(tensor) else None
        if isinstance(split, str):
            return f"{name} is {split}"
        if first is None:
            first = name, split
        if (first[1] is None) != (split is None):
            whole, shared = (name, first[0]) if split is None else (first[0], name)
            return f"{shared} is sharded and {whole} is not"
        if split is not None and split != first[1]:
            return f"{name} is sharded over other processes than {first[0]}"
    return None


def _split(tensor: Any) -> tuple[Any, int] | str:
    """The mesh of a sharded tensor and which of its dimensions shares out the rows; or, in words,
    how else it is shared out.
    """
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor import Shard as Split

    mesh, placements = tensor.device_mesh, tensor.placements
    dims = [place for place, kind in enumerate(placements) if type(kind) is not Replicate]
    if len(dims) != 1:
        ways = ", ".join(map(str, placements))
        if not dims:
            return "a DTensor, and not shared out at all"
        return f"shared out as {ways}, over {len(dims)} dimensions of its mesh"
    kind = placements[dims[0]]
    if type(kind) is not Split or kind.dim != 0:
        return f"shared out as {kind}, and not by rows"
    rows, size, rank = tensor.shape[0], mesh.size(dims[0]), mesh.get_local_rank(dims[0])
    each = -(-rows // size)
    here, usual = local(tensor).shape[0], min(each, max(rows - rank * each, 0))
    if here != usual:
        return f"held with {here} rows here, where fully_shard leaves {usual}"
    return mesh, dims[0]


class Ranks:
    """Those who share the rows of weights out among them: what is summed over them holds of all.

    Where weights are whole there is nobody else, and everything is as it was.

    Args:
        tensors: Shared out alike, see :func:`why_unlike`.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._mesh: Any = None
        self._dim, self.size, self.rank = 0, 1, 0
        if tensors and is_sharded(tensors[0]):
            split = _split(tensors[0])
            assert not isinstance(split, str)
            self._mesh, self._dim = split
            self.size = self._mesh.size(self._dim)
            self.rank = self._mesh.get_local_rank(self._dim)

    @property
    def share(self) -> bool:
        """Whether weights are shared out."""
        return self._mesh is not None

    def shard(self, tensor: Tensor) -> Shard | None:
        """This process's rows of a weight; None where it is whole."""
        if self._mesh is None:
            return None
        shape = tuple(tensor.shape)
        start = min(self.rank * -(-shape[0] // self.size), shape[0])
        return Shard(shape, start, local(tensor).shape[0])

    def like(self, tensor: Tensor, part: Tensor) -> Tensor:
        """``part``, this process's rows of something of a weight's shape, as the weight is held:
        a DTensor that shares its memory. ``part`` itself, where weights are whole.
        """
        if self._mesh is None:
            return part
        from torch.distributed.tensor import DTensor

        weight: Any = tensor
        sharded: Tensor = DTensor.from_local(
            part, weight.device_mesh, weight.placements, shape=weight.shape, stride=weight.stride()
        )
        return sharded

    def reduce_(self, tensor: Tensor, how: Literal["sum", "min", "max"] = "sum") -> Tensor:
        """Make a tensor its sum, minimum or maximum over them, in place.

        Raises:
            RuntimeError: One of them has ended.
        """
        if self._mesh is None:
            return tensor
        from torch import distributed

        op = getattr(distributed.ReduceOp, how.upper())
        group = self._mesh.get_group(self._dim)
        # Offloaded weights lie on the CPU, and the processes may speak on their devices only.
        there = tensor.to(self._mesh.device_type)
        together(lambda: distributed.all_reduce(there, op, group=group))
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


def take_(tensor: Tensor, source: Tensor) -> None:
    """Copy a tensor into another of its shape: into the rows held here, of one that is sharded.

    The source may be whole, or sharded alike.
    """
    rows = local(tensor)
    shard = None if is_sharded(source) else Ranks([tensor]).shard(tensor)
    rows.copy_(shard.part(source) if shard else local(source))


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
    if is_sharded(first) and first.device_mesh.ndim == 2:
        split = _split(first)
        assert not isinstance(split, str)
        group = first.device_mesh.get_group(1 - split[1])
    return group if group is not None and distributed.get_world_size(group) > 1 else None


def hold_shards(model: nn.Module) -> bool:
    """Have the modules of a model hold their sharded weights again, where a forward pass has left
    whole copies of them in place. Whether there may have been any.

    What is written to shards afterwards is what the next forward pass sees.
    """
    module = sys.modules.get("torch.distributed.fsdp")
    if module is None:
        return False
    sharding = [one for one in model.modules() if isinstance(one, module.FSDPModule)]
    for one in sharding:
        one.reshard()
    return bool(sharding)
