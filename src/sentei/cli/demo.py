"""``sentei demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentei.cli.app import JsonOption, errors, verb
from sentei.cli.options import MethodOption, PatternOption, SetOption, SparsityOption, make_settings
from sentei.cli.running import resumed, run_and_show
from sentei.models.demo import DEMO
from sentei.run.settings import check_output


@verb
def demo(
    method: MethodOption = None,
    sparsity: SparsityOption = None,
    pattern: PatternOption = None,
    overrides: SetOption = None,
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
    while it goes on learning. Needs no network: pip install 'sentei[demo]'.
    """
    typed = {} if seed is None else {"seed": seed}
    if resume:
        settings = resumed(out, typed, [method, sparsity, pattern, overrides], json)
        if settings is None:
            return
    else:
        options = {"model": DEMO, "task": DEMO, **TRAINING, **typed}
        settings = make_settings(options, method, sparsity, None, overrides, pattern)
        check_output(out)
    if not json:
        errors.print(
            "all-MiniLM-L6-v2 (22.7 M parameters) on BBC news (2,127 texts, 5 topics): "
            "fine-tuned dense first,\nthen pruned while it goes on training. "
            "A few minutes on two cores."
        )
    run_and_show(settings, out, resume=resume, json=json)


TRAINING = {"dense_epochs": 2, "epochs": 6, "learning_rate": 1e-4, "max_length": 64}
"""How the demo trains: short texts and few passes, so that it takes minutes on two cores."""
