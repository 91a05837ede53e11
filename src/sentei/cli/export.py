"""``sentei export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentei.cli.app import JsonOption, output, show_json, verb
from sentei.cli.options import OF_DATA, settings_of_model, with_settings
from sentei.cli.telling import telling
from sentei.export.target import FORMATS, TOLERANCES, Target

if TYPE_CHECKING:
    from sentei.export import ExportReport


@verb
@with_settings(*OF_DATA)
def export(
    options: dict[str, Any],
    *,
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of a model.")],
    to: Annotated[str, typer.Option(help=f"What to write: {' or '.join(FORMATS)}.")],
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="With products in int8: onnx quantises activations as they come, openvino scales "
            "them by what evaluation data give.",
        ),
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Relative difference of the outputs from the model's that is taken [default: "
            f"{TOLERANCES['fp32']:g}, with --int8 {TOLERANCES['int8']:g}].",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A new or empty folder [default: in that of the run, the name of the format]."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a model as ONNX or for OpenVINO, and compare what it gives there.

    The outputs are compared on the evaluation data, a run's or those that --task or --eval name, or
    else on random inputs. Where they differ too much nothing is written.
    """
    target = Target(to, int8)
    target.check()

    from sentei.models.quiet import quiet_transformers
    from sentei.run.export import Plan, export_folder
    from sentei.run.shrink import locate

    quiet_transformers()
    model = locate(folder)
    run = model.absolute().parent / "run.yaml"
    if out is None:
        if not run.is_file():
            raise ValueError(f"--out is missing: {folder} is of no run, name a folder to write to")
        out = run.parent / (f"{to}-int8" if int8 else to)
    settings = settings_of_model(model, run, options)
    plan = Plan(target, tolerance, options.get("trust_remote_code", False))
    with telling(json) as tell:
        report = export_folder(str(model), out, plan, settings, tell)
    if json:
        show_json(report.model_dump(mode="json") | {"out": str(out)})
    else:
        _print(report, out)


def _print(report: ExportReport, out: Path) -> None:
    """What was written, and how near it is."""
    agreement = report.agreement
    files = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in report.files.items())
    output.print(f"{report.model} as {report.format} {report.precision}: {files}", soft_wrap=True)
    output.print(
        f"Outputs on {report.inputs}: {agreement.most:.2g} from the model's at most, "
        f"{agreement.relative:.2g} of their size (taken: {report.tolerance:g}).",
        soft_wrap=True,
    )
    if agreement.answers:
        output.print(f"Answers: {agreement.same:,} of {agreement.answers:,} the same.")
    output.print(f"Written to {out}.", soft_wrap=True)
