"""The report of a run that has ended: what was asked, what was done, what came out."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

from sentei._version import VERSION
from sentei.pack.folder import tables_of
from sentei.pack.sizes import measure
from sentei.records import PruningReport, RunReport, SizeRecord
from sentei.run.callbacks import Journal
from sentei.run.options import flat
from sentei.run.precision import precision
from sentei.run.prepare import Prepared
from sentei.run.settings import Precision


def describe_run(
    prepared: Prepared,
    pruning: PruningReport,
    journal: Journal,
    out: Path,
    dense: dict[str, float] | None,
    sparse: dict[str, float],
    seconds: dict[str, float],
) -> RunReport:
    """The report of a run that has ended.

    Args:
        prepared: The run.
        pruning: What was pruned.
        journal: Of training.
        out: The run's folder, with its models.
        dense: Metrics before pruning, if they were measured.
        sparse: Metrics of the model that was written.
        seconds: Of each phase.
    """
    corpus = prepared.corpus
    return RunReport(
        sentei=VERSION,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        title=f"{prepared.model_name} on {corpus.name}",
        model=prepared.model_name,
        model_type=prepared.model.config.model_type,
        task=corpus.name,
        problem=corpus.problem,
        metric=corpus.headline,
        labels=corpus.train.label_names,
        train_examples=len(corpus.train),
        eval_examples=len(corpus.evaluation),
        dense=dense,
        sparse=sparse,
        pruning=pruning,
        train=journal.train,
        evaluations=journal.evaluations,
        sizes=_sizes(prepared, out),
        settings=_settings(prepared),
        environment=environment(prepared.settings.training.precision),
        seconds=seconds,
    )


def _settings(prepared: Prepared) -> dict[str, Any]:
    """What the run was asked to do, without what was left open, and what that came to."""
    corpus, teacher = prepared.corpus, prepared.teacher
    options = flat(prepared.settings.model_dump(mode="json"))
    settings = {
        "training data": corpus.train.source,
        "evaluation data": corpus.evaluation.source,
        **{name: value for name, value in options.items() if value is not None},
    }
    if teacher:
        settings |= {"teacher": teacher.name, "learns": teacher.match.describe()}
    elif prepared.untaught:
        settings["teacher"] = f"none: {prepared.untaught}"
    return settings


def environment(wish: Precision) -> dict[str, str]:
    """What the run ran on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "sentei": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "platform": platform.platform(),
        "device": device,
        "threads": str(torch.get_num_threads()),
        "precision": precision(wish),
        "command": " ".join(Path(a).name if i == 0 else a for i, a in enumerate(sys.argv)),
    }


def _sizes(prepared: Prepared, out: Path) -> SizeRecord:
    path = out / "model" / "model.safetensors"
    file = path.stat().st_size
    dense_file = out / "dense" / "model" / "model.safetensors"
    with safe_open(path, "pt") as written:
        tensors = ((name, written.get_tensor(name)) for name in written.keys())
        packed = measure(tensors, tables_of(prepared.model))
    same = dense_file.is_file() and prepared.dtype == torch.float32  # dense/ is, for what follows
    return SizeRecord(
        dense_file=dense_file.stat().st_size if same else file,
        sparse_file=file,
        packed=packed.exact,
        packed_bf16=packed.bf16,
        packed_int8=packed.int8,
    )
