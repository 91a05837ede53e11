"""What of a model becomes a file: all of it, or of one that writes texts from texts its two halves.

The halves have the names and inputs of Optimum's: the encoder, and a decoder that is shown
all tokens so far. No graph keeps keys and values between calls.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from sentei.models.outputs import Inputs, outputs

MODEL, ENCODER, DECODER = "model", "encoder_model", "decoder_model"

ENCODED: Final = ("input_ids", "attention_mask")
"""What the first half reads."""

ROWS: Final = 2
"""Sequences that a graph is traced with: a single one would be taken for all that there ever is."""


@dataclass(frozen=True, eq=False)
class Graph:
    """What becomes one file.

    ``sample`` is a batch of its inputs, ``outputs`` the names of the tensors that it gives.
    """

    name: str
    module: nn.Module
    sample: Inputs
    outputs: tuple[str, ...]


class _Decoder(nn.Module):
    """The second half: what the encoder gave, and the tokens so far, to the next one's logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, encoder_hidden_states: Tensor, encoder_attention_mask: Tensor, input_ids: Tensor
    ) -> dict[str, Tensor]:
        output = self.model(
            attention_mask=encoder_attention_mask,
            decoder_input_ids=input_ids,
            encoder_outputs=BaseModelOutput(last_hidden_state=encoder_hidden_states),
        )
        return {"logits": output.logits}


def graphs(model: PreTrainedModel, inputs: Inputs) -> tuple[Graph, ...]:
    """The graphs of a model.

    Args:
        model: In evaluation; it keeps no cache while it is traced, see :func:`uncached`.
        inputs: A batch as :func:`complete` leaves it; its first two sequences are traced.
    """
    sample = {name: _two(value) for name, value in inputs.items()}
    if not in_halves(model):
        return (Graph(MODEL, model, sample, tuple(outputs(model, sample))),)
    texts = {name: sample[name] for name in ENCODED}
    encoder: Any = model.get_encoder()
    states = outputs(encoder, texts)["last_hidden_state"]
    tokens = decoder_inputs(states, sample)
    return (
        Graph(ENCODER, encoder, texts, ("last_hidden_state",)),
        Graph(DECODER, _Decoder(model), tokens, ("logits",)),
    )


def decoder_inputs(states: Tensor, inputs: Inputs) -> dict[str, Tensor]:
    """What the second half reads, of what the first gave and the inputs of the whole."""
    return {
        "encoder_hidden_states": states,
        "encoder_attention_mask": inputs["attention_mask"],
        "input_ids": inputs["decoder_input_ids"],
    }


def in_halves(model: PreTrainedModel) -> bool:
    """Whether a model writes texts from texts, so that its decoder runs once for each token."""
    return bool(model.config.is_encoder_decoder and model.can_generate())


def complete(model: PreTrainedModel, inputs: Inputs) -> dict[str, Tensor]:
    """Inputs with the mask that says there is no padding, where a model reads one and has none.

    Raises:
        ValueError: The model writes texts, and is not given the beginning of any.
    """
    batch = {name: value.contiguous() for name, value in inputs.items()}
    ids = batch.get("input_ids")
    if ids is not None and "attention_mask" in inspect.signature(model.forward).parameters:
        batch.setdefault("attention_mask", torch.ones_like(ids))
    if in_halves(model):
        if "decoder_input_ids" not in batch:
            raise ValueError(
                f"inputs: a {type(model).__name__} also reads decoder_input_ids; give them, such "
                "as model.prepare_decoder_input_ids_from_labels(labels)"
            )
    else:
        batch.pop("decoder_input_ids", None)  # a classifier makes them of the text
    return batch


@contextmanager
def uncached(model: PreTrainedModel) -> Iterator[None]:
    """No keys and values are kept while the block lasts: they are no tensors, and no output."""
    configs: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    caching = {id(one): one for one in configs if getattr(one, "use_cache", False)}
    try:
        for config in caching.values():
            config.use_cache = False
        yield
    finally:
        for config in caching.values():
            config.use_cache = True


def _two(value: Tensor) -> Tensor:
    return value[:ROWS] if len(value) >= ROWS else torch.cat([value] * ROWS)
