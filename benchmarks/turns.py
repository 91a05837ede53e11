"""The code of another checkout beside this one's, in turns: what is faster now, and what is slower.

Each checkout's library runs in a process of its own, under this checkout's benchmark, and waits
until it is told to work; who begins changes from round to round. So both see the same machine, and
what is compared are the two times of one round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

Times = dict[str, tuple[float, float]]
"""Seconds on the clock, and of the processor in all threads, by what took them."""


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that something takes, on the clock and of the processor."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy


def serve(work: Callable[[], Times]) -> None:
    """Work whenever a line comes, and print the times; what else is printed goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(work()), file=answers, flush=True)


def in_turns(words: Sequence[str], other: Path, rounds: int) -> list[tuple[Times, Times]]:
    """The times of this checkout and of another one, round by round.

    Args:
        words: Of the command, after ``python -m``; it calls :func:`serve`.
        other: The root of the other checkout.
        rounds: How many times each works, in each of the two orders in which they are started.

    Raises:
        ValueError: There is no library at ``other``.
        RuntimeError: A process ended early.
    """
    if not (other / "src" / "sentei").is_dir():
        raise ValueError(f"{other} is no checkout of Sentei: it has no src/sentei")
    roots = (ROOT, other.resolve())
    return [pair for order in ((0, 1), (1, 0)) for pair in _rounds(words, roots, order, rounds)]


def _rounds(
    words: Sequence[str], roots: Sequence[Path], order: Sequence[int], rounds: int
) -> list[tuple[Times, Times]]:
    """The times of two processes that were started in an order: it favours the second one."""
    processes = dict[int, subprocess.Popen[str]]()
    try:
        for place in order:
            processes[place] = _start(words, roots[place])
            _answer(processes[place])  # warm before the next one: together they would crawl
        found = []
        for number in range(rounds):
            pair: list[Times] = [{}, {}]
            for place in (0, 1) if number % 2 == 0 else (1, 0):
                process = processes[place]
                assert process.stdin is not None
                print(file=process.stdin, flush=True)
                pair[place] = json.loads(_answer(process))
            found.append((pair[0], pair[1]))
        return found
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


def _start(words: Sequence[str], root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{ROOT}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended with {process.wait()}")
    return line


def revision(root: Path) -> str:
    """The commit of a checkout."""
    words = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def table(rounds_of: Mapping[str, Sequence[tuple[Times, Times]]]) -> str:
    """A row for all that was timed, by name and part of it."""
    lines = [
        "| what | ms now | ms before | now / before | of processor time |",
        "|---|---|---|---|---|",
    ]
    for name, rounds in rounds_of.items():
        for part in rounds[0][0]:
            now, before = ([one[side][part] for one in rounds] for side in (0, 1))
            ratios = [
                statistics.median(a[i] / b[i] for a, b in zip(now, before, strict=True))
                for i in (0, 1)
            ]
            ms = [1e3 * statistics.median(one[0] for one in side) for side in (now, before)]
            lines.append(
                f"| {', '.join(filter(None, (name, part)))} | {ms[0]:.0f} | {ms[1]:.0f} "
                f"| {ratios[0]:.2f} | {ratios[1]:.2f} |"
            )
    return "\n".join(lines)
