"""Programs beside the reference in float64: every length, batch, shape and precision.

fp32 is right to 1e-4 of the largest output. bf16 has a bound of 2 %, which is 5 roundings to 2**-8,
and int8 of 6 %: tiny layers of random weights, whose errors do not average out. The mean error is
held to a fifth of that.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.kernels import CPUS, FORMS, load_apart, targets
from helpers.random_encoders import batch, encoder, error, expected, outputs
from sentei.runtime import library, program
from sentei.runtime.encoder import Unsupported
from sentei.runtime.program import Program

BOUNDS = {"fp32": 1e-4, "bf16": 0.02, "int8": 0.06}
FEWER = [form for form in FORMS if form[0] != "vnni"]
few = settings(derandomize=True, deadline=None, database=None, max_examples=8)

shapes = st.fixed_dictionaries(
    {
        "hidden": st.sampled_from([16, 20, 28, 36, 64, 100]),
        "heads": st.lists(st.integers(1, 4), min_size=1, max_size=3),
        "head_size": st.sampled_from([2, 6, 8, 10, 32]),
        "density": st.sampled_from([0, 0.05, 0.3, 0.9, 1]),
        "norm_first": st.booleans(),
        "activation": st.sampled_from(["gelu", "gelu_tanh", "relu"]),
        "relative": st.booleans(),
        "tables": st.sampled_from([0, 2, 3]),
        "seed": st.integers(0, 99),
    }
)


@pytest.fixture(autouse=True, scope="module")
def one_by_one():
    """Kernels are compiled one by one, so that the many programs here share them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "load", load_apart)
        patch.setattr(program, "host", lambda isa=None: targets()[isa or CPUS[0]])
        patch.setattr(program, "LEAST_WORK", 1e-3)  # so that small programs have teams
        yield


def check(some, packed, cpu: str, precision: str, threads: int = 1) -> None:
    made = Program(some, precision, threads=threads, isa=cpu)
    found, exact = outputs(made, packed, some.hidden), expected(some, packed)
    untouched = np.setdiff1d(np.arange(len(found)), packed.out)
    assert not found[untouched].any()
    assert error(found, exact) <= BOUNDS[precision]
    mean = np.abs(found - exact).mean() / np.abs(exact).max()
    assert mean <= BOUNDS[precision] / 5


@few
@given(shape=shapes, data=st.data())
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_every_shape(cpu, precision, shape, data):
    neurons = [data.draw(st.sampled_from([1, 7, 31, 33, 64, 130])) for _ in shape["heads"]]
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=9))
    some = encoder(neurons=neurons, **shape)
    masked = data.draw(st.sampled_from([0, 0, 0.3, 1]))
    packed = batch(some, lengths, masked=masked, rows=data.draw(st.booleans()))
    check(some, packed, cpu, precision, data.draw(st.sampled_from([1, 2, 4])))


@pytest.mark.parametrize("cpu, precision", FEWER)
def test_lengths_from_1_to_512(cpu, precision):
    some = encoder(heads=(1,), hidden=16, relative=True)
    lengths = sorted({*range(1, 18), *range(30, 36), *range(62, 68), 127, 128, 129, 255, 511, 512})
    for one in lengths:
        check(some, batch(some, [one]), cpu, precision, threads=1 + one % 2)
    check(some, batch(some, lengths), cpu, precision, threads=2)


@pytest.mark.parametrize("cpu, precision", FEWER)
def test_batches_from_1_to_33(cpu, precision):
    some = encoder(heads=(1,), hidden=16)
    for count in range(1, 34):
        lengths = np.random.default_rng(count).integers(1, 90, count).tolist()
        check(some, batch(some, lengths, masked=0.1), cpu, precision, threads=1 + count % 3)


@pytest.mark.parametrize("cpu, precision", FORMS)
def test_a_sequence_alone_and_among_others(cpu, precision):
    """It is the same wherever it is, and to the bit however many threads there are."""
    some = encoder(relative=True)
    lengths = [7, 64, 1, 33, 90, 12]
    packed = batch(some, lengths)
    made = Program(some, precision, threads=1, isa=cpu)
    together = outputs(made, packed, some.hidden)[packed.out]
    ends = np.cumsum(lengths)
    for end, length in zip(ends.tolist(), lengths, strict=True):
        part = slice(end - length, end)
        alone = batch(some, [length])
        alone = type(alone)(
            alone.lengths, tuple(i[part] for i in packed.ids), None, None, alone.out
        )
        found = outputs(made, alone, some.hidden)[alone.out]
        np.testing.assert_allclose(found, together[part], rtol=0, atol=BOUNDS[precision])
    for threads in (2, 4):
        more = Program(some, precision, threads=threads, isa=cpu)
        assert (outputs(more, packed, some.hidden)[packed.out] == together).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_in_place_of_ids(threads):
    """Of several panels, though the model has tables."""
    some = encoder(tables=3)
    check(some, batch(some, [90, 70, 3], rows=True), CPUS[0], "fp32", threads)


def test_no_sequence():
    some = encoder()
    made = Program(some, threads=2)
    assert not outputs(made, batch(some, []), some.hidden).any()


def test_output_rows_may_be_apart():
    some = encoder()
    packed = batch(some, [5, 9])
    made = Program(some, "fp32", threads=1)
    wide = np.full((17, 40), 7, np.float32)
    made.run(packed, wide[:, 4:36])
    assert (wide[:, :4] == 7).all() and (wide[:, 36:] == 7).all()
    assert error(wide[:, 4:36][packed.out], expected(some, packed)[packed.out]) < 1e-4


@pytest.mark.parametrize("changes, says", [
    ({"hidden": 12}, "hidden size 12: the engine takes multiples of 4 from 16"),
    ({"hidden": 18}, "hidden size 18"),
    ({"head_size": 7}, "heads of an odd size, 7"),
    ({"hidden": 16, "neurons": (8192, 4)}, "out has 8192 inputs; the engine takes at most 8191"),
])  # fmt: skip
def test_what_it_does_not_take(changes, says):
    with pytest.raises(Unsupported, match=says):
        Program(encoder(**changes))


def test_precisions_and_threads():
    some = encoder()
    with pytest.raises(Unsupported, match="precision fp8: give auto, fp32, bf16, int8"):
        Program(some, "fp8")
    with pytest.raises(Unsupported, match=r"precision int8 needs .*VNNI, .* has fp32"):
        Program(some, "int8", isa="generic")
    with pytest.raises(ValueError, match="threads 0: give 1 or more"):
        Program(some, threads=0)
    made = Program(some)
    assert made.precision == targets()[CPUS[0]].precisions[0]
    text = str(made.plan)
    assert made.precision in text and "32 x 64" in text.replace("   ", " ")
    assert made.threads >= 1
    made.close()
    assert error(
        outputs(made, packed := batch(some, [3]), 32), expected(some, packed)
    ) < BOUNDS[made.precision]  # fmt: skip


def test_teams_are_for_what_takes_long(monkeypatch):
    """Threads are woken only where each has enough to do."""
    teams = []

    class Watched(Program):
        def _group(self, *args, team):
            teams.append(team)
            super()._group(*args, team=team)

    some = encoder()
    made, packed = Watched(some, threads=4), batch(some, [64])
    for work, team in ((made.plan.microseconds * 2, 1), (made.plan.microseconds / 3, 3), (1e-3, 4)):
        monkeypatch.setattr(program, "LEAST_WORK", work)
        outputs(made, packed, some.hidden)
        assert teams.pop() == team
