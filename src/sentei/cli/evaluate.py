"""``sentei evaluate``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sentei.cli.app import JsonOption, output, show_json, verb
from sentei.cli.options import make_settings, with_settings
from sentei.run.options import flat, names_of, places
from sentei.run.settings import Settings
from sentei.tasks.catalogue import DATASETS
from sentei.tasks.source import CorpusSource

READ = (
    *(name for name, place in places().items() if place.owner in ("", "task")),
    *("batch_size", "seed"),
)
NAMES = tuple(name for name in READ if not places()[name].option.training)
"""What a finished model is measured with: itself, its task, and how batches are drawn."""


@verb
@with_settings(*NAMES)
def evaluate(options: dict[str, Any], *, json: JsonOption = False) -> None:
    """Measure a fine-tuned model, pruned or not, on evaluation data.

    For a model of a run, options left out are the run's: its data, columns and length.
    """
    from sentei.models.loading import locate_model
    from sentei.models.quiet import quiet_transformers
    from sentei.run.evaluate import evaluate_saved

    quiet_transformers()
    if "model" in options:
        run = Path(locate_model(options["model"])[0]).absolute().parent / "run.yaml"
        options = (_of_run(run, options) if run.is_file() else {}) | options
    evaluation = evaluate_saved(make_settings(options))
    if json:
        show_json(dataclasses.asdict(evaluation))
        return
    zeros, parameters = evaluation.zeros, evaluation.parameters
    output.print(f"{evaluation.model}: {zeros:,} of {parameters:,} parameters are zero")
    output.print(evaluation.data)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for metric in evaluation.metrics:
        table.add_column(metric, justify="right")
    table.add_row(*(f"{value:.4f}" for value in evaluation.metrics.values()))
    output.print(table)


def _of_run(run: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """The run's settings, but for those of data that what was typed takes the place of."""
    settings = flat(Settings.read(run).model_dump())
    sources = names_of(CorpusSource)
    typed = [sources.index(name) for name in options if name in sources]
    stale = {*sources[min(typed) :]} if typed else set[str]()
    if "task" in options or options.get("kind", settings["kind"]) != settings["kind"]:
        columns = (known.options for known in DATASETS.values())
        stale |= {"kind", "metric"}.union(*columns)  # which another task has of its own
    return {name: settings[name] for name in NAMES if name in settings.keys() - stale}
