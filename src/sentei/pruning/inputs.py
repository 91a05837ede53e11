"""Observe, the second source: the inputs of linear maps, in the steps before a decision."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sentei.distributed import mean_over_ranks_
from sentei.modules import unwrapped
from sentei.parts.inputs import Inputs, Statistic, linear_maps
from sentei.parts.scores import InputScore
from sentei.parts.site import Site
from sentei.pruning.hooks import Hook
from sentei.recipe import Recipe
from sentei.tensors import multiplies_bf16, score_dtype

MASKS = ("attention_mask", "decoder_attention_mask")
"""Arguments of a model that tell tokens from padding; the second those of a decoder."""


@dataclass
class InputState:
    """What is remembered of one linear map's inputs.

    ``gram`` holds, for each block of inputs, a sum of x x^T that fades; or ``squares``, where that
    is enough, that of x_j^2 for each input. ``tokens``, 0-d, is the number of tokens in it, which
    fades alike. ``worth`` is what a score made of each input: NaN before it has seen any,
    None where no score wants it.
    """

    gram: list[Tensor]
    squares: Tensor | None
    tokens: Tensor
    worth: Tensor | None = None

    @classmethod
    def empty(cls, site: Site, recipe: Recipe) -> InputState:
        """Before the first input."""
        weight, width = site.parameter.data, width_of(site)
        new = partial(torch.zeros, dtype=score_dtype(weight), device=weight.device)
        blocks = blocks_of(site, recipe)
        return cls(
            gram=[new(stop - start, stop - start) for start, stop in blocks],
            squares=None if blocks else new(width),
            tokens=new(()),
            worth=new(width).fill_(torch.nan) if isinstance(recipe.score, InputScore) else None,
        )

    @property
    def sums(self) -> dict[str, Tensor]:
        """What fades, by name."""
        sums = {f"gram.{number}": gram for number, gram in enumerate(self.gram)}
        if self.squares is not None:
            sums["squares"] = self.squares
        return {**sums, "tokens": self.tokens}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that it remembers, by name."""
        return self.sums if self.worth is None else {**self.sums, "worth": self.worth}

    def add_(self, rows: Tensor, blocks: Iterable[tuple[int, int]]) -> None:
        """Take in inputs, (tokens, inputs), but for their number."""
        if self.squares is not None:
            self.squares += rows.square().sum(0)
            return
        for (start, stop), gram in zip(blocks, self.gram, strict=True):
            block = rows[:, start:stop]
            gram += block.T @ block

    def means(self, statistic: Statistic) -> list[Tensor]:
        """A statistic of the inputs seen so far, in blocks."""
        if statistic == "products":
            return [gram / self.tokens for gram in self.gram]
        sums = [gram.diagonal() for gram in self.gram] if self.squares is None else [self.squares]
        return [torch.cat(sums) / self.tokens]

    def worth_of(self, start: int, stop: int, site: Site) -> Tensor:
        """The worth of the inputs of a site's weights from ``start`` to ``stop``, flat."""
        assert self.worth is not None
        columns = site.parameter.shape[1]
        first, last = start // columns, -(-stop // columns)
        if site.transposed:
            spread = self.worth[first:last].repeat_interleave(columns)
        else:
            spread = self.worth.repeat(last - first)
        return spread[start - first * columns : stop - first * columns]

    def share(self) -> None:
        """Make what was seen the same in all processes that train together."""
        for tensor in self.sums.values():
            mean_over_ranks_(tensor)

    def fade(self, beta: float) -> None:
        """Let what was seen so far count ``beta`` times as much from now on."""
        for tensor in self.sums.values():
            tensor.mul_(beta)


def blocks_of(site: Site, recipe: Recipe) -> list[tuple[int, int]]:
    """The blocks of a site's inputs whose products are kept; none where squares are enough."""
    score, part = recipe.score, recipe.reconstruction
    wanted = part is not None or (isinstance(score, InputScore) and score.statistic == "products")
    return recipe.inputs.blocks(width_of(site)) if recipe.inputs and wanted else []


def observed_bytes(model: nn.Module, sites: Sequence[Site], recipe: Recipe) -> int:
    """Memory that observing the linear maps among the prunable weights of a model takes."""
    total = 0
    for site in linear_maps(model, sites) if recipe.inputs else ():
        numbers = sum((stop - start) ** 2 for start, stop in blocks_of(site, recipe))
        numbers = numbers or width_of(site)
        numbers += width_of(site) * isinstance(recipe.score, InputScore) + 1
        total += numbers * score_dtype(site.parameter).itemsize
    return total


def width_of(site: Site) -> int:
    """How many inputs the linear map of a site has."""
    return site.parameter.shape[0 if site.transposed else 1]


class _Call(threading.local):
    """The forward pass under way: its masks. DataParallel makes several at once, in threads."""

    def __init__(self) -> None:
        self.masks: dict[str, Tensor] = {}


class LayerInputs:
    """Takes in the inputs of a model's linear maps, in the steps in which somebody wants them.

    A forward pass counts if gradients are wanted of it or its module trains: evaluation does not,
    unless it is asked for; what activation checkpointing computes again in the backward pass does
    not either.

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
        self.evaluation = False
        """Whether those of evaluation are observed too."""

    def attach(self) -> list[RemovableHandle]:
        """Put the hooks on the model."""
        if "torch._dynamo" in sys.modules:  # a graph of another model of this class has no hooks
            torch.compiler.reset()
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
        if dtype == torch.float32 and state.worth is None and multiplies_bf16(rows.device):
            dtype = torch.bfloat16  # else a score may invert them, for which it is too coarse
        with torch.autocast(rows.device.type, enabled=False):
            state.add_(rows.to(dtype), self._inputs.blocks(rows.shape[1]))

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
        inputs = self._inputs
        if not inputs.wanted:
            return
        if not (torch.is_grad_enabled() or module.training or inputs.evaluation):
            return
        if torch._C._current_graph_task_id() == -1:  # else it is inside a backward pass
            inputs.observe(self._site, args[0] if args else kwargs["input"])
