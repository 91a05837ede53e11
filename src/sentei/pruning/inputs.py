"""Observe, the second source: the inputs of linear maps, in the steps before a decision."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sentei.distributed import mean_over_ranks_
from sentei.modules import unwrapped
from sentei.parts.reconstruction import Inputs
from sentei.parts.site import Site
from sentei.pruning.hooks import Hook
from sentei.pruning.ownership import Places
from sentei.tensors import multiplies_bf16, score_dtype

MASKS = ("attention_mask", "decoder_attention_mask")
"""Arguments of a model that tell tokens from padding; the second those of a decoder."""


@dataclass
class InputState:
    """What is remembered of one linear map's inputs.

    ``gram`` holds, for each block of inputs, a sum of x x^T that fades, and ``tokens``, 0-d, the
    number of tokens in it, which fades alike.
    """

    gram: list[Tensor]
    tokens: Tensor

    @classmethod
    def empty(cls, site: Site, inputs: Inputs) -> InputState:
        """Before the first input."""
        weight = site.parameter.data
        dtype, device = score_dtype(weight), weight.device
        widths = [stop - start for start, stop in inputs.blocks(width_of(site))]
        grams = [torch.zeros(width, width, dtype=dtype, device=device) for width in widths]
        return cls(grams, torch.zeros((), dtype=dtype, device=device))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that it remembers, by name."""
        grams = {f"gram.{number}": gram for number, gram in enumerate(self.gram)}
        return {**grams, "tokens": self.tokens}

    def share(self) -> None:
        """Make it the same in all processes that train together."""
        for tensor in self.tensors.values():
            mean_over_ranks_(tensor)

    def fade(self, beta: float) -> None:
        """Let what was seen so far count ``beta`` times as much from now on."""
        for tensor in self.tensors.values():
            tensor.mul_(beta)


def observed_bytes(model: nn.Module, sites: Sequence[Site], inputs: Inputs) -> int:
    """Memory that observing the linear maps among the prunable weights of a model takes."""
    total = 0
    for site in linear_maps(Places(model, sites).owners):
        products = sum((stop - start) ** 2 for start, stop in inputs.blocks(width_of(site)))
        total += products * score_dtype(site.parameter).itemsize
    return total


def width_of(site: Site) -> int:
    """How many inputs the linear map of a site has."""
    return site.parameter.shape[0 if site.transposed else 1]


def linear_maps(owners: Iterable[tuple[nn.Module, str, Site]]) -> dict[Site, nn.Module]:
    """The modules that are called with the inputs of their one matrix, by that matrix.

    Args:
        owners: Modules, under which name each holds a weight, and the weight.

    Raises:
        ValueError: There is none.
    """
    maps: dict[Site, nn.Module] = {}
    for owner, leaf, site in owners:
        matrix = leaf == "weight" and site.parameter.ndim == 2
        if matrix and (isinstance(owner, nn.Linear) or site.transposed):
            maps.setdefault(site, owner)
    if not maps:
        raise ValueError(
            "reconstruction: none of the prunable weights is the matrix of a linear layer, whose "
            "inputs could be observed: set reconstruction to null"
        )
    return maps


class _Call(threading.local):
    """The forward pass under way: its masks. DataParallel makes several at once, in threads."""

    def __init__(self) -> None:
        self.masks: dict[str, Tensor] = {}


class LayerInputs:
    """Takes in the inputs of a model's linear maps, in the steps in which somebody wants them.

    A forward pass counts if gradients are wanted of it or its module trains: evaluation does not;
    what activation checkpointing computes again in the backward pass does not either.

    The hooks are on the model all the time, and return at once where nothing is wanted: what
    ``torch.compile`` has traced without a hook never calls one that comes later.

    Args:
        model: The model being trained.
        owners: The modules of its linear maps, by their weights.
        inputs: How to observe.
    """

    def __init__(self, model: nn.Module, owners: Mapping[Site, nn.Module], inputs: Inputs) -> None:
        self._model = unwrapped(model)
        self._owners = owners
        self._inputs = inputs
        self._arguments = list(inspect.signature(self._model.forward).parameters)
        self._call = _Call()
        self._step = 0
        self._states: Mapping[Site, InputState] = {}
        self.wanted = False
        """Whether forward passes are observed now."""

    def attach(self) -> list[RemovableHandle]:
        """Put the hooks on the model."""
        before, after, model = Hook(self._begin), Hook(self._end), self._model
        handles = [
            model.register_forward_pre_hook(before, prepend=True, with_kwargs=True),
            model.register_forward_hook(after, always_call=True),
        ]
        for site, owner in self._owners.items():
            hook = Hook(_Watching(self, site))
            handles.append(owner.register_forward_pre_hook(hook, with_kwargs=True))
        return handles

    def watch(self, states: Mapping[Site, InputState], step: int) -> None:
        """Take the inputs of ``step`` into ``states``, from now on."""
        self._states, self._step, self.wanted = states, step, True

    def rest(self) -> None:
        """Observe nothing from now on."""
        self._states, self.wanted = {}, False

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.wanted:
            self._read_masks(args, kwargs)

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.wanted:
            self._drop_masks()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _read_masks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = {**dict(zip(self._arguments, args, strict=False)), **kwargs}
        masks = {name: arguments.get(name) for name in MASKS}
        self._call.masks = {k: v for k, v in masks.items() if isinstance(v, Tensor) and v.ndim == 2}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _drop_masks(self) -> None:
        self._call.masks = {}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def observe(self, site: Site, x: Tensor) -> None:
        """Take in the inputs of one call, (..., inputs)."""
        state = self._states[site]
        if x.device != state.tokens.device:  # another GPU's share, under DataParallel
            return
        counts = self._counts(site, x)
        rows = x.detach().reshape(-1, x.shape[-1])
        stride = max(-(-rows.shape[0] // self._inputs.tokens), 1) | 1
        some = slice(self._step % stride, None, stride)  # odd: no place in a sequence is favoured
        rows = rows[some]
        if counts is None:
            state.tokens += rows.shape[0]
        else:
            counted = counts.reshape(-1)[some]
            rows = rows * counted[:, None]
            state.tokens += counted.sum()
        dtype = state.tokens.dtype
        if dtype == torch.float32 and multiplies_bf16(rows.device):
            dtype = torch.bfloat16
        rows, blocks = rows.to(dtype), self._inputs.blocks(rows.shape[1])
        with torch.autocast(rows.device.type, enabled=False):
            for (start, stop), gram in zip(blocks, state.gram, strict=True):
                block = rows[:, start:stop]
                gram += block.T @ block

    def _counts(self, site: Site, x: Tensor) -> Tensor | None:
        """For each input 1 or 0, where padding is known."""
        fitting = {
            name: mask != 0
            for name, mask in self._call.masks.items()
            if x.shape[:-1] in (mask.shape, (mask.numel(),))
        }
        mine = MASKS[1] if "decoder" in site.name.split(".") else MASKS[0]
        return fitting.get(mine, next(iter(fitting.values()), None))


class _Watching:
    """The hook of one linear map."""

    def __init__(self, inputs: LayerInputs, site: Site) -> None:
        self._inputs, self._site = inputs, site

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not self._inputs.wanted or not (torch.is_grad_enabled() or module.training):
            return
        if torch._C._current_graph_task_id() == -1:  # else it is inside a backward pass
            self._inputs.observe(self._site, args[0] if args else kwargs["input"])
