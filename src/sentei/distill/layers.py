"""Whether a student can learn from a teacher, and which of its layers from which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sentei.modules import config_of
from sentei.parts.distillation import Distillation


@dataclass(frozen=True)
class Match:
    """Student and teacher, layer by layer.

    ``distillation`` is what was asked for, without the terms that an optional teacher cannot give.
    ``layers`` holds the teacher's layer for each of the student's, from 1; it is empty where no
    loss looks into the models. ``notes`` says what was left out and what will be changed in the
    models, in sentences.
    """

    distillation: Distillation
    layers: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """The loss and the layer map, in one line."""
        d = self.distillation
        logits = f"logits ({d.logits_loss}, temperature {d.temperature:g})"
        if d.logits_loss == "mse":
            logits = "logits (mse)"
        named = {"labels": d.labels, logits: d.logits, "hidden": d.hidden, "attention": d.attention}
        terms = [name if weight == 1 else f"{weight:g} x {name}" for name, weight in named.items()]
        used = [term for term, weight in zip(terms, named.values(), strict=True) if weight]
        line = "loss: " + " + ".join(used)
        if self.layers:
            pairs = (f"{ours}->{theirs}" for ours, theirs in enumerate(self.layers, start=1))
            line += "; layers: " + ", ".join(pairs)
        return line


def match(student: nn.Module, teacher: nn.Module, distillation: Distillation) -> Match:
    """Match a student with its teacher, from what their configs say.

    Raises:
        ValueError: They do not fit each other for these losses; says what differs and the fix.
    """
    ours, theirs = config_of(student), config_of(teacher)
    notes = []
    if distillation.regression == "alone" and _is_regression(ours):
        raise ValueError(
            "distill.regression=alone: the student predicts a number, which is learnt without a "
            "teacher; attach none, or use regression=teacher"
        )
    if distillation.logits:
        _same(ours, theirs, "num_labels", "logits", "give a teacher of the same task, or logits=0")
    if distillation.hidden:
        try:
            _check_hidden(ours, theirs)
        except ValueError as error:
            if distillation.required or not (distillation.logits or distillation.attention):
                raise
            distillation = distillation.model_copy(update={"hidden": 0.0})
            notes.append(f"hidden states are left out: {error}")
    if distillation.attention:
        _same(
            ours,
            theirs,
            "num_attention_heads",
            "attention",
            "leave attention scores out with attention=0",
        )
    layers: tuple[int, ...] = ()
    if distillation.hidden or distillation.attention:
        layers = layer_map(_depth(ours, "student"), _depth(theirs, "teacher"), distillation.layers)
    if distillation.attention:
        for who, config in (("student", ours), ("teacher", theirs)):
            kind = implementation(config)
            if kind != "eager":
                notes.append(
                    f"the {who}'s attention is changed from {kind} to eager while it is attached: "
                    "only plain attention forms the scores that the attention loss compares"
                )
    return Match(distillation, layers, tuple(notes))


def layer_map(student: int, teacher: int, asked: Sequence[int] | None = None) -> tuple[int, ...]:
    """The teacher's layer for each of the student's, from 1.

    Without ``asked`` they are spread evenly, rounded up: 3 layers learn from 2, 4 and 6 of 6.

    Raises:
        ValueError: ``asked`` has another length than the student's depth, or names a layer that
            the teacher does not have.
    """
    if asked is None:
        return tuple(-(-layer * teacher // student) for layer in range(1, student + 1))
    if len(asked) != student:
        raise ValueError(
            f"distill.layers={tuple(asked)} names {len(asked)} layers of the teacher: "
            f"the student has {student}, and each needs one"
        )
    if wrong := [layer for layer in asked if not 1 <= layer <= teacher]:
        raise ValueError(
            f"distill.layers={tuple(asked)} names layer {wrong[0]}: "
            f"the teacher's layers are 1 to {teacher}"
        )
    return tuple(asked)


def implementation(config: Any) -> str:
    """What a transformers model computes attention with; plain is ``eager``."""
    return getattr(config, "_attn_implementation", None) or "eager"


def _same(ours: Any, theirs: Any, name: str, term: str, fix: str) -> None:
    a, b = getattr(ours, name, None), getattr(theirs, name, None)
    if a is not None and b is not None and a != b:
        raise ValueError(
            f"distill.{term}: the student's {name} is {a} and the teacher's is {b}, which cannot "
            f"be compared; {fix}"
        )


def _check_hidden(ours: Any, theirs: Any) -> None:
    _same(ours, theirs, "hidden_size", "hidden", "leave hidden states out with hidden=0")
    _depth(ours, "student")
    _depth(theirs, "teacher")


def _is_regression(config: Any) -> bool:
    problem = getattr(config, "problem_type", None)
    return problem == "regression" or (problem is None and getattr(config, "num_labels", 0) == 1)


def _depth(config: Any, who: str) -> int:
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"the {who} is an encoder-decoder, whose layers are not matched: with a head for "
            "classes learn from the logits alone, with hidden=0 and attention=0"
        )
    depth = getattr(config, "num_hidden_layers", None)
    if not isinstance(depth, int):
        raise ValueError(
            f"the {who}'s number of layers is not known (it has no config.num_hidden_layers): "
            "learn from the logits alone, with hidden=0 and attention=0"
        )
    return depth
