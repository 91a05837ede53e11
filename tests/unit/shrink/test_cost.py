"""What a model costs: operations counted, milliseconds measured."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.zoo import ZOO
from sentei.shrink import latency, shrink


@torch.no_grad()
@pytest.mark.parametrize(
    ("case", "name", "blocks"),
    [("bert", "BertModel", "BertModel.encoder"), ("llama", "LlamaModel", "LlamaModel.layers")],
)
def test_operations_are_those_that_torch_counts(case, name, blocks):
    model = ZOO[case].build(name)
    model.set_attn_implementation("eager")
    counter = FlopCounterMode(display=False)
    with counter:
        model(input_ids=torch.ones(1, 16, dtype=torch.long))
    counted = sum(
        sum(found.values())
        for module, found in counter.get_flop_counts().items()
        if module.rpartition(".")[0] == blocks or module == blocks
    )
    _, report = shrink(model, length=16)
    assert report.flops_before == report.flops_after == counted


def test_times_are_taken_and_too_long_a_sequence_is_refused():
    model = ZOO["bert"].build().train()
    found = latency(model, model, length=8, runs=3)
    assert found.before > 0 and found.after > 0 and found.speedup == found.before / found.after
    assert model.training
    with pytest.raises(ValueError, match="length 21: the model takes at most 20 tokens"):
        latency(model, model, length=21)
