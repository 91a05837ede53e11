"""How learned scores and thresholds are trained: an optimizer of their own."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from sentei.parts.part import Part
from sentei.parts.progress import Progress


class Adam(Part):
    """Adam without weight decay, with a learning-rate schedule of its own.

    Kingma and Ba 2015, arXiv 1412.6980.
    """

    lr: float = Field(1e-2, gt=0)
    """Peak learning rate."""

    warmup: float = Field(0.1, ge=0, lt=1)
    """Fraction of training in which the learning rate rises linearly from 0."""

    decay: Literal["linear", "none"] = "linear"
    """What follows the warm-up: a straight line to 0 at the end, or nothing."""

    beta1: float = Field(0.9, ge=0, lt=1)
    """Weight of the past in the average of gradients."""

    beta2: float = Field(0.999, ge=0, lt=1)
    """Weight of the past in the average of squared gradients."""

    eps: float = Field(1e-8, gt=0)
    """Added to the root of that average."""

    distance: float | None = Field(None, gt=0)
    """How far a value must be able to come: in trainings of fewer than distance / lr steps the peak
    is distance / steps. None leaves it at ``lr``."""

    def lr_at(self, progress: Progress) -> float:
        """Learning rate of the step being taken."""
        peak = max(self.lr, (self.distance or 0.0) / progress.total)
        warm, passed = round(self.warmup * progress.total), progress.step - 1
        if passed < warm:
            return peak * passed / warm
        if self.decay == "none":
            return peak
        return peak * max(progress.total - passed, 0) / max(progress.total - warm, 1)

    def step_(
        self,
        value: Tensor,
        gradient: Tensor,
        exp_avg: Tensor,
        exp_avg_sq: Tensor,
        progress: Progress,
    ) -> None:
        """Move ``value`` against ``gradient`` (all of one shape and dtype), in place."""
        # What torch.optim.AdamW calls: sorting its arguments takes longer than a piece of a matrix.
        torch._fused_adamw_(
            [value],
            [gradient],
            [exp_avg],
            [exp_avg_sq],
            [],
            [torch.full((), float(progress.step), device=value.device)],  # without waiting for it
            amsgrad=False,
            lr=self.lr_at(progress),
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=0.0,
            eps=self.eps,
            maximize=False,
        )
