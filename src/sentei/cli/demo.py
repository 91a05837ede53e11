"""``sentei demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sentei.cli.app import JsonOption, errors, verb, warn
from sentei.cli.options import MethodOption, PatternOption, SetOption, SparsityOption, make_settings
from sentei.cli.running import resumed, run, show
from sentei.distributed import is_main
from sentei.locks import FolderLock
from sentei.models.demo import DEMO
from sentei.runtime.bench.choice import Engine
from sentei.tasks.catalogue import DEMO_SENTENCES

if TYPE_CHECKING:
    from sentei.records import RunReport
    from sentei.run.settings import Settings


@verb
def demo(
    method: MethodOption = None,
    sparsity: SparsityOption = None,
    pattern: PatternOption = None,
    overrides: SetOption = None,
    embeddings: Annotated[
        bool,
        typer.Option("--embeddings", help="Prune the sentence embeddings, with texts alone."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the run; new or empty.")] = Path(
        "sentei-demo"
    ),
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything drawn [default: 42].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    json: JsonOption = False,
) -> None:
    """Prune a real model on real data, both out of installed packages, in minutes.

    all-MiniLM-L6-v2 learns to tell five topics of BBC news apart, dense; then it is pruned to 80 %
    while it goes on learning, and at the end timed on Sentei's engine beside PyTorch. With
    --embeddings it learns to embed sentences of that news as it did before, without any label.
    Needs no network: pip install 'sentei[demo,runtime]'.
    """
    typed = {} if seed is None else {"seed": seed}
    if resume:
        settings = resumed(out, typed, [method, sparsity, pattern, overrides], json)
        if settings is None:
            return
    else:
        task, training = (DEMO_SENTENCES, SENTENCES) if embeddings else (DEMO, TRAINING)
        options = {"model": DEMO, "task": task, **training, **typed}
        settings = make_settings(options, method, sparsity, None, overrides, pattern)
    if not json:
        errors.print(_ABOUT[settings.task.label])
    ran = run(settings, out, resume=resume, json=json)
    if is_main():
        _time(ran.report, settings, out, json)
    show(ran.report, out, json, passed_over=ran.passed_over)


def _time(report: RunReport, settings: Settings, out: Path, json: bool) -> None:
    """Run the pruned model on the engine beside torch, for the run's report."""
    from sentei import report as reports
    from sentei.run.bench import Plan, bench
    from sentei.run.reference import with_reference

    if not json:
        errors.print("Running it on Sentei's engine beside PyTorch ...")
    known = {"torch fp32": report.sparse}  # the run has just measured it so
    plan = Plan(ENGINES, batches=(32,), lengths=("data",), rounds=5, known=known)
    speed = bench(str(out), plan, with_reference(settings), lambda text: None)
    try:
        with FolderLock(out, patience=10.0):
            reports.write_speed(speed, out)
    except ModuleNotFoundError as error:
        warn(str(error))


TRAINING = {"dense_epochs": 2, "epochs": 6, "learning_rate": 1e-4, "max_length": 64}
"""How the demo trains: short texts and few passes, so that it takes minutes on two cores."""

SENTENCES = {
    "epochs": 2,
    "max_length": 64,
    "group_by_length": True,
    "freeze_embeddings": True,
    "evaluations": 2,
}
"""How embeddings are trained there."""

_ABOUT = {
    "classification": "all-MiniLM-L6-v2 (22.7 M parameters) on BBC news (2,127 texts, 5 topics): "
    "fine-tuned dense first,\nthen pruned while it goes on training. A few minutes on two cores.",
    "embeddings": "all-MiniLM-L6-v2 (22.7 M parameters) on 4,800 sentences of BBC news, without "
    "labels:\npruned while it learns to embed them as before. A few minutes on two cores.",
}

ENGINES = (Engine("sentei", "auto"), Engine("torch", "fp32"))
"""What the demo's model is timed on."""
