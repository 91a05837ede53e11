"""A teacher's part in the loss, put into ``outputs.loss`` at the student's own forward hooks.

    student(**batch)    before   hidden states are asked for, attention recorded
                        after    the teacher reads the same batch; outputs.loss = the whole loss

A loop that takes its loss from the model's outputs needs no change: the Trainer, Accelerate, your
own. Only a student in training mode is touched, so evaluation measures the task alone.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sentei.distill.cache import TeacherCache
from sentei.distill.layers import Match, implementation, match
from sentei.distill.losses import labels_term, loss_terms, share, weighted_sum
from sentei.distill.outputs import answers_of, select
from sentei.distill.recorder import AttentionRecorder
from sentei.distill.teacher import Autocast, FrozenTeacher
from sentei.messages import SenteiWarning
from sentei.modules import config_of, progress_of, teaching, unwrapped
from sentei.parts.distillation import Distillation


@dataclass
class _Call:
    """One forward of the student that is under way.

    ``returns_hidden`` says that the caller wants hidden states himself; ``items`` is the number
    of labels in the optimizer's step, where a Trainer tells it. ``distillation`` has the weights
    that hold now.
    """

    distillation: Distillation
    batch: dict[str, Any]
    items: Any
    returns_hidden: bool
    attention: list[Tensor]
    recording: ExitStack
    autocast: Autocast | None = None


class Distiller:
    """Lets a student learn from a teacher while somebody else trains it.

    Args:
        student: The model being trained.
        teacher: The model to learn from; put into eval mode and frozen. It does not become a part
            of the student.
        distillation: The terms of the loss and their weights.
        cache: Where the teacher's outputs are kept, so that each example asks it once.
        progress: Gives the fraction of training that is done, in [0, 1], to a teacher that fades.
            None asks the pruner that is attached to the student.

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
        progress: Callable[[], float] | None = None,
    ) -> None:
        self.student = unwrapped(student)
        self.teacher = unwrapped(teacher)
        weights = {id(p) for p in self.student.parameters()}
        if any(id(p) in weights for p in self.teacher.parameters()):
            raise ValueError(
                "the teacher shares weights with the student and would change with it: "
                "give it a copy, copy.deepcopy(model)"
            )
        _refuse_writers(self.student)
        self.match: Match = match(self.student, self.teacher, distillation or Distillation())
        self.distillation = self.match.distillation
        self.cache = cache
        self.terms: dict[str, Tensor] = {}
        """The terms of the last loss, before their weights: labels, logits, hidden, attention."""
        self._progress = progress
        self._teacher = FrozenTeacher(self.teacher, self.match, cache)
        self._hooks: list[RemovableHandle] = []
        self._call: _Call | None = None
        self._implementations: list[tuple[Any, str]] = []

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
        self._take_over()
        self._teacher.open()
        if self.distillation.attention:
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

    def _take_over(self) -> None:
        """Detach a distiller that a training before has left on the student: terms would add up."""
        for hook in [*self.student._forward_hooks.values()]:
            other = getattr(hook, "__self__", None)
            if isinstance(other, Distiller):
                other.detach()
                warnings.warn(
                    "another distiller was attached to this student and is detached: the last that "
                    "is attached teaches",
                    SenteiWarning,
                    stacklevel=3,
                )

    def detach(self) -> None:
        """Leave the student as it was before."""
        self._close()
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for change, kind in self._implementations:
            change(kind)
        self._implementations = []
        self._teacher.close()

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
        # this number differs from class to class, and `share` does the same for every term.
        items = batch.pop("num_items_in_batch", None)
        inputs = dict(batch)
        returns_hidden = bool(inputs.get("output_hidden_states"))
        now = self._now()
        if now.hidden:
            inputs["output_hidden_states"] = True
        attention: list[Tensor] = []
        recording = ExitStack()
        if now.attention:
            self._check_checkpointing()
            recorder = AttentionRecorder(now.attention_of)
            attention = recording.enter_context(recorder).attention
        self._call = _Call(now, batch, items, returns_hidden, attention, recording)
        return (), inputs

    def _within(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._call is not None and self._call.autocast is None:
            self._call.autocast = Autocast.around(self.student)

    @teaching
    def _after(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        call = self._close()
        if call is None or output is None:  # not training, or the forward failed
            return None
        if answers_of(output, self.distillation) is None:
            kind = type(output).__name__
            raise ValueError(
                f"the student's output is a {kind} without logits by name: the teacher's part of "
                "the loss needs a ModelOutput or a dict with them; do not set return_dict=False"
            )
        autocast = call.autocast or Autocast.around(self.student)
        loss = self._loss(call.distillation, call.batch, output, call.attention, autocast)
        loss_type = getattr(module, "loss_type", None)
        loss = loss * share(call.batch.get("labels"), call.items, loss_type)
        rest = {name: value for name, value in output.items() if name != "loss"}
        if not call.returns_hidden and call.distillation.hidden:
            rest.pop("hidden_states", None)
        whole = {"loss": loss, **rest}
        if type(output) is dict:
            return whole
        if "loss" in getattr(output, "__dataclass_fields__", ("loss",)):
            return type(output)(**whole)
        headless = type(output)(**rest)  # its class has no place for a loss
        headless["loss"] = loss
        return headless

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
            ValueError: Attention scores are compared, which only :meth:`attach` can see; something
                is missing from ``batch`` or ``outputs``; or the teacher fades, and nobody says how
                much of training is done.
        """
        if self.distillation.attention:
            raise ValueError(
                "attention scores are not among a model's outputs: use attach(), which records "
                "them, or leave them out with attention=0"
            )
        return self._loss(self._now(), batch, outputs, [], Autocast.around(self.student))

    def _now(self) -> Distillation:
        """With the weights that hold at this point of training."""
        if self.distillation.fade is None:
            return self.distillation
        progress = self._progress() if self._progress else progress_of(self.student)
        if progress is None:
            raise ValueError(
                f"distill.fade={self.distillation.fade}: the teacher fades as training goes on, "
                "and nobody says how far it is: attach a pruner to the student first, give "
                "Distiller(progress=...), or keep the teacher to the end with fade=None"
            )
        return self.distillation.at(progress)

    def _loss(
        self,
        now: Distillation,
        batch: Mapping[str, Any],
        output: Mapping[str, Any],
        recorded: list[Tensor],
        autocast: Autocast,
    ) -> Tensor:
        own = output.get("loss")
        if now.asks:
            layers = range(1, len(self.match.layers) + 1)
            student = select(output, recorded, layers, now, self.student, "student")
            teacher = self._teacher.outputs(batch, student.logits.device, autocast)
            problem = getattr(config_of(self.student), "problem_type", None)
            terms = loss_terms(now, student, teacher, batch, own, problem)
        else:
            terms = {"labels": labels_term(own)}
        self.terms = {name: term.detach() for name, term in terms.items()}
        return weighted_sum(terms, now)


def _refuse_writers(student: nn.Module) -> None:
    """A student that writes reads its labels as it goes; a teacher without them reads its input."""
    writes: Any = getattr(student, "can_generate", None)
    if getattr(config_of(student), "is_encoder_decoder", False) and writes and writes():
        raise ValueError(
            f"{type(student).__name__}: an encoder-decoder's words hang on those it has written so "
            "far, and a teacher is not asked for these yet: train it without a teacher"
        )
