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

    ``distillation`` is the recipe's, without the terms that an optional teacher cannot give.
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
        if d.fade:
            line += "; the teacher fades from {:.0%} to {:.0%} of training".format(*d.fade)
        if self.layers:
            pairs = (f"{ours}->{theirs}" for ours, theirs in enumerate(self.layers, start=1))
            line += "; layers: " + ", ".join(pairs)
        return line


def match(student: nn.Module, teacher: nn.Module, distillation: Distillation) -> Match:
    """Match a student with its teacher, from what their configs say.

    Raises:
        ValueError: They do not fit each other for these losses; says what differs and the fix.
    """
    configs = config_of(student), config_of(teacher)
    if distillation.regression == "alone" and _is_regression(configs[0]):
        raise ValueError(
            "distill.regression=alone: the student predicts a number, which is learnt without a "
            "teacher; attach none, or use regression=teacher"
        )
    notes = []
    if distillation.logits:
        _same(*configs, "num_labels", "logits", "give a teacher of the same task, or logits=0")
    if distillation.hidden:
        try:
            _check_hidden(*configs)
        except ValueError as error:
            if distillation.required or not (distillation.logits or distillation.attention):
                raise
            distillation = distillation.model_copy(update={"hidden": 0.0})
            notes.append(f"hidden states are left out: {error}")
    if distillation.attention:
        fix = "leave attention scores out with attention=0"
        _same(*configs, "num_attention_heads", "attention", fix)
    layers: tuple[int, ...] = ()
    if distillation.hidden or distillation.attention:
        layers = layer_map(*_depths(*configs), distillation.layers)
    if distillation.attention:
        for who, config in zip(("student", "teacher"), configs, strict=True):
            kind = implementation(config)
            if kind != "eager":
                notes.append(
                    f"the {who}'s attention is changed from {kind} to eager while it is attached: "
                    "only plain attention forms the scores that the attention loss compares"
                )
    return Match(distillation, layers, tuple(notes))


def layer_map(student: int, teacher: int, layers: Sequence[int] | None = None) -> tuple[int, ...]:
    """The teacher's layer for each of the student's, from 1.

    Args:
        student: Its number of layers.
        teacher: Its number of layers.
        layers: The map itself, to be checked. None spreads them evenly, rounded up: 3 layers learn
            from 2, 4 and 6 of 6.

    Raises:
        ValueError: ``layers`` has another length than the student's depth, or names a layer that
            the teacher does not have.
    """
    if layers is None:
        return tuple(-(-layer * teacher // student) for layer in range(1, student + 1))
    if len(layers) != student:
        raise ValueError(
            f"distill.layers={tuple(layers)} names {len(layers)} layers of the teacher: "
            f"the student has {student}, and each needs one"
        )
    if outside := [layer for layer in layers if not 1 <= layer <= teacher]:
        raise ValueError(
            f"distill.layers={tuple(layers)} names layer {outside[0]}: "
            f"the teacher's layers are 1 to {teacher}"
        )
    return tuple(layers)


def implementation(config: Any) -> str:
    """What a transformers model computes attention with; plain is ``eager``."""
    return getattr(config, "_attn_implementation", None) or "eager"


def _same(student: Any, teacher: Any, name: str, term: str, fix: str) -> None:
    """Refuse configs that differ in a number which both state."""
    ours, theirs = getattr(student, name, None), getattr(teacher, name, None)
    if ours is not None and theirs is not None and ours != theirs:
        raise ValueError(
            f"distill.{term}: the student's {name} is {ours} and the teacher's is {theirs}, which "
            f"cannot be compared; {fix}"
        )


def _check_hidden(student: Any, teacher: Any) -> None:
    _same(student, teacher, "hidden_size", "hidden", "leave hidden states out with hidden=0")
    _depths(student, teacher)


def _depths(student: Any, teacher: Any) -> tuple[int, int]:
    return _depth(student, "student"), _depth(teacher, "teacher")


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
