"""The folder of a comparison: its plan, complete, and where its claims are kept.

plan.yaml        what is compared; written by the first worker, read by all
claims.yaml      the comparison's name, and the storage of its claims, without a password
claims.log       that storage, unless --storage names another
runs/ search/    the runs
compare.json     the results for machines
compare.html     the same for people
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sentei.compare import plan as plans
from sentei.compare.cells import Cell, Grid, check, write_once
from sentei.compare.claims import masked
from sentei.compare.plan import Plan
from sentei.files import write_text

PLAN_FILE, CLAIMS_FILE, JOURNAL = "plan.yaml", "claims.yaml", "claims.log"
SQLITE = "sqlite:///"
"""Before a path; an absolute one makes it four slashes."""


@dataclass(frozen=True)
class Begun:
    """A comparison that is under way: its runs, its name, and the storage of its claims."""

    grid: Grid
    name: str
    storage: str


def begin(plan: Plan | None, out: Path, storage: str | None = None) -> Begun:
    """Begin a comparison in ``out``, or join the one that is there.

    Args:
        plan: None goes on with the plan that is there. Another may add to it, and change what is
            not begun.
        out: The folder.
        storage: A database URL or a journal file; None takes the one in use, or ``claims.log``.

    Raises:
        ValueError: There is no plan, or it does not fit what is there: names the first difference.
    """
    there = _there(out)
    if plan is None and there is None:
        raise ValueError(
            f"{out / PLAN_FILE}: no comparison was begun here; name a plan file, or --model, "
            "--task and --method"
        )
    if plan is not None and there is None:
        check(Grid(plan, out))
        write_once(out / PLAN_FILE, plan.dump())
        there = plans.load(out / PLAN_FILE)  # another worker may have been first
    assert there is not None
    if plan is not None and plan != there:
        refuse_changes(Grid(there, out), Grid(plan, out))
        check(Grid(plan, out))
        write_text(out / PLAN_FILE, plan.dump())
    name, place = _claims(out, storage)
    return Begun(Grid(plan or there, out), name, place)


def _there(out: Path) -> Plan | None:
    """The plan in ``out``, which is written before anything else."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise ValueError(f"--out {out}: a file is in the way; name a folder")
    names = [path.name for path in out.iterdir() if not path.name.startswith(".")]
    if names and PLAN_FILE not in names:
        raise ValueError(f"--out {out}: the folder is not empty; name a new or empty folder")
    return plans.load(out / PLAN_FILE) if names else None


def check_still_asked(grid: Grid, cell: Cell) -> None:
    """Refuse to make a run that the plan, which another may have changed, asks for otherwise.

    Raises:
        ValueError: Names what differs.
    """
    plan = plans.load(grid.out / PLAN_FILE)
    if plan == grid.plan:
        return
    now = Grid(plan, grid.out)
    changed = f"{grid.out / PLAN_FILE} was changed since this worker began, and"
    if cell.name not in now.cells:
        raise ValueError(f"{changed} leaves {cell.name} out: start the worker again")
    before, after = _asked(grid, cell), _asked(now, now.cells[cell.name])
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            raise ValueError(
                f"{changed} asks for {cell.name} with {key}={after.get(key)} where it was "
                f"{before.get(key)}: start the worker again"
            )


def refuse_changes(old: Grid, new: Grid) -> None:
    """Refuse a plan that leaves out or changes runs that were begun.

    Raises:
        ValueError: Names the first such run, and what differs.
    """
    for name, cell in old.cells.items():
        if not cell.begun:
            continue
        keep = f"{old.out / PLAN_FILE}: {name} is {'done' if cell.done else 'begun'}"
        fix = "keep it as it was, or compare in another folder"
        if name not in new.cells:
            raise ValueError(f"{keep}, and the plan now leaves it out; {fix}")
        before, after = _asked(old, cell), _asked(new, new.cells[name])
        for key in sorted(before.keys() | after.keys()):
            was, now = before.get(key), after.get(key)
            if was != now:
                raise ValueError(f"{keep} with {key}={was}, and the plan now says {now}; {fix}")


def _asked(grid: Grid, cell: Cell) -> dict[str, Any]:
    """What a run is asked to do, flat: its settings, its recipe, and what it is searched over."""
    asked = _flat(cell.settings.model_dump(mode="json"))
    if cell.search:
        tuning = grid.tunings[cell.search]
        space = {name: choice.model_dump(mode="json") for name, choice in tuning.space.items()}
        asked |= _flat({"search": {**space, "trials": len(tuning.trials)}})
    return asked


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict) or not data:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _claims(out: Path, given: str | None) -> tuple[str, str]:
    """The comparison's name and storage, the same for all workers, whoever came first."""
    if given and "://" not in given:
        given = os.path.abspath(given)
    elif given and given.startswith(SQLITE) and not given.startswith(f"{SQLITE}/"):
        given = SQLITE + os.path.abspath(given.removeprefix(SQLITE))  # for workers elsewhere
    told = masked(given) if given else JOURNAL
    file = out / CLAIMS_FILE
    name = f"sentei-{uuid.uuid4().hex[:12]}"
    write_once(file, yaml.safe_dump({"comparison": name, "storage": told}))
    try:
        kept = yaml.safe_load(file.read_text("utf-8"))
        name, place = str(kept["comparison"]), str(kept["storage"])
    except (yaml.YAMLError, KeyError, TypeError) as error:
        reason = type(error).__name__
        raise ValueError(f"{file}: damaged ({reason}); remove it to begin new claims") from None
    if given and told != place:
        raise ValueError(
            f"--storage {told}: the workers of {out} keep their claims in {place}; leave the "
            "option out, or compare in another folder"
        )
    if not given and ":***@" in place:
        raise ValueError(
            f"{file}: the claims are in {place}; name it again with --storage, with its password"
        )
    return name, given or (str(out / JOURNAL) if place == JOURNAL else place)
