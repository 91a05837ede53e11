"""A saved state, checked from end to end before anything of it is taken over."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NoReturn, SupportsIndex

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from sentei.distributed import Ranks
from sentei.messages import explain, short
from sentei.records import UpdateRecord
from sentei.sharded import Shard, is_sharded, take_
from sentei.tensors import count_zeros

CHECKED = 4096
"""Weights of every site by which a checkpoint is known again."""


class SavedState(BaseModel):
    """What :meth:`~sentei.pruning.state.PruningState.to_dict` gives: plain values and tensors."""

    model_config = ConfigDict(strict=True, frozen=True, arbitrary_types_allowed=True)

    recipe: dict[str, Any]
    total_steps: int = Field(ge=1)
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    processes: int = Field(ge=1)
    step: int = Field(ge=0)
    pruned: int = Field(ge=0)
    settled: bool
    weights: int = Field(ge=0, lt=2**32)
    updates: Sequence[dict[str, Any]]
    masks: dict[str, Tensor]
    memory: dict[str, dict[str, Tensor]]
    units: dict[str, dict[str, Tensor]]
    budget: dict[str, Tensor]
    inputs: dict[str, dict[str, Tensor]]

    @property
    def records(self) -> list[UpdateRecord]:
        """The decisions."""
        return [UpdateRecord.model_validate(update) for update in self.updates]


class Shares(dict[str, Any]):
    """A state of sharded weights, of which this process holds its own part: it cannot be pickled,
    which would keep this and lose the parts of the others.
    """

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Raise ValueError; what pickles asks this first."""
        raise ValueError(
            "the pruner's state of a sharded model cannot be pickled (torch.save, Accelerate's "
            "register_for_checkpointing): it would hold the part of one process and lose those of "
            "the others. Use pruner.save(path) and pruner.load(path), which all processes call, or "
            "torch.distributed.checkpoint"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        """A copy in this process has all that this one has."""
        return copy.deepcopy(dict(self), memo)


def parse(saved: Mapping[str, Any], format_: int) -> SavedState:
    """A state with every value of its kind and within its range.

    Raises:
        ValueError: It is of another format, not whole, or has a value that no pruner saves.
    """
    if not isinstance(saved, Mapping):
        raise ValueError(f"not a pruner state: expected a mapping, found {short(saved)}")
    if saved.get("format") != format_:
        raise ValueError(
            f"pruner state of format {short(saved.get('format'))}; this version reads {format_}"
        )
    fields = SavedState.model_fields
    required = {name for name, field in fields.items() if field.is_required()}
    if missing := sorted(required - saved.keys()):
        raise ValueError(f"not a whole pruner state: it has no {missing[0]!r}")
    try:
        state = SavedState.model_validate({key: saved[key] for key in fields if key in saved})
        records = state.records
    except ValidationError as error:
        raise ValueError(f"not a pruner state: {explain(error)}") from error
    if problem := _implausible(state, records):
        raise ValueError(f"not a pruner state: {problem}")
    return state


def _implausible(state: SavedState, records: list[UpdateRecord]) -> str | None:
    """Why values that are fine by themselves cannot stand together."""
    if state.step > 2 * state.total_steps:
        return f"step={state.step} of total_steps={state.total_steps}"
    steps = [record.step for record in records]
    if steps != sorted(set(steps)) or any(not 0 < step <= state.step for step in steps):
        return f"the decisions in updates are not in order, or after step={state.step}"
    return None


def miscounted(state: SavedState, ranks: Ranks) -> str | None:
    """How its numbers of pruned weights contradict each other, in words."""
    masks = state.masks.values()
    masked = sum(count_zeros(mask) for mask in masks if not is_sharded(mask))
    masked += ranks.total(sum(count_zeros(mask) for mask in masks if is_sharded(mask)))
    decided = state.updates[-1]["pruned"] if state.updates else 0
    if state.pruned == masked == decided:
        return None
    return f"it has pruned={state.pruned}, {masked} by its masks, {decided} by its last decision"


def first_difference(old: Any, new: Any, path: str) -> str | None:
    """The first place where two plain values differ, in words."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            difference = first_difference(old.get(key), new.get(key), f"{path}.{key}")
            if difference:
                return difference
        return None
    return None if old == new else f"{path} was {short(old)}, is {short(new)}"


def other_length(saved: SavedState, total_steps: int, processes: int) -> str | None:
    """How a training is of another length than the saved one, in words."""
    if saved.total_steps == total_steps:
        return None
    difference = f"total_steps was {saved.total_steps}, is {total_steps}"
    if saved.processes == processes:
        return difference
    return (
        f"{difference}; {saved.processes} trained together, and {processes} do now: start as many "
        "processes as before"
    )


def name_of(dtype: torch.dtype) -> str:
    """A precision as it is written down."""
    return str(dtype).removeprefix("torch.")


def other_dtype(saved: SavedState, state_dtype: torch.dtype) -> str | None:
    """How the state is kept in another precision than the saved one, in words."""
    if saved.state_dtype == (now := name_of(state_dtype)):
        return None
    return (
        f"its state is kept in {saved.state_dtype}, and this pruner's in {now}: make the pruner "
        f"with state_dtype=torch.{saved.state_dtype}, as before"
    )


def other_tensors(saved: SavedState, state: Mapping[str, Any]) -> str | None:
    """Why saved tensors do not fit those of a pruner, naming the first; None if they do."""
    for name, mask in saved.masks.items():
        if name not in state["masks"]:
            return f"{name} was pruned and is not in the scope now"
        if mask.shape != (shape := state["masks"][name].shape):
            return f"{name} was {tuple(mask.shape)} and is {tuple(shape)} now"
    for name in state["masks"]:
        if name not in saved.masks:
            return f"{name} is in the scope now and was not pruned"
    ours, theirs = dict(_flat(state)), dict(_flat(dict(saved)))
    for path in [*ours, *theirs]:
        where = ": ".join(path)
        if path not in theirs:
            return f"the saved state has no {where}"
        if path not in ours:
            return f"the saved state has {where}, which this pruner does not keep"
        one, other = theirs[path], ours[path]
        if one.shape != other.shape:
            return f"{where} was {tuple(one.shape)} and is {tuple(other.shape)} now"
        if one.dtype != other.dtype:
            return f"{where} was {one.dtype} and is {other.dtype} now"
    return None


def _flat(state: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    for part in ("masks", "memory", "units", "budget", "inputs"):
        yield from _inside((part,), state[part])


def _inside(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    else:
        for name, inner in value.items():
            yield from _inside((*path, name), inner)


def copy_(state: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Copy the saved tensors into a pruner's, which are the same ones."""
    theirs = dict(_flat(saved))
    for path, tensor in _flat(state):
        take_(tensor, theirs[path])


def first_of(weight: Tensor, shard: Shard | None) -> Tensor:
    """The bytes of a weight's first entries, as far as they are held here, and 0 elsewhere."""
    first = weight.reshape(-1)[:CHECKED]
    if shard is not None:
        places = shard.places(torch.arange(first.numel(), device=first.device))
        held, inside = first, places < CHECKED
        first = held.new_zeros(min(CHECKED, math.prod(shard.shape)))
        first[places[inside]] = held[inside]
    return first.cpu().view(torch.uint8)


def checksum(firsts: Sequence[Tensor], ranks: Ranks) -> int:
    """Of what :func:`first_of` gives of every site, because one may be wholly zero."""
    return zlib.crc32(ranks.reduce_(torch.cat([*firsts])).numpy().data)
