"""The model that is learnt from: frozen, computing as the student does, asked once with a cache."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sentei.distill.cache import TeacherCache
from sentei.distill.layers import Match
from sentei.distill.outputs import Outputs, answers_of, select
from sentei.distill.recorder import AttentionRecorder

_FOR_THE_STUDENT = frozenset(
    {
        "labels",
        "start_positions",
        "end_positions",
        "num_items_in_batch",
        "return_dict",
        "output_hidden_states",
        "output_attentions",
    }
)


@dataclass(frozen=True)
class Autocast:
    """The precision that a model computes in beside its own."""

    enabled: bool
    dtype: torch.dtype

    @classmethod
    def around(cls, model: nn.Module) -> Autocast:
        """That which is on now, for the device of a model."""
        parameter = next(model.parameters(), None)
        kind = parameter.device.type if parameter is not None else "cpu"
        return cls(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))

    def __str__(self) -> str:
        return str(self.dtype) if self.enabled else ""


class FrozenTeacher:
    """Asks a teacher for its outputs, each example once where a cache keeps them.

    Args:
        model: Put into eval mode and frozen.
        match: Its layers for each of the student's, and the terms of the loss.
        cache: Where its outputs are kept; it is opened.

    Raises:
        ValueError: Outputs of these terms cannot be kept, or the cache holds others.
    """

    def __init__(self, model: nn.Module, match: Match, cache: TeacherCache | None) -> None:
        self.model = model
        self.distillation = match.distillation
        self.cache = cache
        self._layers = sorted(set(match.layers))
        self._order = [self._layers.index(layer) for layer in match.layers]
        self._inputs = set(inspect.signature(type(model).forward).parameters)
        model.requires_grad_(False)
        model.train(self.distillation.teacher_dropout)
        if cache is not None:
            self._bind(cache)

    def open(self) -> None:
        """Open the cache again, if there is one."""
        if self.cache is not None and not self.cache.is_open:
            self._bind(self.cache)

    def close(self) -> None:
        """Close the cache, if there is one."""
        if self.cache is not None:
            self.cache.close()

    def _bind(self, cache: TeacherCache) -> None:
        distillation = self.distillation
        if distillation.teacher_dropout:
            raise ValueError("teacher_dropout=True answers anew each time: nothing to cache")
        if distillation.padding and (distillation.hidden or distillation.attention):
            raise ValueError(
                "distill.padding=True compares padding too, whose states depend on the batch and "
                "are not kept: use padding=False, or no cache"
            )
        layers = {
            "hidden": [0, *self._layers] if distillation.hidden else [],
            "attention": self._layers if distillation.attention else [],
        }
        cache.bind(fingerprint(self.model), layers, distillation.attention_of)

    def outputs(
        self, batch: Mapping[str, Any], device: torch.device, autocast: Autocast
    ) -> Outputs:
        """On a student's batch: logits, and a tensor for each of the student's layers.

        Args:
            batch: What the student was called with.
            device: The student's, to which the teacher moves.
            autocast: The student's.

        Raises:
            ValueError: The teacher returns no logits by name, or not all that is compared; or the
                cache cannot know these examples.
            OSError: The cache cannot be written.
        """
        inputs = {k: v for k, v in batch.items() if k not in _FOR_THE_STUDENT}
        # A DistilBERT has no place for the token types that a BERT was given.
        inputs = {k: v for k, v in inputs.items() if k in self._inputs} or inputs
        if self.cache is None:
            outputs = self._run(inputs, device, autocast)
        else:
            outputs = self.cache.outputs(
                inputs, str(autocast), device, lambda: self._run(inputs, device, autocast)
            )
        hidden, attention = outputs.hidden, outputs.attention
        if hidden:
            hidden = [hidden[0], *(hidden[1 + i] for i in self._order)]
        if attention:
            attention = [attention[i] for i in self._order]
        return Outputs(outputs.logits, hidden, attention, outputs.spans)

    @torch.no_grad()
    def _run(self, inputs: dict[str, Any], device: torch.device, autocast: Autocast) -> Outputs:
        first = next(self.model.parameters(), None)
        if first is not None and first.device != device:
            self.model.to(device)
        extra = {"output_hidden_states": True} if self.distillation.hidden else {}
        attention: list[Tensor] = []
        with ExitStack() as stack:
            stack.enter_context(
                torch.autocast(device.type, dtype=autocast.dtype, enabled=autocast.enabled)
            )
            if self.distillation.attention:
                recorder = AttentionRecorder(self.distillation.attention_of)
                attention = stack.enter_context(recorder).attention
            output = self.model(**inputs, **extra)
        if answers_of(output, self.distillation) is None:
            raise ValueError(
                f"the teacher's output is a {type(output).__name__} without logits by name: it "
                "must return a ModelOutput or a dict with them"
            )
        return select(output, attention, self._layers, self.distillation, self.model, "teacher")


def fingerprint(model: nn.Module) -> str:
    """A hash of a model's weights and their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
