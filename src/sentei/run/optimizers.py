"""The optimizers and learning rates of a run, in the Trainer's words.

AdamW and the curves are PyTorch's and transformers'. The two optimizers here are what some papers
were trained with: the Adam of the first code of BERT (Devlin et al. 2019, arXiv 1810.04805), and
the Adamax that MT-DNN's code (Liu et al. 2019, arXiv 1901.11504) makes of it. For a weight w with
gradient g::

    m = beta1 m + (1 - beta1) g
    v = beta2 v + (1 - beta2) g^2            bert_adam      scale = sqrt(v) + epsilon
    u = max(beta2 u, |g| + epsilon)          bert_adamax    scale = u + epsilon
    w = w - lr (m / scale + weight_decay w)

m, v and u begin at 0, and nothing makes up for that, as Adam and Adamax (Kingma and Ba 2015, arXiv
1412.6980) do by dividing by 1 - beta^step. With the usual betas the first steps of bert_adam are
therefore 3.2 times as long as Adam's, those of bert_adamax a tenth of Adamax's. torch's Adamax also
adds the decay to the gradient, where the division by u undoes it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from sentei.run.settings import Training


class _WithoutCorrection(Optimizer):
    """An average of gradients over a measure of their size, neither corrected for its beginning.

    Args:
        params: Weights, or groups of them with settings of their own.
        lr: Learning rate.
        betas: Weight of the past in the average and in the measure, in [0, 1).
        eps: Added to the measure.
        weight_decay: Fraction of a weight that is taken off, times the learning rate.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move_(weight, weight.grad, group)
        return loss

    def _move_(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        (beta1, beta2), eps = group["betas"], group["eps"]
        state = self.state[weight]
        if not state:
            state["average"], state["measure"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["average"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        update = state["average"] / self._scale(state["measure"], gradient, beta2, eps)
        if group["weight_decay"]:
            update.add_(weight, alpha=group["weight_decay"])
        weight.add_(update, alpha=-group["lr"])

    @staticmethod
    @abstractmethod
    def _scale(measure: Tensor, gradient: Tensor, beta2: float, eps: float) -> Tensor:
        """Bring the measure up to date, in place, and return what divides the average."""


class BertAdam(_WithoutCorrection):
    """Adam as BERT's first code has it; SparseBERT's."""

    @staticmethod
    def _scale(measure: Tensor, gradient: Tensor, beta2: float, eps: float) -> Tensor:
        measure.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        return measure.sqrt().add_(eps)


class BertAdamax(_WithoutCorrection):
    """Adamax in the same way; MT-DNN's, and so PLATON's."""

    @staticmethod
    def _scale(measure: Tensor, gradient: Tensor, beta2: float, eps: float) -> Tensor:
        measure.mul_(beta2)
        torch.maximum(measure, gradient.abs().add_(eps), out=measure)
        return measure + eps


_OURS: Final[dict[str, type[_WithoutCorrection]]] = {
    "bert_adam": BertAdam,
    "bert_adamax": BertAdamax,
}


def optimizer_of(training: Training) -> tuple[type[Optimizer], dict[str, Any]] | None:
    """The class and arguments of an optimizer that the Trainer does not know; None for AdamW."""
    if training.optimizer not in _OURS:
        return None
    betas = (training.adam_beta1, training.adam_beta2)
    numbers = {"lr": training.learning_rate, "betas": betas, "eps": training.adam_epsilon}
    return _OURS[training.optimizer], numbers


def schedule_of(training: Training) -> tuple[str, dict[str, float]]:
    """The name and arguments of a learning-rate schedule of transformers."""
    if training.lr_schedule == "constant":
        return "constant_with_warmup", {}
    if training.lr_schedule == "cosine":
        return "cosine_with_min_lr", {"min_lr_rate": training.lr_floor}
    if training.lr_floor:
        return "polynomial", {"power": 1.0, "lr_end": training.lr_floor * training.learning_rate}
    return "linear", {}
