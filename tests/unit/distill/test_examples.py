"""Keys of examples, and batches cut and padded again."""

from __future__ import annotations

import pytest
import torch

from sentei.distill.examples import cut, examples_of, pad, to_arrays, to_outputs
from sentei.distill.outputs import Outputs

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7, 0], [8, 9, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def keys(**inputs):
    return [example.key for example in examples_of(inputs, "")]


def test_a_key_does_not_know_the_padding():
    first, second = keys(input_ids=IDS, attention_mask=MASK)
    assert first != second
    moved = IDS.roll(1, dims=1), MASK.roll(1, dims=1)
    assert keys(input_ids=moved[0], attention_mask=moved[1]) == [first, second]
    assert keys(input_ids=IDS[:1, :3]) == keys(input_ids=IDS[:1, :3], attention_mask=MASK[:1, :3])
    assert keys(input_ids=IDS[:1, :3], attention_mask=None) == [first]
    assert keys(input_ids=IDS[:1], attention_mask=MASK[:1].bool()) == [first]


def test_a_key_knows_what_the_model_reads_and_computes_in():
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    others = [
        examples_of(inputs, "torch.bfloat16")[0].key,
        *keys(**inputs, token_type_ids=torch.zeros_like(IDS)),
        *keys(**inputs, token_type_ids=torch.ones_like(IDS)),
        # The same tokens, at other places: what lies between them is not read.
        *keys(input_ids=torch.tensor([[8, 0, 9]]), attention_mask=torch.tensor([[1, 0, 1]])),
    ]
    assert len({*keys(**inputs), *others}) == 2 + len(others)


def test_other_inputs_are_refused():
    with pytest.raises(ValueError, match="the batch holds pixel_values, position_ids"):
        examples_of({"input_ids": IDS, "position_ids": IDS, "pixel_values": IDS}, "")


@pytest.mark.parametrize("kind", ["classes", "tokens"])
def test_a_batch_that_is_cut_and_padded_is_the_same_but_for_its_padding(kind):
    outputs = Outputs(
        torch.randn(2, 3) if kind == "classes" else torch.randn(2, 4, 3),
        [torch.randn(2, 4, 5) for _ in range(3)],
        [torch.randn(2, 2, 4, 4) for _ in range(2)],
    )
    examples = examples_of({"input_ids": IDS, "attention_mask": MASK}, "")
    batch = to_arrays(outputs)
    rows = {example.key: cut(example, i, batch) for i, example in enumerate(examples)}
    assert rows[examples[1].key]["attention"].shape == (2, 2, 2, 2)
    for name, tensor in rows[examples[1].key].items():
        shape = examples[1].shape(name, layers=len(tensor))
        assert tensor.reshape(shape).shape == tensor.shape
    again = to_outputs(pad(examples, rows, width=4), CPU)
    real = MASK.bool()
    logits = outputs.logits if kind == "classes" else outputs.logits * real[..., None]
    assert torch.equal(again.logits, logits)
    for whole, tensor in zip(outputs.hidden, again.hidden, strict=True):
        assert torch.equal(tensor, whole * real[..., None]) and tensor.is_contiguous()
    pairs = real[:, None, :, None] & real[:, None, None, :]
    for whole, tensor in zip(outputs.attention, again.attention, strict=True):
        assert torch.equal(tensor, whole * pairs) and tensor.is_contiguous()
