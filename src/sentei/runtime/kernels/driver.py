"""The loop of one thread over the stages of a program.

All threads of a team run it. An item of a stage is taken by whoever is free (one atomic addition);
a stage begins when every thread has left the one before. Who waits spins, and after a while lets
others have the core.
"""

from __future__ import annotations

from enum import IntEnum, auto

from sentei.runtime.ir import INDEX, POINTER, Function, Value
from sentei.runtime.kernels.kernel import Call

PATIENCE = 20000
"""Turns of waiting before the core is offered to others."""


class Stage(IntEnum):
    """Words of a stage."""

    KIND = 0  # of items: 0 panels, 1 blocks of queries
    PARTS = auto()  # parts of each item
    FIRST = auto()  # operations, in the list of all
    COUNT = auto()


class Operation(IntEnum):
    """Words of an operation."""

    SMALL = 0  # the kernel's addresses, for each class of items
    MIDDLE = auto()
    LARGE = auto()
    ARGUMENTS = auto()


PARAMETERS = (
    ("stages", POINTER),
    ("count", INDEX),
    ("operations", POINTER),
    ("call", POINTER),
    ("scratch", POINTER),
    ("team", INDEX),
    ("pause", POINTER),
)


def build() -> Function:
    """The driver; ``pause`` is the address of what gives the core away, or 0."""
    f = Function("drive", PARAMETERS)
    stages, count, operations, call, scratch, team, pause = f.parameters
    counters, barrier, lengths, classes = (
        call.load(POINTER, 8 * word, 8)
        for word in (Call.COUNTERS, Call.BARRIER, Call.LENGTHS, Call.CLASSES)
    )
    with f.loop(0, count) as loop:
        stage = stages.at(loop.index * (8 * len(Stage)))
        kind, parts, first, many = (stage.load(INDEX, 8 * word, 8) for word in Stage)
        total = lengths.load(INDEX, kind * 8, 8) * parts
        of_kind = classes.load(POINTER, kind * 8, 8)
        counter = counters.at(loop.index * 64)
        with f.spin() as done:
            taken = _add_one(f, counter)
            with f.when(taken.less(total)):
                item, part = taken / parts, taken % parts
                form = of_kind.load(INDEX, item * 8, 8)
                with f.loop(first, first + many) as each:
                    operation = operations.at(each.index * (8 * len(Operation)))
                    address = operation.load(POINTER, form * 8, 8)
                    arguments = operation.load(POINTER, 8 * Operation.ARGUMENTS, 8)
                    f.call_address(address, arguments, call, scratch, item, part, parts)
            done.append(f.number(INDEX, 0).less(taken - total + 1))
        _wait(f, barrier, loop.index, team, pause)
    return f


def _add_one(f: Function, place: Value) -> Value:
    """Add 1 for all threads to see; gives what was there."""
    return f.assign(INDEX, f"atomicrmw add ptr {place.name}, i64 1 acq_rel, align 8")


def _wait(f: Function, barrier: Value, stage: Value, team: Value, pause: Value) -> None:
    """Until all threads of the team have come here as often."""
    goal = (stage + 1) * team
    arrived = _add_one(f, barrier)
    with f.when(arrived.less(goal - 1)):
        turns = f.local(INDEX)
        turns.store(f.number(INDEX, 0), 0, 8)
        with f.spin() as done:
            now = f.assign(INDEX, f"load atomic i64, ptr {barrier.name} acquire, align 8")
            turn = turns.load(INDEX, 0, 8) + 1
            turns.store(turn, 0, 8)
            known = f.assign("i1", f"icmp ne ptr {pause.name}, null")
            late = f.number(INDEX, PATIENCE).less(turn)
            with f.when(f.assign("i1", f"and i1 {known.name}, {late.name}")):
                f.emit(f"call void {pause.name}()")
            done.append((goal - 1).less(now))
