"""``sentei compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sentei.cli.app import JsonOption, verb
from sentei.cli.options import with_settings
from sentei.run.options import places

SETTINGS = tuple(name for name in places() if name not in ("seed", "teacher_cache", "holdout"))
"""All but those that a plan has words of its own for; of seeds it takes several."""


PlanArgument = Annotated[Path | None, typer.Argument(help="Plan (YAML) instead of options.")]
MethodsOption = Annotated[
    list[str] | None, typer.Option("--method", help="Method to compare; say it again for more.")
]
RecipesOption = Annotated[
    list[Path] | None, typer.Option("--recipe", help="Recipe file (YAML) to compare.")
]
ChangesOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value of every recipe: --set schedule.every=5."),
]
SparsitiesOption = Annotated[
    list[float] | None, typer.Option("--sparsity", help="In [0, 1) [default: 0.8].")
]
SeedsOption = Annotated[
    list[int] | None, typer.Option("--seed", help="One run of all for each [default: 42].")
]
BaselineOption = Annotated[
    str | None, typer.Option(help="What differences are against [default: the first recipe].")
]
OutOption = Annotated[Path, typer.Option(help="Folder; new, or with a comparison to go on with.")]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Make only these runs and what they need: 'TASK/RECIPE/0.9/seed1', '*/0.9/*'."
    ),
]
LaunchOption = Annotated[
    str | None,
    typer.Option(help="Start every run with this, such as 'accelerate launch --multi_gpu'."),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Make the runs on a Ray cluster: auto (this machine's), HOST:PORT, or local.",
    ),
]
GpusOption = Annotated[
    float | None,
    typer.Option(min=0, help="With --ray: GPUs of each run [default: 1 where there are any]."),
]
CpusOption = Annotated[
    float | None, typer.Option(min=0, help="With --ray: CPUs of each run [default: 1].")
]
RetriesOption = Annotated[
    int | None,
    typer.Option(min=0, help="With --ray: how often a run goes on after a crash [default: 3]."),
]
PatienceOption = Annotated[
    float, typer.Option(min=1, max=1e9, help="Seconds of silence after which a run is taken over.")
]
WaitOption = Annotated[
    bool,
    typer.Option("--wait/--no-wait", help="Stay while others work, to take over [default: wait]."),
]
KeepOption = Annotated[
    bool, typer.Option("--keep", help="Keep checkpoints of finished runs, models of trials.")
]
ReportOption = Annotated[
    bool, typer.Option("--report", help="Only write the report of what is done.")
]


@verb
@with_settings(*SETTINGS)
def compare(
    options: dict[str, Any],
    *,
    plan: PlanArgument = None,
    methods: MethodsOption = None,
    recipes: RecipesOption = None,
    changes: ChangesOption = None,
    sparsities: SparsitiesOption = None,
    seeds: SeedsOption = None,
    baseline: BaselineOption = None,
    out: OutOption,
    only: OnlyOption = None,
    launch: LaunchOption = None,
    ray: RayOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    retries: RetriesOption = None,
    patience: PatienceOption = 120.0,
    wait: WaitOption = True,
    keep: KeepOption = False,
    report: ReportOption = False,
    json: JsonOption = False,
) -> None:
    """Compare recipes at sparsities, over tasks and seeds; begin, join or go on.

    Start it again to go on, and start more of it, on any machine that sees the folder, to go
    faster: no run is made twice. A plan file says more than options can: tasks, and searches.
    """
    from sentei.cli import comparison

    words = {
        "method": methods,
        "recipe": recipes,
        "set": changes,
        "sparsity": sparsities,
        "seed": seeds,
        "baseline": baseline,
    }
    several = {name: value for name, value in words.items() if value}
    declared = comparison.plan_of(plan, options, several)
    if not report:
        how = {"launch": launch, "patience": patience, "wait": wait, "keep": keep}
        parts = {"gpus": gpus, "cpus": cpus, "retries": retries}
        shares = {name: value for name, value in parts.items() if value is not None}
        comparison.work(declared, out, only=only, ray=ray, shares=shares, json=json, **how)
        return
    if declared:
        raise ValueError("--report tells what is in --out: leave out the plan and its options")
    comparison.show(comparison.kept(out), json)
