"""What a model takes: how many tokens, and a batch to try it with."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def example(model: PreTrainedModel, batch: int, length: int) -> dict[str, Tensor]:
    """Random inputs that a model takes.

    Raises:
        ValueError: It takes no sequences of that length.
    """
    config = model.config
    if model.main_input_name == "pixel_values":
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (batch, config.num_channels, height, width)
        return {"pixel_values": torch.rand(shape, device=model.device, dtype=model.dtype)}
    limit = positions(model)
    if limit is not None and length > limit:
        raise ValueError(f"length {length}: the model takes at most {limit} tokens")
    ids = torch.randint(config.vocab_size, (batch, length), device=model.device)
    end = getattr(config, "eos_token_id", None)
    if isinstance(end, int):
        # Classifiers of encoder-decoders read the state at the end of the text: one for each.
        ids[ids == end] = (end + 1) % config.vocab_size
        ids[:, -1] = end
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        inputs["decoder_input_ids"] = ids
    return inputs


_POSITIONS = ("position_embeddings", "embed_positions", "wpe")
"""What models call their embeddings of positions."""


def positions(model: PreTrainedModel) -> int | None:
    """Tokens that a model has embeddings of positions for; None where it has no table of them.

    RoBERTa and its kin leave the first to padding, BART an offset.
    """
    for name, table in model.named_modules():
        if isinstance(table, nn.Embedding) and name.endswith(_POSITIONS):
            skipped = 0 if table.padding_idx is None else table.padding_idx + 1
            return table.num_embeddings - int(getattr(table, "offset", skipped))
    return None


def tables(model: PreTrainedModel) -> dict[str, int]:
    """How many rows a model's tables of embeddings have, by the input that is looked up in each."""
    rows = dict[str, int]()
    for name, table in model.named_modules():
        if isinstance(table, nn.Embedding) and name.endswith("token_type_embeddings"):
            rows["token_type_ids"] = table.num_embeddings
    embeddings = model.get_input_embeddings()
    if isinstance(embeddings, nn.Embedding):
        rows["input_ids"] = embeddings.num_embeddings
    return rows
