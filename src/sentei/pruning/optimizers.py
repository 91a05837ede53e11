"""What optimizers and loss scalers do to a step, besides moving the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from sentei.parts.site import Site


def check_holds(optimizer: Optimizer, sites: Sequence[Site]) -> None:
    """Refuse an optimizer that does not move every prunable weight.

    Raises:
        ValueError: Names the first that it does not hold.
    """
    parameters = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [site.name for site in sites if id(site.parameter) not in parameters]
    if missing:
        raise ValueError(
            f"{missing[0]} and {len(missing) - 1} more prunable weights are not in the "
            "optimizer: give it all of model.parameters(), or exclude them from the scope"
            if len(missing) > 1
            else f"{missing[0]} is not in the optimizer: add it, or exclude it from the scope"
        )


def learning_rates(optimizer: Optimizer) -> dict[int, float]:
    """The learning rate of every parameter, by its id."""
    groups = optimizer.param_groups
    return {id(p): float(group["lr"]) for group in groups for p in group["params"]}


def innermost(optimizer: Optimizer) -> Optimizer:
    """The optimizer that really steps, under Accelerate's wrapper.

    Raises:
        ValueError: It is no torch optimizer.
    """
    if (
        type(optimizer).__module__.startswith("deepspeed")
        or "DeepSpeed" in type(optimizer).__name__
    ):
        raise ValueError(
            "DeepSpeed engines keep their own flattened weights, which cannot be pruned from "
            "outside: train with DDP or a plain optimizer"
        )
    inner = getattr(optimizer, "optimizer", optimizer)
    if inner is not optimizer:
        return innermost(inner)
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"expected a torch optimizer, got {type(optimizer).__name__}")
    return optimizer


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
