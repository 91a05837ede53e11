"""What attention computes, out of a model that does not hand it out: scores or probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SOFTMAX = frozenset({F.softmax, torch.softmax, torch.special.softmax, torch.Tensor.softmax})


class AttentionRecorder(TorchFunctionMode):
    """While entered, remembers each softmax over square attention scores.

    Plain ("eager") attention takes a softmax over the last dimension of a tensor [batch, heads,
    tokens, tokens] once a layer, in every family, whether or not it uses transformers' attention
    interface. Fused attention never forms that tensor.

    Args:
        what: ``scores`` go into the softmax; ``probabilities`` come out, after the dropout that
            follows.
    """

    def __init__(self, what: Literal["scores", "probabilities"]) -> None:
        super().__init__()
        self.attention: list[Tensor] = []
        self._what = what
        self._awaits_dropout = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _SOFTMAX:
            scores = args[0] if args else kwargs["input"]
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            if scores.ndim == 4 and dim in (-1, 3) and scores.shape[2] == scores.shape[3]:
                self._awaits_dropout = self._what == "probabilities"
                self.attention.append(result if self._awaits_dropout else scores)
        elif func is F.dropout and self._awaits_dropout:
            if result.shape == self.attention[-1].shape:
                self.attention[-1] = result
            self._awaits_dropout = False
        return result
