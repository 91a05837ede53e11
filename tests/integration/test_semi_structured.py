"""2:4 as sparse tensor cores read it: PyTorch's own converter takes it and loses nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.sparse import _semi_structured_conversions as layout
from torch.sparse import to_sparse_semi_structured

import sentei


@pytest.fixture(scope="module", params=["magnitude", "platon", "movement"])
def pruned(request):
    """The weight of a layer that was trained to 2:4."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 64, bias=False), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    recipe = sentei.methods.find(request.param).build(
        0.5, pattern="2:4", scope={"include": ["0.weight"]}
    )
    pruner = sentei.Pruner(model, recipe, total_steps=40)
    pruner.attach(optimizer)
    for _ in range(40):
        inputs = torch.randn(16, 128)
        nn.functional.mse_loss(model(inputs), inputs[:, :1]).backward()
        optimizer.step()
        optimizer.zero_grad()
    pruner.finish()
    return model[0].weight.detach().half()


def test_the_layout_holds_every_weight(pruned):
    values, places = layout.sparse_semi_structured_from_dense_cutlass(pruned)
    assert values.shape == (64, 64)  # half of every row
    assert torch.equal(layout.sparse_semi_structured_to_dense_cutlass(values, places), pruned)


def test_the_layout_would_lose_a_third_weight_of_a_group(pruned):
    dense = torch.where(pruned == 0, torch.ones_like(pruned), pruned)
    values, places = layout.sparse_semi_structured_from_dense_cutlass(dense)
    assert not torch.equal(layout.sparse_semi_structured_to_dense_cutlass(values, places), dense)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels are for GPUs")
def test_a_gpu_multiplies_with_it(pruned):
    weight, inputs = pruned.cuda(), torch.randn(128, 128, device="cuda").half()
    product = nn.functional.linear(inputs, to_sparse_semi_structured(weight))
    torch.testing.assert_close(product, nn.functional.linear(inputs, weight), rtol=1e-2, atol=1e-2)
