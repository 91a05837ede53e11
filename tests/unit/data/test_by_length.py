import numpy as np
import pytest

from sentei.data.features import POOL, ByLength

LENGTHS = np.random.default_rng(0).integers(4, 128, 1003)


def batches(order: ByLength) -> list[list[int]]:
    drawn = list(order)
    return [drawn[at : at + order.batch_size] for at in range(0, len(drawn), order.batch_size)]


@pytest.mark.parametrize("size", [1, 4, 16, 1003, 5000])
def test_an_epoch_shows_every_example_once(size):
    order = ByLength(LENGTHS, size, seed=1)
    assert sorted(order) == list(range(len(LENGTHS))) and len(order) == len(LENGTHS)


def test_batches_hold_examples_of_like_length_and_pad_little():
    grouped = batches(ByLength(LENGTHS, 16, seed=1))
    assert [len(batch) for batch in grouped[:-1]] == [16] * (len(grouped) - 1)
    assert len(grouped[-1]) == len(LENGTHS) % 16
    padded = sum(LENGTHS[batch].max() * len(batch) for batch in grouped)
    assert padded < 1.1 * LENGTHS.sum()
    drawn = np.random.default_rng(1).permutation(len(LENGTHS))
    assert sum(LENGTHS[drawn[i : i + 16]].max() * 16 for i in range(0, 1003, 16)) > 1.5 * padded


def test_lengths_do_not_drift_as_training_goes():
    longest = [LENGTHS[batch].max() for batch in batches(ByLength(LENGTHS, 4, seed=1))]
    assert len(longest) > POOL
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.2
    assert np.mean(longest[:20]) == pytest.approx(np.mean(longest), rel=0.25)


def test_the_order_is_of_seed_and_epoch_alone():
    first, again, other = (ByLength(LENGTHS, 16, seed) for seed in (1, 1, 2))
    assert list(first) == list(first) == list(again) != list(other)
    begun = list(first)
    first.set_epoch(1)
    assert list(first) != begun
    again.set_epoch(1)
    assert list(first) == list(again)
