"""A model's folder made smaller: what contributes nothing is taken out, and what that came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sentei import shrink
from sentei._version import VERSION
from sentei.files import replacing
from sentei.messages import counted
from sentei.models.card import mark_shrunk
from sentei.models.folder import check_free, copy_around, load, save, transformer_folder
from sentei.models.loading import load_tokenizer
from sentei.models.pretrained import check_writable, load_config, stored_dtype
from sentei.run.vocabulary import Texts
from sentei.shrink import LatencyRecord, ShrinkReport, VocabularyReport


@dataclass(frozen=True)
class Smaller:
    """What was removed from a model.

    ``vocabulary`` is None where no texts were given, ``latency`` where nothing was timed, ``out``
    where nothing was written.
    """

    report: ShrinkReport
    vocabulary: VocabularyReport | None
    latency: LatencyRecord | None
    out: Path | None

    @property
    def removed(self) -> bool:
        """Whether anything was."""
        return bool(self.report.removed or (self.vocabulary and self.vocabulary.removed))


def locate(folder: Path) -> Path:
    """The model of a run's folder, or the folder itself.

    Raises:
        ValueError: There is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    return folder / "model" if (folder / "model" / "config.json").is_file() else folder


def shrink_folder(
    folder: Path,
    out: Path | None,
    *,
    stock: bool,
    length: int,
    batch: int | None,
    texts: Texts | None,
    least: int,
    trust_remote_code: bool = False,
) -> Smaller:
    """Take out of a model what contributes nothing; where that is nothing, write nothing.

    Args:
        folder: Of the model.
        out: Folder to write to; None writes nothing.
        stock: Whether plain ``from_pretrained`` is to load the result.
        length: Tokens of the sequences that are counted and timed.
        batch: Sequences in a timed forward pass; None times nothing.
        texts: What the vocabulary is cut down to; None leaves it.
        least: How often a token must occur in them to stay.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        ValueError: The model cannot be loaded or shrunk.
    """
    inside = transformer_folder(folder)
    trust: Any = {"trust_remote_code": trust_remote_code}
    model = load(inside, dtype=_dtype(inside, **trust), **trust)
    check_writable(model, str(inside))
    smaller, report = shrink.shrink(model, stock=stock, length=length)
    tokenizer, vocabulary = None, None
    if texts is not None:
        smaller, tokenizer, vocabulary = shrink.shrink_vocabulary(
            smaller, load_tokenizer(str(inside), "", **trust), texts, least=least
        )
        report = report.model_copy(update={"parameters_after": vocabulary.parameters_after})
    result = Smaller(report, vocabulary, None, None)
    if not result.removed:
        return result
    latency = None
    if batch is not None:
        latency = shrink.latency(model, smaller, batch=batch, length=length)
    if out:
        _write(smaller, folder, inside, out, tokenizer)
        mark_shrunk(out, _account(report, vocabulary))
    return Smaller(report, vocabulary, latency, out)


def _dtype(folder: Path, *, trust_remote_code: bool) -> torch.dtype:
    """The precision of the files: that of the config may be another, and twice as large."""
    return stored_dtype(folder, load_config(folder, trust_remote_code=trust_remote_code))


def _write(smaller: PreTrainedModel, source: Path, inside: Path, out: Path, tokenizer: Any) -> None:
    """Write a model where its place is in a folder like the one that it came from."""
    if inside == source:
        save(smaller, out, files=source, tokenizer=tokenizer)
        return
    check_free(out)
    with replacing(out.resolve()) as unfinished:
        unfinished.mkdir(parents=True)
        save(smaller, unfinished / inside.relative_to(source), files=inside, tokenizer=tokenizer)
        copy_around(source, unfinished)


def _account(report: ShrinkReport, vocabulary: VocabularyReport | None) -> str:
    """What was removed, in a sentence for the model's card."""
    removed = []
    for unit in ("head", "neuron"):
        before, after = report.units(unit)
        if after < before:
            name = "attention head" if unit == "head" else unit
            removed.append(f"{before - after:,} of {counted(before, name)}")
    if vocabulary and vocabulary.removed:
        rows = counted(vocabulary.rows_before, "row")
        removed.append(f"{vocabulary.removed:,} of {rows} of the vocabulary")
    return (
        f"Removed, with Sentei {VERSION}: {', '.join(removed)}. Of {report.parameters_before:,} "
        f"parameters {report.parameters_after:,} are left. What is said above of sparsity is of "
        "the model before."
    )
