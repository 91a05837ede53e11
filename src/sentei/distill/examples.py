"""A batch as its examples: a key for each, and its tensors without the padding around them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sentei.distill.outputs import Outputs

Tensors = dict[str, NDArray[Any]]
"""By the names of :data:`AXES`; those of a whole batch have examples as their second axis."""

AXES = {
    "logits": ("layers", "classes"),
    "token_logits": ("layers", "tokens", "classes"),
    "hidden": ("layers", "tokens", "width"),
    "attention": ("layers", "heads", "tokens", "tokens"),
}
"""Of an example's tensors. Logits are of one layer."""

_INPUTS = ("input_ids", "token_type_ids", "attention_mask")


class Example(NamedTuple):
    """One row of a batch: a hash of what a model reads there, and its tokens among the padding."""

    key: bytes
    tokens: slice

    def shape(self, name: str, layers: int) -> tuple[int, ...]:
        """The shape of its tensor of that name, without padding; -1 for the unknown axis."""
        sizes = {"layers": layers, "tokens": self.tokens.stop - self.tokens.start}
        return tuple(sizes.get(axis, -1) for axis in AXES[name])

    def without_padding(self, name: str, tensor: NDArray[Any]) -> NDArray[Any]:
        """A view of its row of a batch's tensor of that name."""
        index = (self.tokens if axis == "tokens" else slice(None) for axis in AXES[name])
        return tensor[tuple(index)]


def examples_of(inputs: Mapping[str, Any], precision: str) -> list[Example]:
    """The rows of a batch. Their keys do not know the padding around them, nor the other rows.

    Args:
        inputs: What the model reads.
        precision: What it computes in; a part of the keys.

    Raises:
        ValueError: It reads something else than tokens.
    """
    inputs = {name: tensor for name, tensor in inputs.items() if tensor is not None}
    if others := inputs.keys() - set(_INPUTS):
        raise ValueError(
            f"the batch holds {', '.join(sorted(others))}: a teacher's cache knows examples by "
            "their input_ids and token_type_ids; train without a cache"
        )
    inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
    columns = {name: tensor.cpu().numpy().astype("<i8") for name, tensor in inputs.items()}
    examples = []
    for row, mask in enumerate(columns["attention_mask"]):
        real = np.flatnonzero(mask)
        tokens = slice(real[0], real[-1] + 1) if len(real) else slice(0, 1)
        digest = hashlib.blake2b(precision.encode(), digest_size=16)
        for name in _INPUTS:
            if name in columns:
                digest.update(name.encode() + columns[name][row, tokens].tobytes())
        examples.append(Example(digest.digest(), tokens))
    return examples


def to_arrays(outputs: Outputs) -> Tensors:
    """Tensors of a whole batch, in float32."""
    stacks = {"token_logits" if outputs.logits.ndim > 2 else "logits": outputs.logits[None]}
    for name, tensors in (("hidden", outputs.hidden), ("attention", outputs.attention)):
        if tensors:
            stacks[name] = torch.stack([*tensors])
    return {name: stack.float().cpu().numpy() for name, stack in stacks.items()}


def to_outputs(batch: Tensors, device: torch.device) -> Outputs:
    """The other way round."""
    stacks = {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
    (logits,) = stacks["token_logits" if "token_logits" in stacks else "logits"]
    return Outputs(logits, list(stacks.get("hidden", ())), list(stacks.get("attention", ())))


def cut(example: Example, row: int, batch: Tensors) -> Tensors:
    """An example's tensors, without padding, out of a row of a batch."""
    return {name: example.without_padding(name, array[:, row]) for name, array in batch.items()}


def pad(examples: Sequence[Example], tensors: Mapping[bytes, Tensors], width: int) -> Tensors:
    """A batch that is ``width`` tokens wide of examples' tensors by key; 0 where padding is."""
    batch = {}
    for name, like in tensors[examples[0].key].items():
        layers, *sizes = (
            width if axis == "tokens" else size
            for axis, size in zip(AXES[name], like.shape, strict=True)
        )
        batch[name] = np.zeros((layers, len(examples), *sizes), np.float32)
        for row, example in enumerate(examples):
            example.without_padding(name, batch[name][:, row])[...] = tensors[example.key][name]
    return batch
