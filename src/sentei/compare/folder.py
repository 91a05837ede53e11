"""The folder of a comparison, which its workers share.

plan.yaml        what is compared, complete; written by the first worker, read by all
runs/ search/    the runs
search.log       what a search drew from ranges, as Optuna's journal
compare.json     the results for machines
compare.html     the same for people
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sentei.compare import plan as plans
from sentei.compare.plan import Plan
from sentei.compare.runs import Run, Runs
from sentei.files import check_place, write_once, write_text
from sentei.run.options import flat
from sentei.run.prepare import planned, pruning_steps
from sentei.run.teacher import choose_teacher, unless_labels_suffice
from sentei.tasks.corpus import Corpus, load_corpus

PLAN_FILE: Final = "plan.yaml"


def begin(plan: Plan | None, out: Path) -> Runs:
    """Begin a comparison in ``out``, or join the one that is there.

    Args:
        plan: None goes on with the plan that is there. Another may add to it, and change what is
            not begun.
        out: The folder.

    Raises:
        ModuleNotFoundError: It draws values from ranges, and the extra ``search`` is not installed.
        ValueError: There is no plan, or it does not fit what is there: names the first difference.
    """
    check_place(out)
    kept = _kept(out)
    declared = plan or kept
    if declared is None:
        raise ValueError(
            f"{out / PLAN_FILE}: no comparison was begun here; name a plan file, or --model, "
            "--task and --method"
        )
    runs = Runs(declared, out)
    if any(search.ranged for search in runs.searches.values()):
        import sentei.compare.ranges  # noqa: F401  # which says what is missing
    if kept is None:
        check(runs)
        write_once(out / PLAN_FILE, declared.dump())
        kept = plans.load(out / PLAN_FILE)  # another worker may have been first
    if declared != kept:
        refuse_changes(Runs(kept, out), runs)
        check(runs)
        write_text(out / PLAN_FILE, declared.dump())
    return runs


def check(runs: Runs) -> None:
    """Refuse what could not run, before anything does: reads each task's data once.

    Raises:
        ValueError: Names the run and the reason.
    """
    corpora: dict[tuple[str, float | None], Corpus] = {}
    for run in runs.values():
        settings, task, training = run.settings, run.settings.task, run.settings.training
        try:
            key = run.task, task.holdout
            if key not in corpora:
                corpora[key] = load_corpus(task, training.seed)
            examples = len(corpora[key].train)
            recipe = planned(settings).with_examples(examples)
            if task.one_each:  # else only the run itself knows its steps
                recipe.check(pruning_steps(examples, training))
            choice = choose_teacher(settings, recipe)
            unless_labels_suffice(choice, settings, recipe, corpora[key])
        except ValueError as error:
            raise ValueError(f"{run.name}: {error}") from None


def check_still_planned(runs: Runs, run: Run) -> None:
    """Refuse to make a run that the plan, which another may have changed, declares otherwise.

    Raises:
        ValueError: Names what differs.
    """
    plan = plans.load(runs.out / PLAN_FILE)
    if plan == runs.plan:
        return
    now = Runs(plan, runs.out)
    changed = f"{runs.out / PLAN_FILE} was changed since this worker began, and"
    if run.name not in now:
        raise ValueError(f"{changed} leaves {run.name} out: start the worker again")
    before, after = _declared(runs, run), _declared(now, now[run.name])
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            raise ValueError(
                f"{changed} asks for {run.name} with {key}={after.get(key)} where it was "
                f"{before.get(key)}: start the worker again"
            )


def refuse_changes(old: Runs, new: Runs) -> None:
    """Refuse a plan that leaves out or changes runs that were begun.

    Raises:
        ValueError: Names the first such run, and what differs.
    """
    for name, run in old.items():
        if not run.begun:
            continue
        keep = f"{old.out / PLAN_FILE}: {name} is {'done' if run.done else 'begun'}"
        fix = "keep it as it was, or compare in another folder"
        if name not in new:
            raise ValueError(f"{keep}, and the plan now leaves it out; {fix}")
        before, after = _declared(old, run), _declared(new, new[name])
        for key in sorted(before.keys() | after.keys()):
            was, now = before.get(key), after.get(key)
            if was != now:
                raise ValueError(f"{keep} with {key}={was}, and the plan now says {now}; {fix}")


def _kept(out: Path) -> Plan | None:
    """The plan in ``out``, which is written before anything else."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise ValueError(f"--out {out}: a file is in the way; name a folder")
    names = [path.name for path in out.iterdir() if not path.name.startswith(".")]
    if names and PLAN_FILE not in names:
        raise ValueError(f"--out {out}: the folder is not empty; name a new or empty folder")
    return plans.load(out / PLAN_FILE) if names else None


def _declared(runs: Runs, run: Run) -> dict[str, Any]:
    """What a run is to do, flat: its settings, its recipe, and what it is searched over."""
    recipe = _flat({"recipe": run.settings.recipe})
    declared = flat(run.settings.model_dump(mode="json")) | recipe
    if run.search:
        search = runs.searches[run.search]
        space = {name: choice.model_dump(mode="json") for name, choice in search.space.items()}
        declared |= _flat({"search": {**space, "trials": len(search.trials)}})
    return declared


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict) or not data:
        return {prefix: data}
    values: dict[str, Any] = {}
    for key, value in data.items():
        values |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return values
