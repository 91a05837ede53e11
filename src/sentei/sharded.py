"""What this process holds of a tensor that several share out among them.

Nothing but this room knows how. Of a *sharded* weight every process holds a block: some rows
(FSDP2), some rows or some columns (tensor parallelism), or some columns of some rows (both).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def is_sharded(tensor: object) -> bool:
    """Whether something is a tensor that processes share out, of which each holds a part."""
    # Its module takes half as long to import as torch; where nobody has, there is none.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, to be read and written: ``data``, outside of autograd
    and its count of changes.
    """
    return _block_of(tensor).data if is_sharded(tensor) else tensor.data


def version(tensor: Tensor) -> int:
    """How often it was written to, as torch counts it; whole, or through what is held here."""
    return tensor._version + (_block_of(tensor)._version if is_sharded(tensor) else 0)


def _block_of(sharded: Any) -> Tensor:
    """The plain tensor in a sharded one."""
    block: Tensor = sharded.detach().to_local()
    return block


@dataclass(frozen=True)
class Shard:
    """The block of a weight that this process holds.

    ``shape`` is the whole weight's; along each of its dimensions ``sizes`` entries from ``starts``
    on are here. They may be none.
    """

    shape: tuple[int, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def offset(self) -> int:
        """Where the first entry lies in the flattened weight."""
        return sum(
            start * math.prod(self.shape[dim + 1 :]) for dim, start in enumerate(self.starts)
        )

    def places(self, entries: Tensor) -> Tensor:
        """Where entries of the flattened block, by their numbers, lie in the flattened weight: in
        the same order.
        """
        row, place = math.prod(self.sizes[1:]), math.prod(self.shape[1:])
        return self.offset + entries // row * place + entries % row

    def part(self, whole: Tensor) -> Tensor:
        """What this process holds of a tensor of the whole shape: a view."""
        for dim, (start, size) in enumerate(zip(self.starts, self.sizes, strict=True)):
            whole = whole.narrow(dim, start, size)
        return whole

    def whole(self, part: Tensor, fill: float = 0.0) -> Tensor:
        """A tensor of the whole shape: ``part`` in its place, ``fill`` elsewhere."""
        whole = part.new_full(self.shape, fill)
        self.part(whole).copy_(part)
        return whole


def shard_of(tensor: Any) -> Shard | None:
    """The block of a tensor that this process has to hold; None where the tensor is whole."""
    if split_of(tensor) is None:
        return None
    shape, mesh = tuple(tensor.shape), tensor.device_mesh
    starts, sizes = [0] * len(shape), [*shape]
    kinds = [(place, tensor.placements[place]) for place in _split_dims(tensor)]
    for place, kind in sorted(kinds, key=lambda one: hasattr(one[1], "split_factor")):
        size = sizes[kind.dim]
        each = -(-size // mesh.size(place))
        start = min(mesh.get_local_rank(place) * each, size)
        starts[kind.dim] += start
        sizes[kind.dim] = min(each, size - start)
    return Shard(shape, tuple(starts), tuple(sizes))


def split_of(tensor: Any) -> tuple[Any, tuple[int, ...]] | None:
    """The mesh of a tensor and which of its dimensions share it out; None where it is whole."""
    dims = _split_dims(tensor) if is_sharded(tensor) else ()
    return (tensor.device_mesh, dims) if dims else None


def splits(tensor: Tensor, dim: int) -> bool:
    """Whether a dimension of a tensor is shared out."""
    sharded: Any = tensor
    return is_sharded(tensor) and any(
        sharded.placements[place].dim == dim for place in _split_dims(sharded)
    )


def _split_dims(tensor: Any) -> tuple[int, ...]:
    """The dimensions of its mesh that share a sharded tensor out."""
    from torch.distributed.tensor import Replicate

    kinds = enumerate(tensor.placements)
    return tuple(place for place, kind in kinds if type(kind) is not Replicate)


def why_unlike(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Why tensors are not shared out in a way that is known here: in blocks, all or none of them,
    over the same processes. None where they are, or where all are whole.

    Args:
        tensors: With their names.
    """
    first: tuple[str, Any] | None = None
    for name, tensor in tensors:
        if problem := _why_no_block(tensor):
            return f"{name} is {problem}"
        split = split_of(tensor)
        if first is None:
            first = name, split
        if (first[1] is None) != (split is None):
            whole, shared = (name, first[0]) if split is None else (first[0], name)
            return f"{shared} is sharded and {whole} is not"
        if split != first[1]:
            return f"{name} is sharded over other processes than {first[0]}"
    return None


def _why_no_block(tensor: Any) -> str | None:
    """Why what is held of a tensor is no block of it, as :func:`shard_of` has it; None if it is."""
    if not is_sharded(tensor):
        return None
    from torch.distributed.tensor import Shard as Split

    mesh, placements = tensor.device_mesh, tensor.placements
    kinds = {place: placements[place] for place in _split_dims(tensor)}
    if not kinds:
        return "a DTensor, and not shared out at all"
    for place, kind in kinds.items():
        dim, factor = getattr(kind, "dim", -1), getattr(kind, "split_factor", None)
        # What fully_shard splits once more, inside the parts of another dimension of the mesh, is
        # strided by their number; with other strides what is held is no block.
        inside = [mesh.size(one) for one in kinds if one > place and kinds[one].dim == dim]
        if dim not in (0, 1) or not (type(kind) is Split or inside == [factor]):
            ways = ", ".join(map(str, placements))
            return f"shared out as {ways}, and not in blocks of rows and columns"
    here, shard = tuple(local(tensor).shape), shard_of(tensor)
    if shard is None or here == shard.sizes:
        return None
    return f"held as {here} here, where {shard.sizes} is usual"


def as_held(tensor: Tensor, weight: Tensor) -> Tensor:
    """A tensor of a weight's shape, shared out as the weight is and contiguous here: itself, where
    it is so. A gradient may be whole where its weight is not.
    """
    if not is_sharded(tensor):
        return tensor.contiguous()
    held: Any = tensor
    sharded: Any = weight
    if held.placements != sharded.placements:
        held = held.redistribute(placements=sharded.placements)
    here = local(held)
    return held if here.is_contiguous() else like(weight, here.contiguous())


def like(weight: Tensor, part: Tensor) -> Tensor:
    """``part``, this process's block of something of a weight's shape, as the weight is held: a
    DTensor that shares its memory. ``part`` itself, where the weight is whole.
    """
    if not is_sharded(weight):
        return part
    from torch.distributed.tensor import DTensor

    held: Any = weight
    sharded: Tensor = DTensor.from_local(
        part, held.device_mesh, held.placements, shape=held.shape, stride=held.stride()
    )
    return sharded


def joined(part: Tensor, dim: int, size: int, weights: Iterable[Tensor]) -> Tensor:
    """What processes have computed in equal parts along ``dim``, whole, in the order of their
    ranks; a gradient goes on to the part that is here. ``part`` itself, where it is whole.

    Args:
        part: That of this process.
        dim: Where it may be split.
        size: Of the whole along ``dim``.
        weights: Of the model that has computed it. Where they are split by tensor parallelism, the
            last dimension of their mesh is that of the processes.

    Raises:
        ValueError: Their mesh has several dimensions without names.
    """
    sharded: Any = None
    if part.shape[dim] != size:
        sharded = next((weight for weight in weights if is_sharded(weight)), None)
    if sharded is None:
        return part
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor import Shard as Split

    mesh = sharded.device_mesh
    if mesh.ndim > 1 and not mesh.mesh_dim_names:
        raise ValueError(
            "the model is split over a mesh of several dimensions without names, so which of them "
            "splits its heads is not known: make the mesh with mesh_dim_names"
        )
    inner = mesh if mesh.ndim == 1 else mesh[mesh.mesh_dim_names[-1]]
    if inner.size() * part.shape[dim] != size:
        return part
    whole: Tensor = DTensor.from_local(part, inner, [Split(dim)], run_check=False).full_tensor()
    return whole


def take_(tensor: Tensor, source: Tensor) -> None:
    """Copy a tensor into another of its shape: into what is held here, of one that is sharded.

    The source may be whole, or sharded alike.
    """
    here = local(tensor)
    shard = None if is_sharded(source) else shard_of(tensor)
    here.copy_(shard.part(source) if shard else local(source))


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
