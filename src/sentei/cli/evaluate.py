"""``sentei evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sentei.cli.app import JsonOption, output, quiet_transformers, show_json, verb
from sentei.cli.options import make_settings, with_settings
from sentei.hf.settings import OF_TRAINING, Settings

NAMES = tuple(name for name in Settings.model_fields if name not in OF_TRAINING)


@verb
@with_settings(*NAMES)
def evaluate(given: dict[str, Any], *, json: JsonOption = False) -> None:
    """Measure a fine-tuned model, pruned or not, on evaluation data.

    For a model of a run, options left out are the run's: its data, columns and length.
    """
    from sentei.hf.prepare import (
        load_evaluation,
        load_model,
        load_processor,
        locate_model,
        saved_labels,
        share_padding,
    )
    from sentei.hf.run import evaluate as measure
    from sentei.measure import count_zeros

    quiet_transformers()
    run = Path(given.get("model", "")).absolute().parent / "run.yaml"
    if run.is_file():
        given = {name: getattr(Settings.read(run), name) for name in NAMES} | given
    settings = make_settings(given, None, None, None, None)
    folder, name = locate_model(settings.model)
    corpus = load_evaluation(settings, saved_labels(folder))
    model, trained = load_model(folder, corpus)
    if not trained:
        raise ValueError(
            f"--model {settings.model}: it has no trained head for this task, so there is nothing "
            "to measure; give a model fine-tuned on it, such as the model/ folder of a run"
        )
    processor = load_processor(corpus.kind, folder)
    share_padding(model, processor)
    found = measure(model, processor, corpus, settings)
    parameters = sum(p.numel() for p in model.parameters())
    zeros = sum(count_zeros(p) for p in model.parameters())
    if json:
        facts = {"model": name, "data": corpus.evaluation.source, "metrics": found}
        show_json({**facts, "parameters": parameters, "zeros": zeros})
        return
    output.print(f"{name}: {zeros:,} of {parameters:,} parameters are zero")
    output.print(f"{corpus.evaluation.source}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for metric in found:
        table.add_column(metric, justify="right")
    table.add_row(*(f"{value:.4f}" for value in found.values()))
    output.print(table)
