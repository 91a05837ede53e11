"""Drawing the values of a trial, and choosing the best of all trials, once."""

from __future__ import annotations

import json
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import Study

from sentei import report as reports
from sentei.compare.cells import Cell, Tuning, write_once
from sentei.compare.choices import Scalar, Values, grid
from sentei.compare.claims import Claims
from sentei.records import RunReport
from sentei.report.facts import Metric


def draw(tuning: Tuning, trial: Cell, claims: Claims) -> dict[str, Scalar]:
    """The values of a trial that this worker has claimed; the same whenever it is begun again.

    Of a grid every trial has a combination of its own. Of ranges they are drawn by TPE from what
    all workers have found so far.
    """
    if not trial.values_file.is_file():
        combinations = grid(tuning.space, len(tuning.trials))
        if combinations is not None:
            drawn: dict[str, Any] = {"values": combinations[trial.number]}
        else:
            asked = _study(tuning, claims, seed=trial.number).ask(_distributions(tuning))
            drawn = {"values": asked.params, "number": asked.number}
        write_once(trial.values_file, json.dumps(drawn) + "\n")
    values: dict[str, Scalar] = trial.drawn()["values"]
    return values


def tell(tuning: Tuning, trial: Cell, claims: Claims, report: RunReport) -> None:
    """Add a finished trial to the study that later ones are drawn from."""
    drawn, study, value = trial.drawn(), _study(tuning, claims), _worth(report)
    asked = next((one for one in study.get_trials() if one.number == drawn.get("number")), None)
    if asked and asked.params == drawn["values"]:  # else its study went with removed claims
        study.tell(asked.number, value, skip_if_finished=True)
        return
    distributions = _distributions(tuning)
    study.add_trial(
        optuna.create_trial(params=drawn["values"], distributions=distributions, value=value)
    )


def choose(tuning: Tuning) -> bool:
    """Write the best trial's values; of equals the first. False where none has finished.

    What was chosen stays: a trial that is finished later does not change runs already made.
    """
    reported = {trial.name: reports.read(trial.folder) for trial in tuning.trials if trial.done}
    finished = [trial for trial in tuning.trials if trial.name in reported]
    if not finished:
        return False
    best = max(finished, key=lambda trial: (_worth(reported[trial.name]), -trial.number))
    report = reported[best.name]
    value = report.sparse[report.metric]
    choice = {"trial": best.name, "metric": report.metric, "value": value}
    choice["values"] = best.drawn()["values"]
    write_once(tuning.choice_file, json.dumps(choice, indent=2) + "\n")
    return True


def _worth(report: RunReport) -> float:
    """The metric, negative where lower is better: trials are ranked by it, highest first."""
    value = report.sparse[report.metric]
    return -value if Metric(report.metric).lower_is_better else value


def _study(tuning: Tuning, claims: Claims, seed: int | None = None) -> Study:
    return optuna.create_study(
        storage=claims.storage,
        study_name=f"{claims.comparison}/{tuning.name}",
        sampler=optuna.samplers.TPESampler(seed=seed),
        direction="maximize",
        load_if_exists=True,
    )


def _distributions(tuning: Tuning) -> dict[str, BaseDistribution]:
    return {name: _distribution(choice) for name, choice in tuning.space.items()}


def _distribution(choice: Values) -> BaseDistribution:
    if choice.values:
        return CategoricalDistribution(choice.values)
    assert choice.low is not None and choice.high is not None
    if isinstance(choice.low, int) and isinstance(choice.high, int):
        return IntDistribution(choice.low, choice.high, log=choice.log)
    return FloatDistribution(choice.low, choice.high, log=choice.log)
