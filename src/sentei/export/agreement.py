"""What an engine gives, beside what the model itself gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

import torch
from torch import Tensor

from sentei.models.outputs import Inputs, Outputs
from sentei.records import Record

_OF_TEXTS: Final = ("start_logits", "end_logits")
"""Outputs of [texts, tokens], of which one token of a text is the answer."""


class Agreement(Record):
    """How far an engine's outputs are from the model's on the same inputs.

    ``relative`` is the difference in the L2 norm over all outputs, ``most`` the largest single one;
    both are infinite where an output is not finite. ``same`` of ``answers`` are the same: classes
    of texts, images or tokens, first and last tokens of an answer, next tokens. A body and a
    regression give none. ``examples`` were compared.
    """

    examples: int
    relative: float
    most: float
    same: int
    answers: int


def compare(
    exact: Callable[[Inputs], Outputs],
    other: Callable[[Inputs], Outputs],
    batches: Iterable[Inputs],
) -> Agreement:
    """Run both on the same inputs. What stands for padding is not compared.

    Args:
        exact: The model.
        other: The engine, which gives outputs of the same names.
        batches: The inputs.
    """
    examples, same, answers = 0, 0, 0
    squares, reference, most = 0.0, 0.0, 0.0
    for inputs in batches:
        ours, theirs = other(inputs), exact(inputs)
        examples += len(next(iter(inputs.values())))
        for name, whole in theirs.items():
            mask = _mask(name, whole, inputs)
            wanted, apart = _read(whole, mask), _read(ours[name], mask) - _read(whole, mask)
            if not torch.isfinite(apart).all():
                squares, most = math.inf, math.inf
                continue
            squares += float(apart.square().sum())
            reference += float(wanted.square().sum())
            most = max(most, float(apart.abs().max()))
            for right, given in zip(
                _answers(name, whole, mask), _answers(name, ours[name], mask), strict=True
            ):
                answers += right.numel()
                same += int(torch.eq(right, given).sum())
    relative = math.sqrt(squares / reference) if reference else squares
    return Agreement(examples=examples, relative=relative, most=most, same=same, answers=answers)


def _mask(name: str, value: Tensor, inputs: Inputs) -> Tensor | None:
    """Which tokens an output is read at, [batch, tokens]; None where it has none of the inputs'."""
    mask = inputs.get("attention_mask")
    written = "decoder_input_ids" in inputs and not name.startswith("encoder")
    tokens = value.dim() == 3 or name in _OF_TEXTS  # two dimensions may be texts and classes
    if mask is None or written or not tokens or value.shape[:2] != mask.shape:
        return None
    return mask.bool()


def _read(value: Tensor, mask: Tensor | None) -> Tensor:
    """The entries that somebody reads, in double precision."""
    return (value if mask is None else value[mask]).double()


def _answers(name: str, value: Tensor, mask: Tensor | None) -> list[Tensor]:
    """The likeliest class of each text or token, or the likeliest token of each text, if any."""
    if name in _OF_TEXTS:
        readable = value if mask is None else value.masked_fill(~mask, -math.inf)
        return [readable.argmax(-1)]
    if name == "logits" and value.dim() > 1 and value.shape[-1] > 1:
        return [(value if mask is None else value[mask]).argmax(-1)]
    return []
