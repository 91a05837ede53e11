"""Values of ranges, drawn by Optuna from what all workers of a comparison have found so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

try:
    import optuna
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "values of a range are drawn with optuna: pip install 'sentei[search]'", name=error.name
    ) from error
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study

from sentei.compare.choices import Space, Values

JOURNAL: Final = "search.log"
"""Optuna's journal of all searches, in the folder of the comparison."""


def draw(name: str, space: Space, number: int, out: Path) -> dict[str, Any]:
    """Values for a trial, and their number in the study that they were drawn from.

    Args:
        name: Of the search.
        space: What is searched.
        number: Of the trial in its search; the seed.
        out: Folder of the comparison.
    """
    trial = _study(name, out, seed=number).ask(_distributions(space))
    return {"values": trial.params, "number": trial.number}


def tell(name: str, space: Space, drawn: dict[str, Any], value: float, out: Path) -> None:
    """Add a finished trial to what later ones are drawn from.

    Args:
        name: Of the search.
        space: What is searched.
        drawn: What :func:`draw` gave.
        value: How good it was; more is better.
        out: Folder of the comparison.
    """
    study = _study(name, out)
    params = {trial.number: trial.params for trial in study.get_trials(deepcopy=False)}
    if params.get(drawn["number"]) == drawn["values"]:
        study.tell(drawn["number"], value, skip_if_finished=True)
        return
    distributions = _distributions(space)  # its study went with a removed journal
    study.add_trial(
        optuna.create_trial(params=drawn["values"], distributions=distributions, value=value)
    )


def _study(name: str, out: Path, seed: int | None = None) -> Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = str(out / JOURNAL)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(file, JournalFileOpenLock(file))),
        study_name=name,
        sampler=optuna.samplers.TPESampler(seed=seed),
        direction="maximize",
        load_if_exists=True,
    )


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    return {name: _distribution(choice) for name, choice in space.items()}


def _distribution(choice: Values) -> BaseDistribution:
    if choice.values:
        return CategoricalDistribution(choice.values)
    assert choice.low is not None and choice.high is not None
    if isinstance(choice.low, int) and isinstance(choice.high, int):
        return IntDistribution(choice.low, choice.high, log=choice.log)
    return FloatDistribution(choice.low, choice.high, log=choice.log)
