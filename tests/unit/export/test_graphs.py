"""What becomes of a model: its graphs, their inputs, and no cache while they are traced."""

from __future__ import annotations

import pytest
import torch

from helpers.zoo import ZOO
from sentei.export.graphs import complete, graphs, uncached
from sentei.models.outputs import outputs

IDS = torch.tensor([[3, 4, 5, 2]])


@pytest.fixture(scope="module")
def bart():
    return ZOO["bart"].build("BartForConditionalGeneration")


def test_a_graph_is_traced_with_two_sequences():
    model = ZOO["bert"].build()
    [graph] = graphs(model, complete(model, {"input_ids": IDS}))
    assert graph.name == "model" and graph.outputs == ("logits",) and graph.module is model
    assert {name: tuple(one.shape) for name, one in graph.sample.items()} == {
        "input_ids": (2, 4),
        "attention_mask": (2, 4),
    }


def test_what_writes_texts_has_two_halves_that_give_what_the_whole_gives(bart):
    inputs = complete(bart, {"input_ids": IDS, "decoder_input_ids": torch.tensor([[2, 7, 8]])})
    with uncached(bart):
        encoder, decoder = graphs(bart, inputs)
        whole = outputs(bart, inputs)
        with torch.inference_mode():
            logits = decoder.module(**decoder.sample)["logits"]
    assert (encoder.name, decoder.name) == ("encoder_model", "decoder_model")
    assert [*decoder.sample] == ["encoder_hidden_states", "encoder_attention_mask", "input_ids"]
    torch.testing.assert_close(logits[:1], whole["logits"])


def test_what_writes_texts_needs_the_beginning_of_some(bart):
    with pytest.raises(ValueError, match="BartForConditionalGeneration also reads decoder_input"):
        complete(bart, {"input_ids": IDS})


def test_a_classifier_makes_its_decoders_inputs_itself():
    model = ZOO["bart"].build()
    assert "decoder_input_ids" not in complete(model, {"input_ids": IDS, "decoder_input_ids": IDS})


def test_caches_are_off_and_on_again_in_every_stack():
    model = ZOO["t5"].build("T5ForConditionalGeneration")
    stacks = [model.config, model.decoder.config]
    before = [one.use_cache for one in stacks]
    with uncached(model):
        assert not any(one.use_cache for one in stacks)
        names = outputs(model, {"input_ids": IDS, "decoder_input_ids": IDS})
    assert {*names} == {"logits", "encoder_last_hidden_state"}
    assert [one.use_cache for one in stacks] == before and any(before)
