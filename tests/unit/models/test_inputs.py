"""What a model takes: an example, and how many tokens."""

import pytest
import torch

from helpers.shrinking import DIVIDED
from helpers.zoo import ZOO
from sentei.models.inputs import example, positions


@torch.no_grad()
@pytest.mark.parametrize("case", DIVIDED)
def test_every_model_reads_its_example(case):
    model = ZOO[case].build(ZOO[case].generates)
    assert model(**example(model, batch=2, length=9)).logits.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize(
    ("case", "longest"), [("bert", 20), ("bart", 20), ("roberta", 19), ("mpnet", 18), ("t5", None)]
)
def test_the_longest_sequence_is_read(case, longest):
    model = ZOO[case].build()
    assert positions(model) == longest
    if longest:
        model(**example(model, batch=1, length=longest))
        with pytest.raises(ValueError, match=f"the model takes at most {longest} tokens"):
            example(model, batch=1, length=longest + 1)
        ids = torch.full((1, longest + 1), 5)
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=ids)
