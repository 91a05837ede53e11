"""Many callers, interrupts, forks, and programs that come and go."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from helpers.random_encoders import batch, encoder, outputs
from sentei.runtime import library, program
from sentei.runtime.program import Program
from sentei.runtime.threads import Threads

TESTS = Path(__file__).parents[2]
LENGTHS = [5, 90, 1, 33, 64, 7, 128, 2]


@pytest.fixture(autouse=True)
def teams(monkeypatch):
    """Small programs have teams too."""
    monkeypatch.setattr(program, "LEAST_WORK", 1e-3)


@pytest.mark.parametrize("callers", [2, 8])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_callers_at_the_same_time(callers, size):
    """Every one gets what it gets alone, to the bit."""
    some = encoder(relative=True)
    made = Program(some, threads=size)
    batches = [batch(some, LENGTHS[i % 3 :], seed=i) for i in range(callers)]
    alone = [outputs(made, one, some.hidden) for one in batches]
    start = threading.Barrier(callers)

    def call(number):
        start.wait()
        return [outputs(made, batches[number], some.hidden) for _ in range(5)]

    with ThreadPoolExecutor(callers) as pool:
        for results, exact in zip(pool.map(call, range(callers)), alone, strict=True):
            assert all((one == exact).all() for one in results)


def test_programs_at_the_same_time():
    some = [encoder(seed=seed) for seed in range(3)]
    made = [Program(one, threads=2) for one in some]
    packed = batch(some[0], LENGTHS)
    alone = [outputs(one, packed, 32) for one in made]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(5):
            for found, exact in zip(
                pool.map(lambda one: outputs(one, packed, 32), made), alone, strict=True
            ):
                assert (found == exact).all()


def test_closing_lets_the_next_call_be():
    some = encoder()
    made, packed = Program(some, threads=2), batch(some, LENGTHS)
    first = outputs(made, packed, 32)
    made.close()
    assert (outputs(made, packed, 32) == first).all()
    made.close()
    made.close()


def resident() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def test_programs_that_come_and_go_leave_nothing():
    some = encoder(hidden=64, neurons=(512, 512), density=0.5)
    packed = batch(some, LENGTHS)

    def once():
        made = Program(some, threads=2)
        outputs(made, packed, some.hidden)
        made.close()

    for _ in range(20):  # what the allocator keeps for itself
        once()
    before = resident()
    for _ in range(100):
        once()
    assert resident() - before < 12  # weights and buffers are more than a MiB each time


def test_a_failure_in_one_thread_is_raised_and_the_next_call_is_well():
    pool = Threads()

    def fails(number):
        if number == 1:
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        pool.together(fails, 3)
    seen = []
    pool.together(seen.append, 3)
    assert sorted(seen) == [0, 1, 2]


def test_memory_that_is_not_there_leaves_no_thread_waiting(monkeypatch):
    """One thread of a team gets no scratch: the others end, and the error is raised."""
    some = encoder()
    made, packed = Program(some, threads=3), batch(some, [40])
    exact = outputs(made, packed, 32)
    given = made._scratch
    turns = iter(range(100))

    def scratch(size):
        if next(turns) == 1:
            raise MemoryError
        return given(size)

    monkeypatch.setattr(made, "_scratch", scratch)
    with pytest.raises(MemoryError):
        outputs(made, packed, 32)
    assert (outputs(made, packed, 32) == exact).all()


INTERRUPTED = """
import faulthandler, os, signal, sys, threading, time
from helpers.random_encoders import batch, encoder, outputs
from sentei.runtime import program
from sentei.runtime.program import Program

program.LEAST_WORK = 1e-3
faulthandler.dump_traceback_later(60, exit=True)
size, lengths = int(sys.argv[1]), [int(one) for one in sys.argv[2].split(",")]
some = encoder(hidden=16, heads=(1,))
made, packed = Program(some, threads=size), batch(some, lengths)
exact = outputs(made, packed, 16)
going, inside = True, False

def handler(*some):
    global inside
    if inside:  # not where this script itself has caught the one before
        inside = False
        raise KeyboardInterrupt

def interrupt():
    while going:
        time.sleep(0.0004 if interrupts % 4 else 0.01)  # now and then a call ends
        os.kill(os.getpid(), signal.SIGINT)

thread = threading.Thread(target=interrupt)
interrupts = right = 0
end = time.monotonic() + 30
signal.signal(signal.SIGINT, handler)
thread.start()
while going or thread.is_alive():
    try:
        inside = True
        while interrupts < 300 and time.monotonic() < end:
            right += bool((outputs(made, packed, 16) == exact).all()) or -10**9
        going = inside = False
        thread.join()
    except KeyboardInterrupt:
        interrupts += 1
assert (outputs(made, packed, 16) == exact).all()
print(interrupts >= 300, right > 0, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of its own kind")
@pytest.mark.parametrize("size, lengths", [(1, "40"), (3, "40"), (2, "70,60,90,200")])
def test_interrupts(size, lengths):
    """Ctrl-C ends a call with KeyboardInterrupt, wherever it comes; those after it are right."""
    source = Path(library.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(size), lengths],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(source)])},
    )  # fmt: skip
    assert done.stdout.split() == ["True", "True"], done.stderr[-2000:]


def test_interrupts_end_a_team_first():
    """The handler that was there is called once all members have ended, and is there again."""
    seen, pool = [], Threads()

    def handler(*some):
        seen.append("handler")

    def work(number):
        if number == 0:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.01 * number)
        seen.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        pool.together(work, 3)
        assert seen == [0, 1, 2, "handler"]
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_has_threads_of_its_own():
    some = encoder()
    made, packed = Program(some, threads=3), batch(some, LENGTHS)
    exact = outputs(made, packed, 32)
    child = os.fork()
    if not child:
        signal.alarm(30)
        same = all((outputs(made, packed, 32) == exact).all() for _ in range(3))
        os._exit(0 if same else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert (outputs(made, packed, 32) == exact).all()
