"""``sentei bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentei.cli.app import JsonOption, output, show_json, verb, warn
from sentei.cli.options import OF_DATA, settings_of_model, with_settings
from sentei.cli.telling import telling
from sentei.locks import FolderLock
from sentei.runtime.bench.choice import ENGINES, PRECISIONS, choose

if TYPE_CHECKING:
    from sentei.records import SpeedReport

BatchOption = Annotated[
    list[int] | None,
    typer.Option(
        min=1, max=100_000, help="Sequences in a batch; say it again for more [default: 1, 8]."
    ),
]
LengthOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Tokens of a sequence; or data: the lengths of the evaluation texts, in batches as "
        "they come; or sorted: in batches of like length. Say it again for more [default: 128 and, "
        "where there are texts, data]."
    ),
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(help=f"Only this engine: {', '.join(ENGINES)}. Say it again for more."),
]
PrecisionOption = Annotated[
    list[str] | None,
    typer.Option(help=f"Only this precision: {', '.join(PRECISIONS)}. Say it again for more."),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder for bench.json, bench.md and bench.svg [default: the run's, and nothing for "
        "a model that is of no run]."
    ),
]


@verb
@with_settings(*OF_DATA)
def bench(
    options: dict[str, Any],
    *,
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of a model.")],
    batch: BatchOption = None,
    length: LengthOption = None,
    threads: Annotated[int, typer.Option(min=1, max=4096, help="Of every engine.")] = 1,
    rounds: Annotated[
        int,
        typer.Option(
            min=1, max=100_000, help="How often each engine runs each size; medians are shown."
        ),
    ] = 15,
    engine: EngineOption = None,
    precision: PrecisionOption = None,
    score: Annotated[
        bool,
        typer.Option(
            "--score/--no-score", help="Measure each engine on the evaluation data, if there are."
        ),
    ] = True,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Time a model on Sentei's engine and on every dense one that is installed, in turns.

    Beside each speed is how far outputs are from PyTorch's in fp32 and what the engine scores on
    the evaluation data: a run's, or those that --task or --eval name.
    """
    engines = choose(engine or [], precision or [])

    from sentei.models.quiet import quiet_transformers
    from sentei.run.bench import Plan, bench
    from sentei.run.shrink import locate

    quiet_transformers()
    model = locate(folder)
    run = model.absolute().parent / "run.yaml"
    settings = settings_of_model(model, run, options)
    plan = Plan(
        engines=engines,
        batches=tuple(batch or Plan.batches),
        lengths=tuple(length or ()),
        threads=threads,
        rounds=rounds,
        score=score,
        trust_remote_code=options.get("trust_remote_code", False),
    )
    with telling(json) as tell:
        report = bench(str(model), plan, settings, tell)
    place = out or (run.parent if run.is_file() and model.name == "model" else None)
    _show(report, place, json)


def _show(report: SpeedReport, place: Path | None, json: bool) -> None:
    """Write it, into a run's page too, and print it."""
    from sentei import report as reports

    if place is not None:
        try:
            with FolderLock(place, patience=10.0):
                reports.write_speed(report, place)
        except ModuleNotFoundError as error:
            warn(str(error))
    if json:
        show_json(report)
        return
    reports.print_speed(report, output)
    if place is not None:
        output.print(f"\nWritten to {place}: bench.json, bench.md, bench.svg", soft_wrap=True)
