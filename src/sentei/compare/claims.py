"""Who runs what: claims on the runs of a comparison, kept in an Optuna storage.

A run is a study there and a claim on it a trial of the study. Optuna gives the trials of a study
their numbers one after another, in one step, on every storage it has; so of workers that ask at the
same time the lowest number has the run, and the others see that and withdraw. A worker writes a
beat beside its claim; where one has not changed for ``patience`` seconds, on the clock of the
worker that looks, the claim is failed and the run is free again. A worker whose beats do not arrive
stops before that: it asks :meth:`Claim.check` at every step.

Everything used is documented for users of Optuna: create_study, ask, tell, get_trials and
set_user_attr. See docs/decisions/0011-claims.md for what was left.
"""

from __future__ import annotations

import math
import os
import random
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

try:
    import optuna
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "a comparison keeps its claims with optuna: pip install 'sentei[search]'", name=error.name
    ) from error
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

StorageError = optuna.exceptions.OptunaError
"""What a storage raises that is out of reach."""

Standing = Literal["free", "held", "done", "failed"]
"""Of a run: nobody's; somebody's; finished, or failed, since this worker began."""

PATIENCE: Final = 120.0
"""Seconds without a beat after which a worker is held to be dead."""


class ClaimLost(Exception):
    """The run was given to another worker, because this one was silent for too long."""


class Claims:
    """The claims of all workers of a comparison.

    Args:
        storage: From :func:`open_storage`.
        comparison: Its name, which sets it apart from others in the same storage.
        runs: Names of its runs.
        patience: Seconds without a beat after which a worker is held to be dead.
    """

    def __init__(
        self,
        storage: BaseStorage,
        comparison: str,
        runs: Iterable[str],
        patience: float = PATIENCE,
    ) -> None:
        self.storage = storage
        self.comparison = comparison
        self.patience = patience
        self._sampler = optuna.samplers.RandomSampler()
        self._studies: dict[str, Study] = {}
        self._beats: dict[tuple[str, int], tuple[object, float]] = {}
        # What ended before this worker began is in the run's folder, or is to be tried again.
        self._before = {
            (run, trial.number)
            for run in runs
            for trial in self._trials(run)
            if trial.state.is_finished()
        }

    def standing(self, run: str) -> Standing:
        """Whose a run is; a claim whose worker is dead is failed on the way."""
        for trial in self._trials(run):
            if trial.state is TrialState.RUNNING and not self._alive(run, trial):
                with suppress(UpdateFinishedTrialError):
                    self._studies[run].tell(
                        trial.number, state=TrialState.FAIL, skip_if_finished=True
                    )
        return self._standing(run)

    def take(self, run: str) -> Claim | None:
        """Claim a run; None where it is not free."""
        if self.standing(run) != "free":
            return None
        study = self._studies[run] = optuna.create_study(
            study_name=self._name(run),
            storage=self.storage,
            sampler=self._sampler,
            direction="maximize",
            load_if_exists=True,
        )
        asked = time.time()
        trial = study.ask()
        if self._standing(run, below=trial.number) != "free":
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            return None
        return Claim(study, trial, self.patience, asked)

    def _standing(self, run: str, below: float = math.inf) -> Standing:
        """By the claims whose number is below."""
        for trial in self._trials(run):
            if trial.number >= below or (run, trial.number) in self._before:
                continue
            if trial.state is TrialState.RUNNING:
                return "held"
            if trial.state is TrialState.COMPLETE:
                return "done"
            if "error" in trial.user_attrs:
                return "failed"
        return "free"

    def _alive(self, run: str, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get("worker", {})
        beat, now = trial.user_attrs.get("beat"), time.monotonic()
        known = self._beats.get((run, trial.number))
        if known is None or known[0] != beat:
            self._beats[run, trial.number] = beat, now
            return True
        return now - known[1] < float(worker.get("patience", self.patience))

    def _trials(self, run: str) -> list[FrozenTrial]:
        """All claims there were on a run, by their numbers."""
        if run not in self._studies:
            try:
                self._studies[run] = optuna.load_study(
                    study_name=self._name(run), storage=self.storage, sampler=self._sampler
                )
            except KeyError:  # nobody has claimed it yet
                return []
        return self._studies[run].get_trials(deepcopy=False)

    def _name(self, run: str) -> str:
        return f"{self.comparison}/{run}"


class Claim:
    """A run that is this worker's, from ``with`` to its end; left unfinished it is free again.

    Args:
        study: The run.
        trial: The claim.
        patience: Seconds of silence after which others may fail it.
        heard: When the storage was last known to be in reach.
    """

    def __init__(self, study: Study, trial: Trial, patience: float, heard: float) -> None:
        self._study = study
        self._trial = trial
        self._patience = patience
        self._count = 0
        self._heard = heard
        self._lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="beat", daemon=True)
        worker = {"host": socket.gethostname(), "process": os.getpid(), "patience": patience}
        with suppress(UpdateFinishedTrialError):  # check() will say so
            trial.set_user_attr("worker", worker)

    def __enter__(self) -> Claim:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._tell(TrialState.FAIL)

    def check(self) -> None:
        """Whether the run is still this worker's; costs nothing while beats arrive.

        Raises:
            ClaimLost: It is not, or nobody can say for so long that another may have it.
        """
        if not self._lost and self._silence() > self._patience / 2:
            self._beat()  # the process was asleep, or its thread could not reach the storage
        if self._lost or self._silence() > 0.75 * self._patience:
            raise ClaimLost(f"{self._study.study_name}: another worker may have taken this run")

    def finish(self, value: float) -> None:
        """The run is done."""
        self._tell(TrialState.COMPLETE, value)

    def fail(self, error: str) -> None:
        """The run ended in an error, which it would meet again."""
        with suppress(UpdateFinishedTrialError):
            self._trial.set_user_attr("error", error)
        self._tell(TrialState.FAIL)

    def _tell(self, state: TrialState, value: float | None = None) -> None:
        with suppress(UpdateFinishedTrialError):  # lost, and so not ours to finish
            self._study.tell(self._trial, value, state=state, skip_if_finished=True)

    def _go_on(self) -> None:
        while not self._over.wait(self._patience / 4):
            self._beat()

    def _beat(self) -> None:
        began = time.time()  # others may count from then on
        try:
            self._trial.set_user_attr("beat", self._count + 1)
        except UpdateFinishedTrialError:
            self._lost = True
        except Exception:  # whatever a storage does when it is out of reach: check() counts time
            return
        else:
            self._count += 1
            self._heard = began

    def _silence(self) -> float:
        """Seconds, on a clock that goes on while the machine sleeps."""
        return abs(time.time() - self._heard)


def open_storage(place: str) -> BaseStorage:
    """The storage at a database URL, or in a journal file.

    A journal file may lie on a disk that several machines share. SQLite may not.

    Raises:
        ValueError: It cannot be opened; the message holds no password.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "://" not in place:
        path = Path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    from sqlalchemy.exc import DBAPIError

    local = place.startswith("sqlite")
    options = {"connect_args": {"timeout": 60}} if local else {"pool_pre_ping": True}
    hindered = DBAPIError, StorageInternalError, AssertionError  # two make the tables at once
    for attempt in range(10):
        try:
            return RDBStorage(place, engine_kwargs=options)
        except Exception as error:
            if attempt == 9 or not isinstance(error, hindered):
                reason = f"{type(error).__name__}: {masked(str(error))}".partition("\n")[0]
                raise ValueError(
                    f"--storage {masked(place)}: cannot be opened ({reason}); give a database URL "
                    "such as postgresql://user:password@host/name, or a file on a shared disk"
                ) from None
            time.sleep(random.random())
    raise AssertionError


def masked(url: str) -> str:
    """A URL without its password."""
    head, at, tail = url.rpartition("@")
    scheme, slashes, account = head.partition("://")
    user, colon, _ = account.partition(":")
    return f"{scheme}{slashes}{user}:***@{tail}" if at and slashes and colon else url
