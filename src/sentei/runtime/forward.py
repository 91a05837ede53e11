"""The forward of a model without its head, run by the engine instead of by torch.

Heads, poolers, losses and classes of outputs stay the model's own.
"""

from __future__ import annotations

import copy
import inspect
import threading
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sentei.messages import SenteiWarning, did_you_mean
from sentei.runtime.encoder import Encoder, Unsupported
from sentei.runtime.inputs import check_request, pack
from sentei.runtime.reading import MODELS, Reading, read
from sentei.runtime.watch import Watch

if TYPE_CHECKING:
    from sentei.runtime.program import Program

Fallback = Literal["torch"]


@dataclass(frozen=True)
class Options:
    """How an engine is made."""

    precision: str = "auto"
    threads: int | None = None
    fallback: Fallback | None = None

    def __post_init__(self) -> None:
        if self.fallback not in (None, "torch"):
            hint = did_you_mean(str(self.fallback), ("torch",))
            raise ValueError(f"fallback={self.fallback!r}: give 'torch' or None{hint}")


@dataclass(frozen=True, eq=False)
class Built:
    """A program, and what it was made of."""

    program: Program
    reading: Reading
    """Without its blocks, which the program has taken in."""

    dtype: torch.dtype

    watch: Watch | None
    """None: the model no longer has the weights."""


class Forward:
    """What stands in a model's place for ``forward`` while the engine is under it.

    In training, and while torch traces or compiles, it is the model's own. In evaluation the engine
    runs. The program is made at the first call, and again where the weights have changed since.

    Args:
        base: The model without its head. It is not kept alive.
        prefix: What goes before the names of its weights.
        options: How the engine is made.
    """

    def __init__(self, base: PreTrainedModel, prefix: str, options: Options) -> None:
        self._base = weakref.ref(base)
        self.prefix, self.options = prefix, options
        self.active = True
        """Whether the engine runs: once taken out, other wrappers may still call this."""

        self.reason = ""
        """Why torch runs all of it, where it does."""

        own = type(base).forward
        self.__signature__ = _without_self(inspect.signature(own))
        self._names = tuple(self.__signature__.parameters)
        self._lock = threading.Lock()
        self._built: Built | None = None

    def __call__(self, *arguments: Any, **inputs: Any) -> Any:
        """As the model's own."""
        base: Any = self._base()
        if arguments and arguments[0] is base:
            arguments = arguments[1:]  # Accelerate binds whatever it unwraps to the model
        if base.training:
            self._expect_change()
        if base.training or not self.active or _traced():
            return type(base).forward(base, *arguments, **inputs)
        named = dict(zip(self._names, arguments, strict=False)) | inputs
        try:
            return self._run(base, named)
        except Unsupported:
            if self.options.fallback is None:
                raise
        return type(base).forward(base, **named)

    def __deepcopy__(self, memo: dict[int, Any]) -> Forward:
        base: Any = self._base()
        return Forward(copy.deepcopy(base, memo), self.prefix, self.options)

    def __reduce__(self) -> Any:
        return Forward, (self._base(), self.prefix, self.options)

    # ----------------------------------------------------------------------------- the program

    def start(self) -> Built | None:
        """Make the program, so that what cannot run is known now.

        Returns:
            The program; None where torch is to run the model instead, which is warned of.

        Raises:
            Unsupported: The engine cannot run the model, and no fallback was asked for.
        """
        try:
            return self._current()
        except Unsupported as error:
            if self.options.fallback is None:
                raise
            self.active, self.reason = False, str(error)
            warnings.warn(f"torch runs the model: {error}", SenteiWarning, stacklevel=3)
            return None

    def become(self, other: Forward) -> None:
        """Go on as another of the same model: others may have put wrappers around this one."""
        with self._lock:
            self.options, self._built = other.options, other._built
            self.active, self.reason = other.active, other.reason

    def release(self) -> None:
        """No longer look whether the weights changed: the model is about to lose them."""
        self._built = replace(self._current(), watch=None)

    def retire(self) -> None:
        """Let torch run the model from now on, and let go of the program."""
        self.active = False
        with self._lock:
            built, self._built = self._built, None
        if built is not None:
            built.program.close()

    def _expect_change(self) -> None:
        built = self._built
        if built is not None and built.watch is not None:
            built.watch.stale = True

    def _current(self) -> Built:
        built = self._built
        if built is not None and (built.watch is None or built.watch.same()):
            return built
        with self._lock:
            built = self._built
            if built is None or not (built.watch is None or built.watch.same()):
                # Another thread may still run the one before, which goes when nobody does.
                built = self._built = self._build()
        return built

    def _build(self) -> Built:
        base: Any = self._base()
        watch = Watch(base)
        reading = read(base, self.prefix)
        program = make_program(reading.encoder, self.options)
        light = replace(reading, encoder=replace(reading.encoder, layers=()))
        return Built(program, light, base.dtype, watch)

    # -------------------------------------------------------------------------------- one call

    @torch.no_grad()
    def _hidden(self, base: Any, built: Built, inputs: Mapping[str, Any]) -> Tensor:
        """The last hidden state."""
        tokens, packed = pack(base, built.reading, inputs)
        encoder = built.reading.encoder
        rows = tokens.batch * tokens.length
        make = torch.empty if tokens.kept is None else torch.zeros
        out = make((rows, encoder.hidden))
        if len(packed.out):
            built.program.run(packed, out.numpy())
        return out.view(tokens.batch, tokens.length, encoder.hidden).to(built.dtype)

    def _run(self, base: Any, inputs: Mapping[str, Any]) -> Any:
        built = self._current()
        check_request(base.config, inputs)
        hidden = self._hidden(base, built, inputs)
        if torch.is_grad_enabled():
            hidden = _guarded(hidden, base, inputs)
        return _output(base, hidden, inputs.get("return_dict"))


def make_program(encoder: Encoder, options: Options) -> Program:
    """What runs an encoder.

    Raises:
        Unsupported: This machine cannot, or what the engine compiles with is not installed.
    """
    try:
        from sentei.runtime.program import Program

        return Program(encoder, options.precision, options.threads)
    except ImportError as error:
        raise Unsupported(
            f"the engine compiles with llvmlite, which cannot be imported ({error}): "
            "pip install 'sentei[runtime]'"
        ) from error


def _without_self(signature: inspect.Signature) -> inspect.Signature:
    first, *rest = signature.parameters.values()
    del first
    return signature.replace(parameters=rest)


def _traced() -> bool:
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


# -------------------------------------------------------------------------------- what comes out


def _output(base: Any, hidden: Tensor, return_dict: bool | None) -> Any:
    """As the model's own forward returns it."""
    config = base.config
    pooler = getattr(base, "pooler", None)
    pooled = None if pooler is None else pooler(hidden)
    if return_dict is None:
        return_dict = getattr(config, "return_dict", True)
    if not return_dict and config.model_type == "mpnet":
        return hidden, pooled  # its tuple keeps what is None
    kind: Any = MODELS[config.model_type].output
    named = {"pooler_output": pooled} if "pooler_output" in kind.__dataclass_fields__ else {}
    output = kind(last_hidden_state=hidden, **named)
    return output if return_dict else output.to_tuple()


def _guarded(hidden: Tensor, base: Any, inputs: Mapping[str, Any]) -> Tensor:
    """A hidden state that no gradient flows through unseen."""
    embeds = inputs.get("inputs_embeds")
    if embeds is not None and embeds.requires_grad:
        anchor = embeds
    else:
        anchor = next((one for one in base.parameters() if one.requires_grad), None)
    return hidden if anchor is None else _NoGradient.apply(hidden, anchor)  # type: ignore[no-untyped-call]


class _NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, anchor: Tensor) -> Tensor:
        del ctx, anchor
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        del ctx, gradients
        raise ValueError(
            "the engine computes no gradients: call model.train() before training, or "
            "sentei.runtime.uninstall(model)"
        )
