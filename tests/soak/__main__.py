"""Run trials on all cores, print the table, write it to benchmarks/results."""

from __future__ import annotations

import os

# Before torch is imported: one thread, so that a fork is safe, and nothing is asked of the network.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import argparse
import gc
import json
import shlex
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

SLICE = (0.05, 2)
"""The share of all trials that a slice is taken of, and how many of a group it has."""

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from benchmarks import machine, tables  # noqa: E402

from .groups import GROUPS, MAKERS, all_trials  # noqa: E402
from .trial import Trial  # noqa: E402
from .world import World, import_what  # noqa: E402


def main() -> int:
    options = _options()
    torch.set_num_threads(1)
    begun, facts = time.monotonic(), machine.facts()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="sentei-soak-")).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ |= {"SENTEI_CACHE": str(folder / "cache"), "MPLCONFIGDIR": str(folder / "mpl")}
    world = World(folder, small=options.slice)
    _warm_up(world)
    chosen = {"only": options.only, "makers": options.makers, "each": options.each}
    if options.slice:
        options.share, chosen["each"] = SLICE
    trials = all_trials(world, options.seed, options.share, **chosen)
    print(f"{len(trials)} trials, ready after {time.monotonic() - begun:.0f} s", flush=True)
    gc.freeze()  # children collect their own garbage, not all that was imported
    results = _play(trials, folder, options)
    failed = [result for result in results if result["faults"]]
    if not failed and not options.folder:
        shutil.rmtree(folder)
    seconds = time.monotonic() - begun
    data = summary(trials, results) | {"seed": options.seed, "seconds": round(seconds)}
    table = tables.of_trials(data["groups"])
    if options.write:
        words = sys.argv[1:]
        command = "make soak" if words == ["--write"] else f"python -m tests.soak {' '.join(words)}"
        machine.write("soak", table, data, facts | {"command": command})
        tables.main()
    else:
        print(table)
    if options.results:
        options.results.write_text(json.dumps(data))
    print(f"{len(trials)} trials, {len(failed)} with faults, {seconds:.0f} s")
    return bool(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--only", metavar="PATTERN", help="trials whose 'GROUP: NAME' is like it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="part of all trials")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--folder", help="to work in, and to keep")
    parser.add_argument("--each", type=int, help="so many of a group at most")
    parser.add_argument("--results", type=Path, help="file for them, JSON")
    parser.add_argument("--slice", action="store_true", help="some of each group, of short runs")
    parser.add_argument("--makers", help=f"some of {','.join(MAKERS)}")
    parser.add_argument("--write", action="store_true", help="to benchmarks/results")
    return parser.parse_args()


def _warm_up(world: World) -> None:
    """Import what commands import; the first run of all shows it."""
    from sentei.models.quiet import quiet_transformers

    quiet_transformers()
    out = world.folder / "warm0"
    run = world.prune("platon").typed(out / "run")
    import_what(world.folder, [run])
    _draw(out / "run")


def _draw(run: Path) -> None:
    """Charts have fonts looked up once; children find them so."""
    from sentei import report as reports

    try:
        reports.write(reports.read(run), run)
    except ModuleNotFoundError:
        return


def _play(trials: list[Trial], folder: Path, options: argparse.Namespace) -> list[dict]:
    """Every trial, by as many processes as there are jobs; each takes the next one."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        for number in range(len(trials)):
            os.write(write, struct.pack("i", number))
        os._exit(0)
    os.close(write)
    workers = []
    for job in range(options.jobs):
        log = folder / f"results{job}.jsonl"
        pid = os.fork()
        if pid == 0:
            try:
                _work(read, trials, folder, log, options)
            finally:
                os._exit(0)
        workers.append(pid)
    os.close(read)
    for pid in workers:
        os.waitpid(pid, 0)
    lines = [line for log in folder.glob("results*.jsonl") for line in log.open()]
    results = sorted((json.loads(line) for line in lines), key=lambda result: result["number"])
    lost = len(trials) - len(results)
    assert not lost, f"{lost} trials have no result: a worker has died"
    return results


def _work(
    read: int, trials: list[Trial], folder: Path, log: Path, options: argparse.Namespace
) -> None:
    with log.open("a", encoding="utf-8") as file:
        while packed := os.read(read, 4):
            (number,) = struct.unpack("i", packed)
            trial = trials[number]
            place = folder / "trials" / str(number)
            place.mkdir(parents=True)
            begun, before = time.monotonic(), _used()
            try:
                faults = [one.replace(str(folder), "...") for one in trial.play(place)]
            except Exception as error:
                import traceback

                traceback.print_exc()
                faults = [f"harness: {type(error).__name__}: {error}"]
            result = {"number": number, "group": trial.group, "name": trial.name}
            result |= {"faults": faults, "seconds": round(time.monotonic() - begun, 3)}
            result["cpu"] = round(_used() - before, 3)
            file.write(json.dumps(result) + "\n")
            file.flush()
            if faults:
                _tell(trial, faults, place, options)
            elif not options.folder:
                shutil.rmtree(place, ignore_errors=True)


def _used() -> float:
    """Seconds of processors that this process and those it has waited for have taken."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _tell(trial: Trial, faults: list[str], place: Path, options: argparse.Namespace) -> None:
    name = f"{trial.group}: {trial.name}"
    kind = "--slice " if options.slice else ""
    again = f"python -m tests.soak {kind}--seed {options.seed} --only {shlex.quote(name)}"
    lines = [f"FAULT {name}", *(f"  {fault}" for fault in faults), f"  {place}", f"  {again}"]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text.encode("ascii", "backslashreplace").decode())
    sys.stdout.flush()


def summary(trials: list[Trial], results: list[dict]) -> dict:
    """What came of each group, and every trial with faults."""
    groups = []
    for group in GROUPS:
        mine = [result for result in results if result["group"] == group]
        kinds = Counter(
            kind
            for result in mine
            for kind in {fault.partition(":")[0] for fault in result["faults"]}
        )
        kills = sum(trial.kills for trial in trials if trial.group == group)
        good = sum(not result["faults"] for result in mine)
        counts = {"tried": len(mine), "kills": kills, "good": good, "faults": dict(kinds)}
        if mine:
            groups.append({"group": group, **counts})
    return {"groups": groups, "faults": [result for result in results if result["faults"]]}


if __name__ == "__main__":
    sys.exit(main())
