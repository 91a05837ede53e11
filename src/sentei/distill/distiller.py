"""A teacher's part in the loss, put into ``outputs.loss`` at the student's own forward hooks.

    student(**batch)    before   hidden states are asked for, attention scores recorded
                        after    the teacher reads the same batch; outputs.loss = the whole loss

A loop that takes its loss from the model's outputs needs no change: the Trainer, Accelerate, your
own. Only a student in training mode is touched, so evaluation measures the task alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sentei.distill import losses
from sentei.distill.cache import TeacherCache, fingerprint
from sentei.distill.layers import Match, config_of, implementation, match
from sentei.distill.recorder import ScoreRecorder
from sentei.modules import teaching, unwrapped
from sentei.parts.distillation import Distillation

_NOT_FOR_THE_TEACHER = frozenset(
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
_NOT_A_PLACE = -1e4
"""Logit of padding where a softmax goes over the tokens."""


@dataclass
class Answers:
    """What a model says to a batch: logits, and one tensor a matched layer of the others.

    ``hidden`` begins with the embedding output. ``places`` says that the two logits of each token
    are those of the first and of the last of an answer.
    """

    logits: Tensor
    hidden: list[Tensor]
    attention: list[Tensor]
    places: bool = False


@dataclass
class _Call:
    """One forward of the student that is under way."""

    batch: dict[str, Any]
    items: Any
    wants_hidden: bool
    scores: list[Tensor]
    recording: ExitStack
    autocast: tuple[bool, torch.dtype] | None = None


class Distiller:
    """Lets a student learn from a teacher while somebody else trains it.

    Args:
        student: The model being trained.
        teacher: The model to learn from; put into eval mode and frozen. It does not become a part
            of the student.
        distillation: The terms of the loss and their weights.
        cache: Where the teacher's answers are kept, so that each example asks it once.

    Raises:
        ValueError: The two do not fit each other for these losses, or share weights.

    Example:
        >>> distiller = Distiller(student, teacher, Distillation(logits=1.0))  # doctest: +SKIP
        >>> with distiller:  # doctest: +SKIP
        ...     student(**batch).loss.backward()
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        distillation: Distillation | None = None,
        *,
        cache: TeacherCache | None = None,
    ) -> None:
        distillation = distillation or Distillation()
        self.student = unwrapped(student)
        self.teacher = unwrapped(teacher)
        held = {id(p) for p in self.student.parameters()}
        if any(id(p) in held for p in self.teacher.parameters()):
            raise ValueError(
                "the teacher shares weights with the student and would change with it: "
                "give it a copy, copy.deepcopy(model)"
            )
        _refuse_writers(self.student)
        self.match: Match = match(self.student, self.teacher, distillation)
        self.distillation = self.match.distillation
        self.cache = cache
        self.terms: dict[str, Tensor] = {}
        """The terms of the last loss, before their weights: labels, logits, hidden, attention."""
        self.teacher.requires_grad_(False)
        self.teacher.train(self.distillation.teacher_dropout)
        self._accepts = set(inspect.signature(type(self.teacher).forward).parameters)
        self._hooks: list[RemovableHandle] = []
        self._call: _Call | None = None
        self._implementations: list[tuple[Any, str]] = []
        self._watch_attention = bool(self.distillation.attention)
        if cache is not None:
            self._bind(cache)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out, and what attaching changes in the models, in sentences."""
        return self.match.notes

    def describe(self) -> str:
        """The loss and the layer map, in one line."""
        return self.match.describe()

    # ---------------------------------------------------------------- attach, detach

    def attach(self) -> Self:
        """Put the teacher's part into the student's ``outputs.loss`` from now on.

        Raises:
            ValueError: It is attached already, or attention scores are asked for and a model
                cannot give them.
        """
        if self._hooks:
            raise ValueError("this distiller is attached already")
        if self.cache is not None and not self.cache.is_open:
            self._bind(self.cache)
        if self._watch_attention:
            self._check_checkpointing()
            try:
                self._use_eager_attention()
            except ValueError:
                self.detach()
                raise
        self._hooks = [
            self.student.register_forward_pre_hook(self._before, with_kwargs=True),
            self.student.register_forward_hook(self._after, with_kwargs=True, always_call=True),
            # Accelerate's autocast is around the model's forward and inside the model's own hooks:
            # what the student computes in can be seen only from within.
            *(child.register_forward_pre_hook(self._within) for child in self.student.children()),
        ]
        return self

    def detach(self) -> None:
        """Leave the student as it was found."""
        self._close()
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for change, kind in self._implementations:
            change(kind)
        self._implementations = []
        if self.cache is not None:
            self.cache.close()

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()

    def _use_eager_attention(self) -> None:
        for who, model in (("student", self.student), ("teacher", self.teacher)):
            config = config_of(model)
            kind = implementation(config)
            if kind == "eager":
                continue
            change: Any = getattr(model, "set_attn_implementation", None)
            if change is not None:
                change("eager")
            if implementation(config) != "eager":
                raise ValueError(
                    f"attention scores need attn_implementation='eager': the {who} uses {kind} and "
                    "cannot be changed; load it with from_pretrained(..., "
                    "attn_implementation='eager'), or leave them out with attention=0"
                )
            self._implementations.append((change, kind))

    def _check_checkpointing(self) -> None:
        modules = self.student.modules()
        if any(getattr(module, "gradient_checkpointing", False) for module in modules):
            raise ValueError(
                "attention scores cannot be compared under gradient checkpointing, which throws "
                "them away: switch it off, or leave them out with attention=0"
            )

    # ------------------------------------------------------------------------- hooks

    def _before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._close()  # a forward that was broken off by Ctrl-C
        if not module.training:
            return None
        if getattr(module, "_is_replica", False):
            raise ValueError(
                "a teacher cannot take part under DataParallel, which runs copies of the student "
                "in threads: use one process a GPU (torchrun), or one GPU (CUDA_VISIBLE_DEVICES=0)"
            )
        batch = dict(kwargs)
        if args:
            bound = inspect.signature(type(module).forward).bind_partial(module, *args)
            batch = {name: value for name, value in [*bound.arguments.items()][1:]} | batch
        # The student's own loss stays a mean over its batch: whether a model of transformers uses
        # this number differs from class to class, and `_share` does the same for every term.
        items = batch.pop("num_items_in_batch", None)
        asked = dict(batch)
        wants_hidden = bool(asked.get("output_hidden_states"))
        if self.distillation.hidden:
            asked["output_hidden_states"] = True
        scores: list[Tensor] = []
        recording = ExitStack()
        if self._watch_attention:
            self._check_checkpointing()
            scores = recording.enter_context(ScoreRecorder()).scores
        self._call = _Call(batch, items, wants_hidden, scores, recording)
        return (), asked

    def _within(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._call is not None and self._call.autocast is None:
            self._call.autocast = _autocast(self.student)

    @teaching
    def _after(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        call = self._close()
        if call is None or output is None:  # not training, or the forward failed
            return None
        if not isinstance(output, Mapping) or _logits(output) is None:
            kind = type(output).__name__
            raise ValueError(
                f"the student's output is a {kind} without logits by name: the teacher's part of "
                "the loss needs a ModelOutput or a dict with them; do not set return_dict=False"
            )
        autocast = call.autocast or _autocast(self.student)
        loss = self._loss(call.batch, output, call.scores, autocast)
        loss = loss * _share(call.batch.get("labels"), call.items, module)
        rest = {name: value for name, value in output.items() if name != "loss"}
        if not call.wants_hidden and self.distillation.hidden:
            rest.pop("hidden_states", None)
        whole = {"loss": loss, **rest}
        return whole if type(output) is dict else type(output)(**whole)

    def _close(self) -> _Call | None:
        call, self._call = self._call, None
        if call is not None:
            call.recording.close()
        return call

    # -------------------------------------------------------------------------- loss

    def loss(self, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> Tensor:
        """The whole loss, for a loop that would rather call a function than attach.

        Args:
            batch: What the student was called with, ``labels`` among it.
            outputs: What it returned: ``loss`` and ``logits``, and ``hidden_states`` if these are
                compared.

        Raises:
            ValueError: Attention scores are compared, which only :meth:`attach` can see; or
                something is missing from ``batch`` or ``outputs``.
        """
        if self._watch_attention:
            raise ValueError(
                "attention scores are not among a model's outputs: use attach(), which records "
                "them, or leave them out with attention=0"
            )
        return self._loss(dict(batch), outputs, [], _autocast(self.student))

    def _loss(
        self,
        batch: dict[str, Any],
        output: Mapping[str, Any],
        scores: list[Tensor],
        autocast: tuple[bool, torch.dtype],
    ) -> Tensor:
        asked, labels = self.distillation, batch.get("labels")
        ours = self._pick(output, scores, "student", range(1, len(self.match.layers) + 1))
        theirs = self._ask(batch, ours.logits, autocast)
        real = None if asked.padding else _real_tokens(batch, ours)
        terms: dict[str, tuple[float, Tensor]] = {}
        if asked.labels:
            own = output.get("loss")
            if own is None:
                raise ValueError(
                    "the batch has no labels and so the student has no loss of its own: give "
                    "labels, or leave them out with labels=0. A Trainer with "
                    "label_smoothing_factor or compute_loss_func takes the labels out and makes "
                    "its own loss, in which no teacher has a part: use neither"
                )
            terms["labels"] = asked.labels, own
        if asked.logits:
            terms["logits"] = asked.logits, self._logits_term(ours, theirs, labels, batch)
        if asked.hidden:
            _check_shapes(ours.hidden, theirs.hidden, "hidden states")
            terms["hidden"] = asked.hidden, losses.hidden_loss(ours.hidden, theirs.hidden, real)
        if asked.attention:
            _check_shapes(ours.attention, theirs.attention, "attention scores")
            terms["attention"] = (
                asked.attention,
                losses.attention_loss(ours.attention, theirs.attention, real),
            )
        self.terms = {name: term.detach() for name, (_, term) in terms.items()}
        weighted = [term if weight == 1 else weight * term for weight, term in terms.values()]
        return torch.stack([term.to(weighted[-1].dtype) for term in weighted]).sum()

    def _logits_term(
        self, ours: Answers, theirs: Answers, labels: Tensor | None, batch: dict[str, Any]
    ) -> Tensor:
        asked, config = self.distillation, config_of(self.student)
        _check_shapes([ours.logits], [theirs.logits], "logits")
        problem = getattr(config, "problem_type", None)
        if problem == "regression" or ours.logits.shape[-1] == 1:
            if asked.regression == "labels":
                if labels is None:
                    raise ValueError("distill.regression=labels: the batch has no labels")
                target = labels.to(ours.logits.dtype).view_as(ours.logits)
                return losses.logits_loss(ours.logits, target, "mse", 1.0)
            return losses.logits_loss(ours.logits, theirs.logits, "mse", 1.0)
        if problem == "multi_label_classification" and asked.logits_loss != "mse":
            raise ValueError(
                f"distill.logits_loss={asked.logits_loss} takes one class an example, and this "
                "model was made for several: use logits_loss=mse"
            )
        z_s, z_t, scale = ours.logits, theirs.logits, 1.0
        if ours.places:  # a choice among the tokens, padding not being one of them
            mask, blank = batch.get("attention_mask"), _NOT_A_PLACE
            if mask is not None:
                blank = 0.0 if asked.logits_loss == "mse" else blank
                padding = ~mask.bool()[..., None]
                z_s, z_t = z_s.masked_fill(padding, blank), z_t.masked_fill(padding, blank)
                if asked.logits_loss != "kl":  # a mean over places, where kl is a sum
                    scale = mask.numel() / mask.sum()
            z_s, z_t = z_s.mT.flatten(0, 1), z_t.mT.flatten(0, 1)
        elif z_s.ndim > 2:  # a class for each token: padding says nothing
            mask = batch.get("attention_mask")
            if mask is not None and mask.shape == z_s.shape[:2]:
                z_s, z_t = z_s[mask.bool()], z_t[mask.bool()]
            z_s, z_t = z_s.flatten(0, -2), z_t.flatten(0, -2)
        return scale * losses.logits_loss(z_s, z_t, asked.logits_loss, asked.temperature)

    def _pick(
        self, output: Mapping[str, Any], scores: list[Tensor], who: str, layers: Sequence[int]
    ) -> Answers:
        """The matched layers of what a model returned."""
        logits = _logits(output)
        assert logits is not None
        answers = Answers(logits, [], [], places="start_logits" in output)
        if not self.match.layers:
            return answers
        depth = int(config_of(self.student if who == "student" else self.teacher).num_hidden_layers)
        if self.distillation.hidden:
            states = output.get("hidden_states")
            if states is None or len(states) != depth + 1:
                found = "none" if states is None else str(len(states))
                raise ValueError(
                    f"the {who} has {depth} layers and returned {found} hidden states, where "
                    f"{depth + 1} were expected: leave them out with hidden=0"
                )
            answers.hidden = [states[0], *(states[layer] for layer in layers)]
        if self._watch_attention:
            if len(scores) != depth:
                raise ValueError(
                    "attention scores need attn_implementation='eager', with one softmax a layer; "
                    f"the {who} has {depth} layers and took {len(scores)}: load it so, or leave "
                    "them out with attention=0"
                )
            answers.attention = [scores[layer - 1] for layer in layers]
        return answers

    # ----------------------------------------------------------------------- teacher

    def _ask(
        self, batch: dict[str, Any], like: Tensor, autocast: tuple[bool, torch.dtype]
    ) -> Answers:
        """The teacher's answers to a batch, from the cache where it has them."""
        if self.cache is None:
            return self._run_teacher(batch, like.device, autocast)
        keys = self.cache.keys(self._for_teacher(batch), str(autocast[1]) if autocast[0] else "")
        if missing := [i for i, key in enumerate(keys) if key not in self.cache]:
            fresh = self._run_teacher(batch, like.device, autocast)
            self.cache.add(keys, missing, batch, fresh.logits, fresh.hidden, fresh.attention)
        # What is used is always what was stored first, so that a run goes the same way whether its
        # cache was full, empty or half full.
        return Answers(*self.cache.read(keys, batch, like.device))

    def _for_teacher(self, batch: dict[str, Any]) -> dict[str, Any]:
        given = {k: v for k, v in batch.items() if k not in _NOT_FOR_THE_TEACHER}
        # A DistilBERT has no place for the token types that a BERT was given.
        return {k: v for k, v in given.items() if k in self._accepts} or given

    @torch.no_grad()
    def _run_teacher(
        self, batch: dict[str, Any], device: torch.device, autocast: tuple[bool, torch.dtype]
    ) -> Answers:
        first = next(self.teacher.parameters(), None)
        if first is not None and first.device != device:
            self.teacher.to(device)
        given = self._for_teacher(batch)
        if self.distillation.hidden:
            given["output_hidden_states"] = True
        enabled, dtype = autocast
        scores: list[Tensor] = []
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(device.type, dtype=dtype, enabled=enabled))
            if self._watch_attention:
                scores = stack.enter_context(ScoreRecorder()).scores
            output = self.teacher(**given)
        if not isinstance(output, Mapping) or _logits(output) is None:
            raise ValueError(
                f"the teacher's output is a {type(output).__name__} without logits by name: it "
                "must return a ModelOutput or a dict with them"
            )
        return self._pick(output, scores, "teacher", self.match.layers)

    def _bind(self, cache: TeacherCache) -> None:
        asked = self.distillation
        if asked.teacher_dropout:
            raise ValueError("teacher_dropout=True answers anew each time: nothing to cache")
        if asked.padding and (asked.hidden or asked.attention):
            raise ValueError(
                "distill.padding=True compares padding too, whose states depend on the batch and "
                "are not kept: use padding=False, or no cache"
            )
        needs = {
            "hidden": [0, *self.match.layers] if asked.hidden else [],
            "attention": list(self.match.layers) if asked.attention else [],
        }
        cache.bind(fingerprint(self.teacher), needs)


def _refuse_writers(student: nn.Module) -> None:
    """A student that writes reads its labels as it goes; a teacher without them reads its input."""
    writes: Any = getattr(student, "can_generate", None)
    if getattr(config_of(student), "is_encoder_decoder", False) and writes and writes():
        raise ValueError(
            f"{type(student).__name__}: an encoder-decoder's words hang on those it has written so "
            "far, and a teacher is not asked for these yet: train it without a teacher"
        )


def _logits(output: Mapping[str, Any]) -> Tensor | None:
    """A model's logits; of one that finds answers both of each token, side by side."""
    if "start_logits" in output:
        return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
    found: Tensor | None = output.get("logits")
    return found


def _autocast(model: nn.Module) -> tuple[bool, torch.dtype]:
    parameter = next(model.parameters(), None)
    kind = parameter.device.type if parameter is not None else "cpu"
    return torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)


def _share(labels: Any, items: Any, model: nn.Module) -> Tensor | float:
    """This batch's share of an optimizer step's examples.

    A Trainer that accumulates hands its model ``num_items_in_batch``, the labels of all batches of
    the step, and adds up what comes back.
    """
    if items is None or not isinstance(labels, Tensor):
        return 1.0
    shifted = getattr(model, "loss_type", None) == "ForCausalLM"
    counted = labels[..., 1:] if shifted else labels
    share: Tensor = counted.ne(-100).sum() / items
    return share


def _real_tokens(batch: dict[str, Any], answers: Answers) -> Tensor | None:
    """[batch, tokens], 1 for real tokens; None where all are."""
    mask = batch.get("attention_mask")
    seen = answers.hidden or answers.attention
    if mask is None or not seen:
        return None
    expected = (seen[0].shape[0], seen[0].shape[-2])
    if tuple(mask.shape) != expected:
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}, not {expected}, so the padding is not "
            "known: count it too with padding=True"
        )
    return mask.to(seen[0].device)  # type: ignore[no-any-return]


def _check_shapes(ours: Sequence[Tensor], theirs: Sequence[Tensor], what: str) -> None:
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            raise ValueError(
                f"the student's {what} have shape {tuple(a.shape)} and the teacher's "
                f"{tuple(b.shape)}: they cannot be compared"
            )
