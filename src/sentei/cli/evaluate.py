"""``sentei evaluate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sentei.cli.app import JsonOption, output, show_json, verb
from sentei.cli.options import EVALUATION, make_settings, of_run, with_settings


@verb
@with_settings(*EVALUATION)
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
        options = (of_run(run, options) if run.is_file() else {}) | options
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
