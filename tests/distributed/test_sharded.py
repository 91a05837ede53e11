"""A model sharded by ``fully_shard`` is pruned as one process prunes it whole."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from distributed.sharding import launch, recipe_of, train, width_of

METHODS = {
    "magnitude": (),
    "sensitivity": (),
    "platon": (),
    "mgpp": ("reconstruction=null",),
    "movement": (),
    "soft_movement": (),
    "l0": (),
    "leap": (),
    "proximal": (),
    "knowledge_aware": ("reconstruction=null",),
    "random": (),
    "frozen_mask": (),
    "auto": (),
    "wanda": (),
    "obs": ("reconstruction=null",),
}
PATTERNS = ("row", "column")
ROUNDING = {"l0": 1e-12}
"""Of weights, where a sum that is made in parts goes into them: l0's gates move by a push that is
measured in mean gradients, and a sum of parts rounds in another way."""

CASES = {name: partial(train, recipe_of(name, *settings)) for name, settings in METHODS.items()}


def assert_same(report: dict, alone: dict) -> None:
    """All that is counted; of histograms the numbers, because their edges may differ a little."""
    for field, value in alone.items():
        if field.endswith("_histogram"):
            for part in ("kept", "pruned"):
                assert sum(report[field][part]) == sum(value[part]), (field, part)
        elif field == "updates":
            for one, other in zip(report[field], value, strict=True):
                assert one == pytest.approx(other, abs=1e-12)
        else:
            assert report[field] == value, field


@pytest.fixture(scope="module", params=[2, 4])
def results(request, tmp_path_factory):
    ranks = request.param
    return ranks, launch(ranks, CASES, tmp_path_factory.mktemp("ranks"))


@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
@pytest.mark.parametrize("case", CASES)
def test_sharded_is_as_whole(results, case):
    ranks, made = results
    alone = CASES[case](None, width_of(ranks))
    for rank in made:
        assert isinstance(rank[case], dict), rank[case]
        for name, mask in alone["masks"].items():
            assert torch.equal(rank[case]["masks"][name], mask), name
        for name, weight in alone["weights"].items():
            difference = (rank[case]["weights"][name] - weight).abs().max()
            assert difference <= ROUNDING.get(case, 0.0), name
        assert rank[case]["sparsity"] == alone["sparsity"]
        assert_same(rank[case]["report"], alone["report"])
