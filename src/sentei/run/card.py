"""The card of a run's model: what it is, how sparse, what that cost, and how it was made."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from huggingface_hub import EvalResult, ModelCardData

from sentei import methods, serialization
from sentei.models.card import loading, read_card, write_card
from sentei.models.demo import DEMO
from sentei.records import RunReport
from sentei.run.prepare import Prepared

IDENTIFIERS: Final[Mapping[str, str]] = {
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "rouge1": "rouge",
    "rouge2": "rouge",
    "rougeL": "rouge",
    "best_f1": "f1",
    "best_exact_match": "exact_match",
}
"""What the hub calls metrics that have another name here."""

PACKAGES: Final = ("sentei", "torch", "transformers", "python")
"""Whose versions a card says."""

TEACHERS: Final = {
    "dense": "the dense model, trained first",
    "self": "the model before pruning",
}
"""Teachers that a run makes itself, in words."""


def write_run_card(prepared: Prepared, report: RunReport, folder: Path) -> None:
    """Write the card of a run's model.

    Args:
        prepared: The run.
        report: What came of it.
        folder: The model's.
    """
    write_card(folder, _metadata(prepared, report), _sections(prepared, report, folder))


# --------------------------------------------------------------------------------- metadata


def _metadata(prepared: Prepared, report: RunReport) -> ModelCardData:
    task, method = prepared.corpus.task, prepared.recipe.method
    results = list(_results(prepared, report))
    tags = ["sentei", "pruning", "sparsity", method]
    return ModelCardData(
        library_name=task.library,
        base_model=_base_model(prepared),
        pipeline_tag=task.pipeline_tag or None,
        tags=[*tags, "distillation"] if prepared.teacher or prepared.references.train else tags,
        datasets=[task.hub_dataset.path] if task.hub_dataset else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name="-".join(map(_slug, (_shown(prepared.model_name), report.task, method))),
        eval_results=results or None,
    )


def _results(prepared: Prepared, report: RunReport) -> Iterator[EvalResult]:
    """The metrics of the pruned model, as the hub indexes them."""
    task = prepared.corpus.task
    hub = task.hub_dataset
    apart = task.train or task.eval or task.holdout
    for name, value in report.sparse.items():
        if name != "loss" and math.isfinite(value):
            yield EvalResult(
                task_type=task.pipeline_tag or _slug(report.problem),
                task_name=report.problem,
                dataset_type=hub.path if hub else _slug(report.task),
                dataset_name=report.task,
                dataset_config=hub.config if hub else None,
                dataset_split=hub.eval_split if hub and not apart else None,
                metric_type=IDENTIFIERS.get(name, name),
                metric_name=name,
                metric_value=value,
            )


def _base_model(prepared: Prepared) -> str | None:
    """The hub's name of the model that was pruned, or of that which a model in a folder is from."""
    name = prepared.settings.model
    if name != DEMO and not Path(name).exists():
        return name
    card = read_card(prepared.folder)
    base = card.data.get("base_model") if card else None
    return base if isinstance(base, str) else None


def _shown(name: str) -> str:
    """A model's name without the folders of this machine."""
    if not Path(name).exists():
        return name
    path = Path(name).resolve()
    return path.parent.name if path.name == "model" else path.name


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text.rpartition("/")[2]).strip("-").lower()


# ------------------------------------------------------------------------------------- body


def _sections(prepared: Prepared, report: RunReport, folder: Path) -> Iterator[str]:
    pruning, name, base = report.pruning, _shown(report.model), _base_model(prepared)
    source = f"[{base}](https://huggingface.co/{base})" if base else f"{name} ({report.model_type})"
    yield f"# {name} on {report.task}, {pruning.sparsity:.1%} sparse"
    yield (
        f"{source}, fine-tuned for {report.problem} on {report.task} and pruned while it was, with "
        f"Sentei {report.sentei}."
    )
    yield (
        f"**{pruning.sparsity:.2%} of the {pruning.prunable:,} prunable weights are zero, "
        f"{pruning.sparsity_all:.2%} of all {pruning.parameters:,} parameters.** Zeros are stored "
        "like other weights."
    )
    yield f"On {report.eval_examples:,} evaluation examples:"
    yield "\n".join(_table(report))
    yield "## Method"
    yield _method(prepared.recipe.method)
    if lesson := prepared.corpus.task.lesson(prepared.corpus.train):
        named = prepared.settings.teacher.model
        taught_by = _shown(named) if named and named not in TEACHERS else TEACHERS["self"]
        yield f"On {report.task} it learnt {lesson.format(teacher=taught_by)}."
    if teacher := prepared.teacher:
        who = TEACHERS.get(teacher.name, _shown(teacher.name))
        yield f"It learnt from a teacher, {who}; {teacher.match.describe()}."
    yield loading(folder, prepared.corpus.task.auto_class)
    yield "## Training"
    yield _training(prepared, report)
    yield "The recipe, as `sentei prune --recipe` reads it:"
    yield f"```yaml\n{serialization.dump(prepared.recipe).rstrip()}\n```"
    yield ", ".join(f"{package} {report.environment[package]}" for package in PACKAGES)


def _table(report: RunReport) -> Iterator[str]:
    dense = report.dense
    yield "| | before pruning | pruned |" if dense else "| | pruned |"
    yield "|---|---:|---:|" if dense else "|---|---:|"
    for name, value in report.sparse.items():
        columns = [*([dense[name]] if dense else []), value]
        yield f"| {name} | {' | '.join(f'{number:.4f}' for number in columns)} |"


def _method(name: str) -> str:
    """The method and its paper, as its own file says them."""
    method = next(iter(methods.known(name)), None)
    if method is None:
        return f"`{name}`"
    link = r"[arXiv \1](https://arxiv.org/abs/\1)"
    paper = re.sub(r"arXiv (\d{4}\.\d{4,5})", link, method.paper)
    return f"`{name}`: {method.summary} ({paper})."


def _training(prepared: Prepared, report: RunReport) -> str:
    training = prepared.settings.training
    dense = f", {training.dense_epochs:g} of them dense first" if training.dense_epochs else ""
    if not training.epochs:
        number = prepared.calibration
        looked = f", by the inputs of {number:,} training examples" if number else ""
        trained = f" after {training.dense_epochs:g} epochs of training" if dense else ""
        return f"Pruned at once{looked}{trained}, and not trained since."
    return (
        f"{report.train_examples:,} examples, {training.epochs + training.dense_epochs:g} epochs"
        f"{dense}; steps of {training.batch_size * training.accumulate} examples, "
        f"{report.pruning.total_steps:,} of them while pruning; learning rate "
        f"{training.learning_rate:g} ({training.optimizer}, {training.lr_schedule}), "
        f"{report.environment['precision']}, seed {training.seed}."
    )
