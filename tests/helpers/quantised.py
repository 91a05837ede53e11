"""An optimizer whose state is of 8 bits and no plain tensor, as torchao's is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Int8(Tensor):
    """A matrix as codes of 8 bits, with a scale for each row.

    It can be kept, copied and loaded; whoever computes with it without :meth:`full` gets an error.
    """

    codes: Tensor
    scales: Tensor

    @staticmethod
    def __new__(cls, codes: Tensor, scales: Tensor) -> Int8:
        wrapper: Any = Tensor._make_wrapper_subclass  # type: ignore[attr-defined]
        made: Int8 = wrapper(cls, codes.shape, dtype=torch.float32, device=codes.device)
        return made

    def __init__(self, codes: Tensor, scales: Tensor) -> None:
        self.codes, self.scales = codes, scales

    @classmethod
    def zeros(cls, like: Tensor) -> Int8:
        rows = torch.zeros(like.shape[0], 1)
        return cls(torch.zeros_like(like, dtype=torch.int8), rows)

    def full(self) -> Tensor:
        return self.codes * self.scales

    def keep_(self, tensor: Tensor) -> None:
        self.scales.copy_(tensor.abs().amax(1, keepdim=True) / 127)
        self.codes.copy_((tensor / self.scales.clamp(min=1e-30)).round())

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        aten = torch.ops.aten
        if func in (aten.detach.default, aten.clone.default, aten._to_copy.default):
            return cls(args[0].codes.clone(), args[0].scales.clone())
        raise NotImplementedError(f"{func} on a state of 8 bits")

    __torch_function__ = torch._C._disabled_torch_function_impl


class Adam8(Optimizer):
    """Adam, whose averages of matrices are of 8 bits."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    matrix = weight.ndim == 2
                    new = Int8.zeros if matrix else torch.zeros_like
                    state |= {"step": 0, "mean": new(weight), "square": new(weight)}
                state["step"] += 1
                self._move(weight, state, group["lr"])

    def _move(self, weight: Tensor, state: dict[str, Any], lr: float) -> None:
        mean, square, gradient = state["mean"], state["square"], weight.grad
        assert gradient is not None
        kept = isinstance(mean, Int8)
        new_mean = (mean.full() if kept else mean).lerp(gradient, 0.1)
        size = (square.full() if kept else square).lerp(gradient.abs(), 0.1)  # the root's is coarse
        for old, new in ((mean, new_mean), (square, size)):
            if kept:
                old.keep_(new)
            else:
                old.copy_(new)
        weight.sub_(new_mean / (size + 1e-8), alpha=lr)
