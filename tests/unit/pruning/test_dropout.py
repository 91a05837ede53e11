import gc

import pytest
import torch
from torch import nn
from transformers import BartConfig, BartModel, BertConfig, BertModel, LlamaConfig, LlamaModel

import sentei
from sentei.pruning.dropout import Dropout
from sentei.testing import Network


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_dropout, self.dropout_rate, self.scale, self.layerdrop = 0.3, 0.0, 0.5, 0.5


class Dropping(Network):
    """The conformance suite's network with dropout in it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.attention = nn.Dropout(0.1), nn.AlphaDropout(0.2), Attention()

    def forward(self, x):
        return self.second(super().forward(self.first(x)))

    @property
    def probabilities(self):
        return self.first.p, self.second.p, self.attention.attention_dropout


def test_scaling_is_of_what_was_found_and_can_be_taken_back():
    model = Dropping()
    found = Dropout(model)
    found.scale(0.5)
    found.scale(0.5)
    assert model.probabilities == (0.05, 0.1, 0.15)
    found.restore()
    assert model.probabilities == (0.1, 0.2, 0.3)
    assert (model.attention.dropout_rate, model.attention.scale) == (0.0, 0.5)


SMALL = {"vocab_size": 32, "max_position_embeddings": 16}


@pytest.mark.parametrize(
    "model",
    [
        BertModel(
            BertConfig(
                hidden_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=8,
                **SMALL,
            )
        ),
        BartModel(
            BartConfig(
                d_model=8,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=8,
                decoder_ffn_dim=8,
                dropout=0.1,
                attention_dropout=0.2,
                activation_dropout=0.3,
                **SMALL,
            )
        ),
        LlamaModel(
            LlamaConfig(
                hidden_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=8,
                attention_dropout=0.4,
                **SMALL,
            )
        ),
    ],
    ids=lambda model: type(model).__name__,
)
def test_without_dropout_training_is_the_same_twice(model):
    inputs = torch.arange(12).view(2, 6)

    def differs() -> bool:
        one, other = (model(inputs).last_hidden_state for _ in range(2))
        return not torch.equal(one, other)

    model.train()
    found = Dropout(model)
    assert differs()
    found.scale(0)
    assert not differs()
    found.restore()
    assert differs()


@pytest.mark.parametrize(("sparsity", "during"), [(0.5, (0.0, 0.0, 0.0)), (0.0, (0.1, 0.2, 0.3))])
def test_a_recipe_without_dropout_puts_it_back_when_it_is_done(sparsity, during):
    model = Dropping()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scope = {"include": ["blocks.*.weight"]}
    recipe = sentei.magnitude(sparsity, scope=scope, every=1).model_copy(update={"dropout": 0.0})
    pruner = sentei.Pruner(model, recipe, total_steps=4)
    assert model.probabilities == (0.1, 0.2, 0.3)
    pruner.attach(optimizer)
    for step in range(4):
        assert model.probabilities == during
        model(torch.ones(2, 8)).square().mean().backward()
        optimizer.step()
        if step == 1:
            state = pruner.state_dict()
            pruner.detach()
            assert model.probabilities == (0.1, 0.2, 0.3)
            pruner = sentei.Pruner(model, recipe, total_steps=4)
            pruner.load_state_dict(state)
            pruner.attach(optimizer)
    pruner.finish()
    assert model.probabilities == (0.1, 0.2, 0.3)


def test_a_factor_is_between_none_and_all():
    with pytest.raises(ValueError, match="dropout"):
        sentei.override(sentei.platon(0.5), ["dropout=1.5"])
    assert sentei.override(sentei.platon(0.5), ["dropout=0.5"]).dropout == 0.5


def pruned(model, optimizer=None, factor=0.0):
    """A pruner at work on a model with less dropout."""
    scope = {"include": ["blocks.*.weight"]}
    recipe = sentei.magnitude(0.5, scope=scope, every=1).model_copy(update={"dropout": factor})
    pruner = sentei.Pruner(model, recipe, total_steps=4)
    pruner.attach(optimizer or torch.optim.SGD(model.parameters(), lr=0.1))
    return pruner


@pytest.mark.parametrize("factor", [0.0, 0.5])
@pytest.mark.parametrize("abandoned", ["at work", "detached", "collected", "collected late"])
@pytest.mark.filterwarnings("ignore:another pruner:sentei.SenteiWarning")
def test_dropout_comes_back_however_the_pruner_before_ended(factor, abandoned):
    model = Dropping()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = pruned(model, optimizer, factor)
    during = (0.1 * factor, 0.2 * factor, 0.3 * factor)
    assert model.probabilities == pytest.approx(during)
    if abandoned == "detached":
        first.detach()
    if abandoned == "collected":
        del first, optimizer
        gc.collect()
        assert model.probabilities == (0.1, 0.2, 0.3)
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    second = pruned(model, other, factor)
    if abandoned == "collected late":
        del first, optimizer
        gc.collect()
    assert model.probabilities == pytest.approx(during)
    second.detach()
    assert model.probabilities == (0.1, 0.2, 0.3)
    if abandoned == "at work":
        first.detach()
        assert model.probabilities == (0.1, 0.2, 0.3)


def test_dropout_that_somebody_sets_meanwhile_is_theirs():
    model = Dropping()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = pruned(model, optimizer)
    model.first.p = 0.4
    pruner.detach()
    assert model.probabilities == (0.4, 0.2, 0.3)
