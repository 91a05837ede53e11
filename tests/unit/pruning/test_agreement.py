"""A number of all masks; processes that come to other masks than the others end with a sentence."""

from __future__ import annotations

import pytest
import torch

from sentei.pruning.agreement import Agreement, digest
from sentei.tensors import CHUNK


@pytest.mark.parametrize("sizes", [(3,), (8, 16), (5, 64, 7), (CHUNK + 24, 9)])
def test_a_digest_sees_every_place(sizes):
    masks = [torch.rand(size) > 0.5 for size in sizes]
    before = digest(masks)
    assert before >= 0 and before == digest([mask.clone() for mask in masks])
    for mask in masks:
        for place in {0, mask.numel() // 2, mask.numel() - 1}:
            mask[place] = ~mask[place]
            assert digest(masks) != before
            mask[place] = ~mask[place]


def test_a_digest_sees_what_moves():
    """As many are pruned, at other places: in the same word, in another, in another mask."""
    seen = set()
    for mask, place in ((0, 1), (0, 9), (0, 90), (1, 1), (1, 9)):
        masks = [torch.ones(100, dtype=torch.bool), torch.ones(100, dtype=torch.bool)]
        masks[mask][place] = False
        seen.add(int(digest(masks)))
    assert len(seen) == 5


def test_a_view_that_is_not_aligned():
    many = torch.rand(101) > 0.5
    assert digest([many[5:]]) == digest([many[5:].clone()])


def test_alone_there_is_nobody_to_compare_with():
    model = torch.nn.Linear(2, 2)
    agreement = Agreement(model, model.parameters())
    agreement.compare([torch.ones(4, dtype=torch.bool)], 1)
    agreement.check()
