"""What engines are timed on: batches of one size, of one length or of the lengths of real texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sentei.models.inputs import example, positions
from sentei.models.outputs import Inputs
from sentei.records import WorkloadRecord

DATA, SORTED, IMAGE = "data", "sorted", "image"
"""Lengths that are no number: those of texts as they come, the same sorted, and of images."""

USUAL_LENGTH: Final = 128

SEQUENCES: Final = 32
"""Texts, at least, in a workload with the lengths of real ones."""


class Examples(Protocol):
    """Examples made ready for a model, one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Texts:
    """Real inputs: examples, what makes a batch of some, and the names of the model's inputs."""

    examples: Examples
    collate: Callable[[list[Any]], Mapping[str, Tensor]]
    names: tuple[str, ...]

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The inputs of some examples, padded to the longest."""
        batch = self.collate([self.examples[i % len(self.examples)] for i in indices])
        return {name: batch[name].contiguous() for name in self.names if name in batch}

    def spread(self, count: int) -> list[int]:
        """Indices of so many examples, evenly over all and in their order."""
        return [i * len(self.examples) // count for i in range(count)]


@dataclass(frozen=True)
class Workload:
    """Some forward passes of one size of batch."""

    batch: int
    length: str
    passes: tuple[Inputs, ...]

    @property
    def sequences(self) -> int:
        """Of all passes."""
        return sum(len(next(iter(inputs.values()))) for inputs in self.passes)

    @property
    def record(self) -> WorkloadRecord:
        """Its facts."""
        masks = [one["attention_mask"] for one in self.passes if "attention_mask" in one]
        return WorkloadRecord(
            batch=self.batch,
            length=self.length,
            sequences=self.sequences,
            tokens=sum(int(mask.sum()) for mask in masks),
            padded=sum(mask.numel() for mask in masks),
        )


def workloads(
    model: PreTrainedModel, texts: Texts | None, batches: Sequence[int], lengths: Sequence[str]
) -> list[Workload]:
    """Every size of batch at every length.

    Args:
        model: What reads them.
        texts: Real ones; None where there are none, and inputs are drawn.
        batches: Sequences in a batch.
        lengths: Tokens of each, ``data`` or ``sorted``; of none the usual ones.

    Raises:
        ValueError: A length is none, is more than the model takes, or needs texts.
    """
    if model.main_input_name == "pixel_values":
        if lengths:
            raise ValueError(f"--length {lengths[0]}: images have one size; leave the option out")
        return [Workload(batch, IMAGE, (images(model, texts, batch),)) for batch in batches]
    lengths = lengths or usual_lengths(model, texts)
    return [_workload(model, texts, batch, length) for length in lengths for batch in batches]


def usual_lengths(model: PreTrainedModel, texts: Texts | None) -> list[str]:
    """128 tokens or what the model takes, and the lengths of the texts if there are any."""
    most = min(USUAL_LENGTH, positions(model) or USUAL_LENGTH)
    return [str(most), *([DATA] if texts else [])]


def images(model: PreTrainedModel, texts: Texts | None, batch: int) -> Inputs:
    """Real ones, or noise."""
    return texts.batch(range(batch)) if texts else example(model, batch, 0)


def sequences(model: PreTrainedModel, texts: Texts | None, batch: int, length: int) -> Inputs:
    """Sequences of one length without padding: texts end to end, or random tokens.

    Raises:
        ValueError: The model takes no sequences of that length.
    """
    inputs = example(model, batch, length)
    if texts is None:
        return inputs
    rows = [_stream(texts.examples, start, length) for start in texts.spread(batch)]
    inputs["input_ids"] = torch.tensor(rows)
    return {
        name: inputs[name] if name in inputs else torch.zeros_like(inputs["input_ids"])
        for name in texts.names
    }


def _workload(model: PreTrainedModel, texts: Texts | None, batch: int, length: str) -> Workload:
    if length.isdigit() and int(length) > 0:
        return Workload(batch, length, (sequences(model, texts, batch, int(length)),))
    if length not in (DATA, SORTED):
        raise ValueError(f"--length {length}: give a number of tokens, {DATA} or {SORTED}")
    if texts is None:
        raise ValueError(
            f"--length {length}: there are no texts; give the folder of a run, or name data with "
            "--task or --eval"
        )
    count = -(-max(SEQUENCES, batch) // batch) * batch
    order = texts.spread(count)
    if length == SORTED:
        order.sort(key=lambda i: len(texts.examples[i]["input_ids"]))
    cuts = range(0, count, batch)
    return Workload(batch, length, tuple(texts.batch(order[at : at + batch]) for at in cuts))


def _stream(examples: Examples, start: int, length: int) -> list[int]:
    """Tokens of examples end to end."""
    ids: list[int] = []
    while len(ids) < length:
        ids += [*examples[start % len(examples)]["input_ids"]]
        start += 1
    return ids[:length]
