"""The engine under a model that stays where it is."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from sentei.messages import listing
from sentei.modules import unwrapped
from sentei.runtime.encoder import Unsupported
from sentei.runtime.forward import Fallback, Forward, Options
from sentei.runtime.reading import prefix_of


def install(
    model: nn.Module,
    precision: str = "auto",
    threads: int | None = None,
    fallback: Fallback | None = None,
) -> None:
    """Put the engine under a model's own ``forward``: whatever calls the model then runs on it.

    In evaluation (``model.eval()``) the encoder runs in the engine; embeddings that are more than
    tables, the pooler, the head and the loss stay the model's own. In training all of it is the
    model's own. Where weights have changed since the last call in evaluation, as by an optimizer or
    ``load_state_dict``, the engine is made anew; of changes of ``parameter.data`` in place torch
    keeps no count: call this again after such.

    Hidden states of masked tokens are zeros. Hooks on modules inside the encoder do not run, and no
    gradient flows through it: ``backward`` says so. A copy of the model, or a pickle, has an engine
    of its own.

    Args:
        model: A model of transformers, or one around it, such as a ``SentenceTransformer``. An
            engine that is under it already is replaced.
        precision: ``fp32``, ``bf16``, ``int8``, or ``auto`` for the fastest that the CPU has.
        threads: Threads of one call, at most; by default the cores that the process may use.
        fallback: ``torch`` to have torch run what the engine cannot: the model, with a warning, or
            single calls, such as with ``output_attentions=True``. None raises instead.

    Raises:
        Unsupported: The engine cannot run the model on this machine, and ``fallback`` is None.
        ValueError: There is not one model of transformers inside.
    """
    inside = transformer_in(model)
    base: Any = inside.base_model
    forward = Forward(base, prefix_of(inside), Options(precision, threads, fallback))
    before = installed(model)
    if before is None and "forward" in vars(base):
        raise Unsupported(
            f"the forward of this {type(base).__name__} was replaced already, by "
            f"{vars(base)['forward']!r}: install the engine first"
        )
    forward.start()
    if before is not None:
        before.become(forward)
    else:
        vars(base)["forward"] = forward


def uninstall(model: nn.Module) -> None:
    """Take the engine out from under a model: its ``forward`` is its own again.

    Raises:
        ValueError: There is none.
    """
    base = transformer_in(model).base_model
    forward = installed(model)
    if forward is None:
        raise ValueError(f"no engine is under this {type(model).__name__}: install one first")
    forward.retire()
    if vars(base).get("forward") is forward:
        del vars(base)["forward"]


def installed(model: nn.Module) -> Forward | None:
    """The engine's forward that is under a model, if there is one."""
    forward = vars(transformer_in(model).base_model).get("forward")
    while forward is not None and not isinstance(forward, Forward):
        # Accelerate puts its casts around the forward that it finds
        forward = getattr(forward, "__wrapped__", None)
    return forward


def transformer_in(model: nn.Module) -> PreTrainedModel:
    """The model of transformers that another is, wraps or holds.

    Raises:
        ValueError: There is none, or there are several.
    """
    found = _outermost(unwrapped(model))
    if len(found) != 1:
        kinds = f": {listing(type(one).__name__ for one in found)}" if found else ""
        raise ValueError(
            f"a {type(model).__name__} holds {len(found)} models of transformers{kinds}; give the "
            "one that the engine is to run"
        )
    return found[0]


def _outermost(module: nn.Module) -> list[PreTrainedModel]:
    if isinstance(module, PreTrainedModel):
        return [module]
    return [one for child in module.children() for one in _outermost(child)]
