"""What optimizers and loss scalers do to a step, besides moving the weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.optim import Optimizer

from sentei.messages import SenteiWarning
from sentei.parts.site import Site
from sentei.recipe import Recipe


def learning_rates(optimizer: Optimizer) -> dict[int, float]:
    """The learning rate of every parameter, by its id."""
    groups = optimizer.param_groups
    return {id(p): float(group["lr"]) for group in groups for p in group["params"]}


def stepping(optimizer: Optimizer, sites: Sequence[Site]) -> Optimizer:
    """The outermost optimizer, of those inside one another, whose steps can be seen and move all
    prunable weights.

    Its step ends after those of what it contains, so that nothing writes after the mask. Of
    Accelerate's wrapper it is the one inside, which does not step at every call.

    Raises:
        ValueError: It is no torch optimizer, or none of those inside it holds all of them.
    """
    seen = [path for path in _nested(optimizer) if _runs_hooks(path[-1])]
    if not seen:
        raise ValueError(f"expected a torch optimizer, got {type(optimizer).__name__}")
    chosen = next((path for path in seen if not _missing(path[-1], sites)), None)
    if chosen is None:
        _refuse(optimizer, seen, _missing(seen[0][-1], sites))
    inner: Optimizer = chosen[-1]
    if around := chosen[:-1]:
        outer = type(around[0]).__name__
        warnings.warn(
            f"attached to the {type(inner).__name__} in {outer}: torch runs no hooks at the steps "
            f"of {outer}, so what it writes to weights after those is not pruned until the next "
            "decision or finish(). If it writes, derive it from torch.optim.Optimizer and call "
            "super().__init__",
            SenteiWarning,
            stacklevel=3,
        )
    return inner


def _nested(optimizer: Any) -> Iterator[tuple[Any, ...]]:
    """An optimizer and those that it contains, from the outermost in: the way to each, once."""
    level: list[tuple[Any, ...]] = [(optimizer,)]
    known = set[int]()
    while level:
        below: list[tuple[Any, ...]] = []
        for path in level:
            one = path[-1]
            if id(one) in known:
                continue
            known.add(id(one))
            _check_copies(type(one))
            if type(one).__module__.startswith(_PASS_ON):
                path = path[:-1]
            else:
                yield path
            below += [(*path, inner) for inner in _contents(one)]
        level = below


def _check_copies(kind: type) -> None:
    """Refuse optimizers that step copies of the weights, in which nothing is zero."""
    if kind.__module__.startswith("deepspeed") or "DeepSpeed" in kind.__name__:
        raise ValueError(
            "DeepSpeed engines keep their own flattened weights, which cannot be pruned "
            "from outside: train with DDP or a plain optimizer"
        )
    if kind.__module__.startswith("torchao.") and kind.__name__ == "CPUOffloadOptimizer":
        raise ValueError(
            "CPUOffloadOptimizer steps copies of the weights in the host's memory and writes them "
            "over the model's, zeros too: use AdamW8bit or AdamW4bit on the device, or shards with "
            "fully_shard(..., offload_policy=CPUOffloadPolicy())"
        )


_PASS_ON = ("accelerate.", "lightning.", "pytorch_lightning.")
"""Whose wrappers of optimizers do nothing to weights."""


def _contents(optimizer: Any) -> list[Any]:
    """The optimizers among its attributes, in lists and mappings of them too."""
    found = []
    for name, value in getattr(optimizer, "__dict__", {}).items():
        several = value.values() if isinstance(value, Mapping) else value
        several = several if isinstance(value, list | tuple | Mapping) else (value,)
        wrapped = name == "optimizer"  # a wrapper may contain a wrapper that is no torch optimizer
        found += [one for one in several if isinstance(one, Optimizer) or wrapped]
    return found


def _runs_hooks(optimizer: Any) -> bool:
    """Whether torch runs hooks at its steps: not where a subclass skips Optimizer's __init__."""
    if not isinstance(optimizer, Optimizer):
        return False
    hooked = bool(getattr(type(optimizer).step, "hooked", False))
    return hooked and "_optimizer_step_pre_hooks" in vars(optimizer)


def _missing(optimizer: Optimizer, sites: Sequence[Site]) -> list[str]:
    """The prunable weights that an optimizer does not move."""
    parameters = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [site.name for site in sites if id(site.parameter) not in parameters]


def _refuse(optimizer: Any, seen: Sequence[tuple[Any, ...]], missing: Sequence[str]) -> NoReturn:
    others = f" and {len(missing) - 1} more prunable weights are" if len(missing) > 1 else " is"
    if len(seen) > 1:
        raise ValueError(
            f"{missing[0]}{others} not in {type(seen[0][-1]).__name__}, and no other of the "
            f"{len(seen)} optimizers in {type(optimizer).__name__} holds all prunable weights: put "
            "them into one, or exclude from the scope what another holds"
        )
    raise ValueError(
        f"{missing[0]}{others} not in the optimizer: give it all of model.parameters(), or "
        "exclude them from the scope"
        if len(missing) > 1
        else f"{missing[0]} is not in the optimizer: add it, or exclude it from the scope"
    )


def nests_steps(optimizer: Optimizer) -> bool:
    """Whether torch may run the hooks of one step several times: a step that calls its parent's."""
    steps = [vars(kind)["step"] for kind in type(optimizer).__mro__ if "step" in vars(kind)]
    return sum(bool(getattr(step, "hooked", False)) for step in steps) > 1


def writes_between_steps(optimizer: Any) -> bool:
    """Whether it moves weights as it changes between training and evaluation (schedule-free)."""
    return callable(getattr(optimizer, "eval", None)) and callable(
        getattr(optimizer, "train", None)
    )


def check_fits(optimizer: Optimizer, recipe: Recipe) -> None:
    """Refuse an optimizer that writes to what a recipe needs as it is.

    Raises:
        ValueError: To gradients, or to weights between its steps.
    """
    if recipe.score.observes_new:
        check_keeps_gradients(optimizer)
    if recipe.mask.latent and writes_between_steps(optimizer):
        raise ValueError(
            f"{type(optimizer).__name__} moves weights as it changes between train() and eval(), "
            f"and {recipe.method} keeps the dense weights aside and would undo that: use another "
            "optimizer, or a method that writes zeros into the weights (platon, magnitude)"
        )


def check_keeps_gradients(optimizer: Optimizer) -> None:
    """Refuse SGD with Nesterov's momentum where it adds the momentum to the gradients in place.

    torch does so for many tensors at once (foreach, the default on a GPU) without weight decay.

    Raises:
        ValueError: It is such an optimizer.
    """
    for group in optimizer.param_groups:
        several = group.get("foreach")
        if several is None:
            several = any(p.is_cuda for p in group["params"]) and not group.get("fused")
        if several and group.get("nesterov") and not group.get("weight_decay"):
            raise ValueError(
                "SGD(nesterov=True) on many tensors at once changes the gradients that this recipe "
                "reads after its step: give it foreach=False, or use score.iterate='old'"
            )


def overflowed(optimizer: Optimizer) -> bool:
    """Whether a loss scaler hands a step to an optimizer that will skip it itself.

    GradScaler steps optimizers that unscale on their own (fused ones) even on overflow, with
    ``found_inf`` set on them.
    """
    overflow: Tensor | None = getattr(optimizer, "found_inf", None)
    return overflow is not None and bool(overflow.item())


def unscale_(optimizer: Optimizer) -> None:
    """Unscale gradients that a fused optimizer would unscale inside its step.

    The same as the user's ``scaler.unscale_(optimizer)`` just before the step: GradScaler sets
    ``grad_scale`` to None where gradients are unscaled already.
    """
    scale: Tensor | None = getattr(optimizer, "grad_scale", None)
    if scale is None:
        return
    gradients = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    torch._foreach_mul_(gradients, 1 / float(scale.item()))
    optimizer.grad_scale = None  # type: ignore[attr-defined]
