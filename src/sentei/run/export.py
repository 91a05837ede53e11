"""A model's folder written for another engine, and tried on its own evaluation data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import PreTrainedModel

from sentei.data.features import Features
from sentei.export.graphs import in_halves
from sentei.export.target import Target
from sentei.export.write import ExportReport, export
from sentei.messages import counted
from sentei.models.folder import check_free
from sentei.models.loading import load_tokenizer, locate_model
from sentei.models.outputs import Inputs
from sentei.run.bench import CALIBRATION, Data, evaluation_data, load
from sentei.run.settings import Settings
from sentei.runtime.bench.workloads import images, sequences, usual_lengths

EXAMPLES, TOKENS, IMAGES = 256, 1 << 14, 64
"""Of the evaluation data, evenly over all, that outputs are compared on, at most."""

BATCH: Final = 8
"""Of these in a forward pass, of the lengths that they have."""

LOGITS: Final = 1 << 25
"""Of a forward pass, of models that give them for every token of the vocabulary; or one text's."""


@dataclass(frozen=True)
class Plan:
    """What is to be written.

    Outputs may differ by ``tolerance``, None being the usual one. Code that comes with the model is
    run if ``trust_remote_code``.
    """

    target: Target
    tolerance: float | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Trial:
    """Inputs that a model is tried with, in batches and one by one, and what they are in words."""

    batches: Sequence[Inputs]
    ones: Sequence[Inputs]
    source: str


def export_folder(
    folder: str,
    out: Path,
    plan: Plan,
    settings: Settings | None,
    tell: Callable[[str], None],
) -> ExportReport:
    """Write a model for another engine.

    Args:
        folder: Of the model, or of its run.
        out: A new or empty folder.
        plan: What is to be written.
        settings: Which evaluation data it is tried on; None draws inputs.
        tell: Told what is going on.

    Raises:
        ValueError: The model or the data cannot be used, or as :func:`sentei.export.export` says.
    """
    plan.target.check()
    check_free(out)
    if settings is None and "nncf" in plan.target.packages:
        raise ValueError(
            "--int8: activations are scaled by what real inputs give, and there are none; give the "
            "folder of a run, or name data with --task or --eval"
        )
    where, name = locate_model(folder)
    tell(f"Loading {name}")
    module = load(where, trust_remote_code=plan.trust_remote_code)
    trial = trial_of(module, where, settings, trust_remote_code=plan.trust_remote_code)
    tell(f"Writing {plan.target.format} {plan.target.precision}")
    return export(
        module,
        out,
        to=plan.target.format,
        int8=plan.target.int8,
        inputs=trial.batches,
        calibration=trial.ones,
        tolerance=plan.tolerance,
        files=where,
        source=trial.source,
    )


def trial_of(
    module: PreTrainedModel,
    folder: str,
    settings: Settings | None,
    *,
    trust_remote_code: bool = False,
) -> Trial:
    """Inputs of a model.

    Args:
        module: The model.
        folder: Where it is.
        settings: Which evaluation data; None draws inputs.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        ValueError: The data cannot be used, or the model has no head for them.
    """
    if settings is None:
        return _drawn(module, folder, trust_remote_code=trust_remote_code)
    return _real(module, evaluation_data(folder, module, settings))


def _real(module: PreTrainedModel, data: Data) -> Trial:
    """Examples of the evaluation data, in batches and one by one."""
    collate = data.corpus.task.collator(data.processor)
    names = data.processor.model_input_names

    def batch(indices: Sequence[int]) -> Inputs:
        rows = collate([data.features[i] for i in indices])
        inputs = _as_read(module, {n: rows[n] for n in names if n in rows}, names)
        if in_halves(module):
            writer: Any = module
            inputs["decoder_input_ids"] = writer.prepare_decoder_input_ids_from_labels(
                rows["labels"]
            )
        return inputs

    spread, count = data.texts.spread, _count(data.features)
    chosen, rows = spread(count), _rows(module, data.features)
    return Trial(
        batches=[batch(chosen[at : at + rows]) for at in range(0, count, rows)],
        ones=[batch([one]) for one in spread(min(CALIBRATION, len(data.features)))],
        source=f"{counted(count, 'example')} of {data.corpus.evaluation.source}",
    )


def _count(features: Features) -> int:
    """Examples to compare outputs on."""
    most, lengths = min(EXAMPLES, len(features)), features.lengths
    if lengths is None:
        return min(most, IMAGES)
    return max(1, min(most, TOKENS // int(lengths.mean())))


def _rows(module: PreTrainedModel, features: Features) -> int:
    """Examples in a forward pass, so that its outputs have room."""
    if module.get_output_embeddings() is None or features.lengths is None:
        return BATCH
    each = int(features.lengths.max()) * int(module.config.vocab_size)
    return max(1, min(BATCH, LOGITS // each))


def _drawn(module: PreTrainedModel, where: str, *, trust_remote_code: bool) -> Trial:
    """Noise, or random tokens in sequences of several lengths."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if module.main_input_name == "pixel_values":
            batches = [images(module, None, rows) for rows in (BATCH, 1)]
            return Trial(batches, (), "noise")
        [longest] = map(int, usual_lengths(module, None))
        names: Sequence[str] = ()
        if Path(where, "tokenizer_config.json").is_file():
            tokenizer = load_tokenizer(where, "", trust_remote_code=trust_remote_code)
            names = tokenizer.model_input_names
        lengths = (longest, max(2, longest // 2), min(longest, 5))
        batches = [
            _as_read(module, dict(sequences(module, None, BATCH, length)), names)
            for length in lengths
        ]
    return Trial(batches, (), "random tokens")


def _as_read(
    module: PreTrainedModel, inputs: dict[str, torch.Tensor], names: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Inputs with the kinds of token that a tokenizer gives and a model reads, all of the first."""
    read = inspect.signature(module.forward).parameters
    if "token_type_ids" in names and "token_type_ids" in read and "input_ids" in inputs:
        inputs.setdefault("token_type_ids", torch.zeros_like(inputs["input_ids"]))
    return inputs
