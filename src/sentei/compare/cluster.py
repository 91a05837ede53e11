"""A comparison on a cluster: every run is a task of Ray's, on whichever machine has room for it.

The command looks for runs that are free and hands them out. A task makes its run as a worker does,
under a lease, in the folder that all machines share; what is done is said by that folder alone.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

try:
    import ray
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "a cluster is asked through ray: pip install 'sentei[cluster]'", name=error.name
    ) from error
from ray.exceptions import RayError, RayTaskError, TaskCancelledError
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sentei._version import VERSION
from sentei.compare.remote import Job, Lines, Made, Refusal, make
from sentei.compare.runs import Run, Runs
from sentei.compare.states import SETTLED, Standing, State
from sentei.compare.worker import LOOK, PATIENCE, Event, Leases, What
from sentei.files import write_text
from sentei.messages import counted, cut
from sentei.run.signals import Listener, Stopped

TICK: Final = 0.5
"""Seconds between two looks at what the tasks tell."""

REACH: Final = 10.0
"""Seconds in which the address of a cluster answers."""

STORE: Final = 80 * 2**20
"""Bytes for objects where Ray is started here: nothing large goes through it."""


@dataclass(frozen=True)
class Shares:
    """What runs get of a cluster.

    Args:
        address: ``auto`` (the one that this machine belongs to), its ``HOST:PORT``, or ``local``:
            Ray is started on this machine, for this command.
        gpus: Of each run; parts of one are possible. None takes one where any machine has GPUs.
        cpus: Of each run.
        retries: How often a run whose process died is gone on with.
    """

    address: str
    gpus: float | None = None
    cpus: float = 1.0
    retries: int = 3


class Cluster:
    """The process that hands out the runs of a comparison. It makes none.

    Args:
        runs: Of the comparison.
        shares: Where, and what each run gets.
        only: The runs to make, each after what it needs; None makes all.
        patience: Seconds without a sign of life after which a run is taken over; the same for all
            who are at work in the folder.
        lines: Makes what watches a run, on its machine; None shows no progress.
        tell: Hears what happens.
        launch: Command that starts every run; None runs it in the process of its task.
        wait: Stay while workers of others are at runs.
        keep: Leave the checkpoints of finished runs, and the models of trials.
    """

    def __init__(
        self,
        runs: Runs,
        shares: Shares,
        *,
        only: Sequence[Run] | None = None,
        patience: float = PATIENCE,
        lines: Lines | None = None,
        tell: Callable[[Event], None] = lambda event: None,
        launch: str | None = None,
        wait: bool = True,
        keep: bool = False,
    ) -> None:
        self.runs = runs
        self.shares = shares
        self.selected = list(runs.values()) if only is None else only
        self.standing = Standing(runs, self.selected)
        self.leases = Leases(patience)
        self._tell = tell
        self._wait = wait
        self._how: dict[str, Any] = {"lines": lines, "launch": launch, "keep": keep}
        self._listener = Listener()
        self._at: dict[Any, Run] = {}
        self._begun: dict[str, float] = {}
        self._crashes = Counter[str]()

    def work(self) -> bool:
        """Hand out what is free until nothing is left to do.

        Returns:
            Whether every run it was to make has its result.

        Raises:
            Stopped: A signal came; the runs at work left checkpoints, and are free again.
            SaveError: The disk is full or not writable.
            ValueError: The cluster cannot be reached or has no such machine, one of its machines
                does not see the folder or has another version, the plan has changed since, or a
                worker has another patience.
        """
        # Of dead processes Ray tells on standard output.
        with (
            connected(self.shares.address),
            redirect_stdout(sys.stderr),
            _marked(self.runs.out) as mark,
            self._listener.listening(),
        ):
            gpus = self._gpus()
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), False)
            self._queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
            self._job = ray.put(
                Job(
                    version=VERSION,
                    plan=self.runs.plan,
                    out=self.runs.out,
                    mark=mark,
                    driver=socket.gethostname(),
                    queue=self._queue,
                    gpus=gpus,
                    patience=self.leases.patience,
                    **self._how,
                )
            )
            # Ray would begin it again at once, to wait there for the lease of the dead process.
            asked = {"num_cpus": self.shares.cpus, "num_gpus": gpus, "max_retries": 0}
            self._task = ray.remote(**asked)(make)
            try:
                return self._work()
            finally:
                self._stop()

    def _gpus(self) -> float:
        """Of each run; checked against what the machines have."""
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus, cpus = self.shares.gpus, self.shares.cpus
        if gpus is None:
            gpus = float(any(machine.get("GPU", 0) >= 1 for machine in machines))
        if not any(m.get("GPU", 0) >= gpus and m.get("CPU", 0) >= cpus for m in machines):
            asked = f"--gpus {gpus:g} --cpus {cpus:g}: no machine of the cluster has as many"
            if self.shares.address == "local":
                raise ValueError(f"{asked}; ask for less")
            self._say("wait", text=f"{asked} now; runs wait for one that has, or ask for less")
        return gpus

    def _work(self) -> bool:
        waiting = False
        while not self._listener.heard:
            states = self.standing.states()
            if not self._at and all(state in SETTLED for state in states.values()):
                return all(state == "done" for state in states.values())
            self._hand_out(states)
            if not self._at:
                interrupted = any(states[name] == "open" for name in self._crashes)
                if not self._wait and not interrupted:
                    return False
                if not waiting:
                    self._say("wait")
            waiting = not self._at
            self._attend()
        assert self._listener.number is not None
        raise Stopped(self._listener.number)

    def _hand_out(self, states: dict[str, State]) -> None:
        """Make tasks of the open runs that nobody is at; Ray begins them as there is room."""
        at = {run.name for run in self._at.values()}
        for run in self.selected:
            if states[run.name] != "open" or run.name in at or not (lease := self.leases.take(run)):
                continue
            with lease:  # the task takes it again
                if self._crashes[run.name] > self.shares.retries:
                    self._give_up(run)
                    continue
            self._at[self._task.remote(self._job, run.name)] = run

    def _attend(self) -> None:
        """Pass on what the tasks tell, until one has ended or it is time to look again."""
        end = time.monotonic() + min(LOOK, self.leases.patience / 10)
        while time.monotonic() < end and not self._listener.heard:
            if any([self._end(task) for task in self._ended()]):
                return

    def _end(self, task: Any) -> bool:
        """Whether a task that has ended was at its run; another may have been before it."""
        run = self._at.pop(task)
        try:
            ended: Made | Refusal = ray.get(task)
        except TaskCancelledError:
            return True
        except RayTaskError as error:
            if "failed to import" not in str(error):
                raise
            last = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"a machine of the cluster cannot import Sentei ({last}); install version "
                f"{VERSION} there, with what the runs need"
            ) from None
        except RayError as error:
            self._note_crash(run, error)
            return True
        if isinstance(ended, Refusal):
            raise ended.kind(*ended.words)
        for event in ended.events:
            if event.what == "done" and run.name in self._begun:
                self.standing.took(run, time.monotonic() - self._begun[run.name])
            self._tell(replace(event, run=run, tally=self.standing.tally()))
        return ended.free

    def _note_crash(self, run: Run, error: RayError) -> None:
        self._crashes[run.name] += 1
        said = f"its process died ({cut(' '.join(str(error).split()), 200)})"
        if self._crashes[run.name] <= self.shares.retries:
            said += "; it goes on from its newest checkpoint"
        self._say("lost", run, said)

    def _give_up(self, run: Run) -> None:
        said = (
            f"its process died {counted(self._crashes[run.name], 'time')}, more often than "
            f"--retries {self.shares.retries} allows"
        )
        write_text(run.error_file, f"{said}\n")
        self._say("failed", run, said)

    def _stop(self) -> None:
        """Have the runs at work leave checkpoints, and wait for it."""
        if not self._at:
            return
        self._say("stop", text=f"stopping {counted(len(self._at), 'run')}")
        for task in self._at:
            ray.cancel(task)
        while self._at:
            for task in self._ended():
                with suppress(RayError, ValueError, OSError):  # as another before it
                    self._end(task)

    def _ended(self) -> list[Any]:
        """Tasks that have ended, after a moment; all that was told before is passed on."""
        ended: list[Any] = []
        if self._at:
            ended, _ = ray.wait([*self._at], timeout=TICK)
        else:
            time.sleep(TICK)
        for name, what, text, machine in self._queue.get_nowait_batch(self._queue.qsize()):
            if what == "begin":
                self._begun[name] = time.monotonic()
            self._say(what, self.runs[name], text, machine)
        return ended

    def _say(self, what: What, run: Run | None = None, text: str = "", machine: str = "") -> None:
        self._tell(Event(what, self.standing.tally(), run, text=text, machine=machine))


@contextmanager
def _marked(out: Path) -> Iterator[Path]:
    """A file in the folder, while the block lasts: who sees it sees the same folder."""
    mark = out / f".{secrets.token_hex(8)}.cluster"
    write_text(mark, "")
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to a cluster, or to Ray started here, while the block lasts.

    Args:
        address: As in :class:`Shares`.

    Raises:
        ValueError: It is no address, nobody answers there, or Ray does not start.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    how: dict[str, Any] = {}
    if address == "local":
        how = {"include_dashboard": False, "object_store_memory": STORE}
        # Ray listens on all networks. Without a secret of ours it leaves one in the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif address != "auto":
        _check_answers(address)
    try:
        try:
            ray.init(address, log_to_driver=False, logging_level="error", **how)
        except Exception as error:
            raise ValueError(
                f"--ray {address}: {cut(' '.join(str(error).split()), 300)}"
            ) from error
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes."""
    if "://" in address:
        raise ValueError(
            f"--ray {address}: Ray's clients are not supported; start the command on a machine of "
            "the cluster, with --ray auto"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--ray {address}: is neither auto nor local nor HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"--ray {address}: nobody answers there ({error}); it is the address that `ray start "
            "--head` says"
        ) from error
