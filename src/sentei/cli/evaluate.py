"""``sentei evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sentei.cli.app import JsonOption, output, show_json, verb
from sentei.cli.options import make_settings, with_settings
from sentei.run.settings import OF_TRAINING, Settings

NAMES = tuple(name for name in Settings.model_fields if name not in OF_TRAINING)
SOURCES = ("task", "train", "eval", "holdout")
"""Settings that say where the data is; each takes the place of those after it."""

OF_TASK = ("kind", "regression", "metric", *(n for n in NAMES if n.endswith("_column")))
"""Settings that another task has of its own."""


@verb
@with_settings(*NAMES)
def evaluate(given: dict[str, Any], *, json: JsonOption = False) -> None:
    """Measure a fine-tuned model, pruned or not, on evaluation data.

    For a model of a run, options left out are the run's: its data, columns and length.
    """
    from sentei.models.loading import load_model, locate_model, saved_labels, share_padding
    from sentei.models.quiet import quiet_transformers
    from sentei.run.evaluate import evaluate as measure
    from sentei.tasks.corpus import load_evaluation
    from sentei.tensors import count_zeros

    quiet_transformers()
    if "model" in given:
        run = Path(locate_model(given["model"])[0]).absolute().parent / "run.yaml"
        given = (_of_run(run, given) if run.is_file() else {}) | given
    settings = make_settings(given, None, None, None, None)
    folder, name = locate_model(settings.model)
    corpus = load_evaluation(settings, saved_labels(folder))
    model, trained = load_model(folder, corpus.head)
    if not trained:
        raise ValueError(
            f"--model {settings.model}: it has no trained head for this task, so there is nothing "
            "to measure; give a model fine-tuned on it, such as the model/ folder of a run"
        )
    processor = corpus.load_processor(folder)
    share_padding(model, processor)
    features = corpus.evaluation_features(processor)
    found = measure(model, processor, corpus, features, settings.batch_size)
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


def _of_run(run: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The run's settings, but for those of data that what was typed takes the place of."""
    found = Settings.read(run)
    typed = [SOURCES.index(name) for name in given if name in SOURCES]
    stale = SOURCES[min(typed) :] if typed else ()
    if "task" in given:
        stale += OF_TASK
    return {name: getattr(found, name) for name in NAMES if name not in stale}
