"""What a model returns on a batch: its logits, and the layers in which two models are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sentei.modules import config_of
from sentei.parts.distillation import Distillation
from sentei.sharded import joined


@dataclass(frozen=True)
class Outputs:
    """Logits, and a tensor of hidden states and one of attention for each matched layer.

    ``logits`` are [examples, classes] or [examples, tokens, classes]; ``hidden`` are [examples,
    tokens, width], the embedding output first; ``attention`` are scores or probabilities [examples,
    heads, query, key]. ``spans`` says that the two logits of a token are for the first and for the
    last of a span.
    """

    logits: Tensor
    hidden: Sequence[Tensor] = ()
    attention: Sequence[Tensor] = ()
    spans: bool = False


def logits_of(output: Any) -> Tensor | None:
    """The logits of a model's output; of one that finds spans both of each token, side by side.

    None if it has none by name.
    """
    if not isinstance(output, Mapping):
        return None
    if "start_logits" in output:
        return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
    logits: Tensor | None = output.get("logits")
    return logits


def answers_of(output: Any, distillation: Distillation) -> Tensor | None:
    """Its logits; of a model without a head, where no loss looks at these, its last hidden state.

    None if it has neither by name.
    """
    logits = logits_of(output)
    if logits is None and not distillation.logits and isinstance(output, Mapping):
        return output.get("last_hidden_state")
    return logits


def select(
    output: Mapping[str, Any],
    recorded: Sequence[Tensor],
    layers: Sequence[int],
    distillation: Distillation,
    model: nn.Module,
    who: str,
) -> Outputs:
    """Logits and the layers that a distillation compares, out of what a model returned.

    Args:
        output: With logits by name, and with hidden states where these are compared.
        recorded: Scores or probabilities of every attention, where these are compared.
        layers: Of the model, from 1; empty where no loss looks into it.
        distillation: Says what is compared.
        model: It, whose config knows its depth.
        who: ``student`` or ``teacher``.

    Raises:
        ValueError: It returned another number of hidden states or scores than it has layers.
    """
    logits = answers_of(output, distillation)
    assert logits is not None
    hidden: list[Tensor] = []
    attention: list[Tensor] = []
    depth = int(config_of(model).num_hidden_layers) if layers else 0
    if layers and distillation.hidden:
        states = output.get("hidden_states")
        if states is None or len(states) != depth + 1:
            number = "none" if states is None else str(len(states))
            raise ValueError(
                f"the {who} has {depth} layers and returned {number} hidden states, where "
                f"{depth + 1} were expected: leave them out with hidden=0"
            )
        hidden = [states[0], *(states[layer] for layer in layers)]
    if layers and distillation.attention:
        if len(recorded) != depth:
            raise ValueError(
                "attention scores need attn_implementation='eager', with one softmax a layer; "
                f"the {who} has {depth} layers and took {len(recorded)}: load it so, or leave "
                "them out with attention=0"
            )
        heads = getattr(config_of(model), "num_attention_heads", None)
        attention = [recorded[layer - 1] for layer in layers]
        if heads is not None:  # of which this process may have some
            attention = [joined(one, 1, heads, model.parameters()) for one in attention]
    return Outputs(logits, hidden, attention, spans="start_logits" in output)
