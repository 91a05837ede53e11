"""Attention scores before softmax, out of a model that does not hand them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SOFTMAX = frozenset({F.softmax, torch.softmax, torch.special.softmax, torch.Tensor.softmax})


class ScoreRecorder(TorchFunctionMode):
    """While entered, remembers what goes into each softmax over square attention scores.

    Plain ("eager") attention takes a softmax over the last dimension of a tensor [batch, heads,
    tokens, tokens] once a layer, in every family, whether or not it uses transformers' attention
    interface. Fused attention never forms that tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scores: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SOFTMAX:
            scores = args[0] if args else kwargs["input"]
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            if scores.ndim == 4 and dim in (-1, 3) and scores.shape[2] == scores.shape[3]:
                self.scores.append(scores)
        return func(*args, **kwargs)
