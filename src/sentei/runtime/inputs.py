"""What a model is called with, as the core takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from sentei.runtime.encoder import Array, Unsupported
from sentei.runtime.packed import Packed, Tokens, choose
from sentei.runtime.reading import Reading

_OUTPUTS: Final = ("output_attentions", "output_hidden_states")
_OTHERS: Final = ("past_key_values", "encoder_hidden_states", "encoder_attention_mask", "is_causal")


def check_request(config: Any, inputs: Mapping[str, Any]) -> None:
    """Refuse what an encoder's last hidden state does not answer.

    Raises:
        Unsupported: Attentions or other hidden states are asked for, or what a decoder takes is
            given.
    """
    for name in _OUTPUTS:
        value = inputs.get(name)
        if getattr(config, name, False) if value is None else value:
            raise Unsupported(
                f"{name}: the engine gives the last hidden state alone; give fallback='torch' to "
                "have torch run such calls"
            )
    for name in _OTHERS:
        value = inputs.get(name)
        if value is not None and value is not False:
            raise Unsupported(f"{name}: the engine runs encoders, which take none")


def pack(base: Any, reading: Reading, inputs: Mapping[str, Any]) -> tuple[Tokens, Packed]:
    """The tokens of a call that are computed, with their ids or their embeddings.

    Raises:
        Unsupported: An input is on another device, or a mask says more than which tokens count.
        ValueError: Ids out of range, too many tokens, inputs that do not fit each other.
    """
    mask = _flags(inputs.get("attention_mask"))
    if reading.lookup is None:
        return _pack_image(base, inputs, mask)
    ids, embeds = inputs.get("input_ids"), inputs.get("inputs_embeds")
    if (ids is None) == (embeds is None):
        raise ValueError("give input_ids or inputs_embeds, one of them")
    words = _numbers(ids, "input_ids")
    shape = tuple(embeds.shape[:-1] if words is None else words.shape)  # type: ignore[union-attr]
    if len(shape) != 2:
        raise ValueError(f"inputs of shape {shape}: the engine takes (batch, tokens)")
    tokens = choose(*shape, mask, ordered=reading.encoder.relative is not None)
    _check_reach(reading.encoder.relative, tokens)
    types = _numbers(inputs.get("token_type_ids"), "token_type_ids")
    positions = _numbers(inputs.get("position_ids"), "position_ids")
    found = reading.lookup.ids(words, tokens, types, positions)
    if words is not None and reading.encoder.embeddings is not None:
        return tokens, tokens.packed(found, None)
    named: dict[str, Tensor | None] = {}
    if words is None:
        named |= {"input_ids": None, "inputs_embeds": _taken(embeds, tokens)}
        found = (np.zeros(0), *found)
    else:
        named["input_ids"] = _row(found[0])
    named["position_ids"] = _row(found[1])
    if len(found) > 2:
        named["token_type_ids"] = _row(found[2])
    embedded = base.embeddings(**named)
    if hasattr(base, "embeddings_project"):
        embedded = base.embeddings_project(embedded)
    return tokens, tokens.packed(None, _rows(embedded[0]))


def _taken(embeds: Any, tokens: Tokens) -> Tensor:
    """Of given embeddings those of the tokens that are computed, as one sequence."""
    _check_device(embeds, "inputs_embeds")
    every: Tensor = embeds.reshape(-1, embeds.shape[-1])
    return (every if tokens.kept is None else every[torch.from_numpy(tokens.kept)])[None]


def _pack_image(base: Any, inputs: Mapping[str, Any], mask: Array | None) -> tuple[Tokens, Packed]:
    pixels = inputs.get("pixel_values")
    if pixels is None:
        raise ValueError("give pixel_values")
    _check_device(pixels, "pixel_values")
    options = {
        name: inputs[name]
        for name in ("bool_masked_pos", "interpolate_pos_encoding")
        if inputs.get(name) is not None
    }
    embedded = base.embeddings(pixels.to(base.dtype), **options)
    batch, length, hidden = embedded.shape
    tokens = choose(batch, length, mask)
    return tokens, tokens.packed(None, tokens.take(_rows(embedded.reshape(-1, hidden))))


def _check_reach(relative: Array | None, tokens: Tokens) -> None:
    if relative is None:
        return
    longest = tokens.length if tokens.lengths is None else int(tokens.lengths.max())
    if longest > (most := relative.shape[1] // 2 + 1):
        raise ValueError(
            f"{longest} tokens: the model has positions for {most}; cut the texts, such as with "
            "truncation=True"
        )


def _check_device(tensor: Tensor, name: str) -> None:
    if tensor.device.type != "cpu":
        raise Unsupported(f"{name} is on {tensor.device}: the engine runs on the CPU")


def _numbers(values: Any, name: str) -> Array | None:
    if values is None:
        return None
    if isinstance(values, Tensor):
        _check_device(values, name)
        values = values.detach().numpy()
    array: Array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} of {array.dtype}: give whole numbers")
    return array


def _flags(mask: Any) -> Array | None:
    """A mask, of whatever type, as numpy can read it."""
    if isinstance(mask, Tensor):
        _check_device(mask, "attention_mask")
        mask = (mask if mask.dtype in (torch.int64, torch.bool) else mask != 0).numpy()
    elif mask is not None:
        mask = np.asarray(mask)
    return mask  # type: ignore[no-any-return]


def _row(ids: Array) -> Tensor:
    return torch.from_numpy(np.array(ids))[None]


def _rows(embedded: Tensor) -> Array:
    """Embeddings as the core takes them.

    Raises:
        Unsupported: They are not finite.
    """
    rows: Array = embedded.to(torch.float32).contiguous().numpy()
    with np.errstate(all="ignore"):
        suspicious = not np.isfinite(rows.sum())
    if suspicious and not np.isfinite(rows).all():
        raise Unsupported("the embeddings of this batch hold NaN or infinity: look at its inputs")
    return rows
