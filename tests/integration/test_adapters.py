"""Adapters of the real peft on sparse models: merged under the mask, or refused."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)
from transformers.pytorch_utils import Conv1D

import sentei
from helpers.training import CONFIG, trainer
from sentei.testing import make_sparse_

LORA = {"r": 4, "lora_alpha": 8, "task_type": "SEQ_CLS"}
BERT = LORA | {"target_modules": ["query", "value", "dense"]}


def sparse(build=None):
    """A model at 70 %, sparse in its scope, evaluated."""
    torch.manual_seed(0)
    model = build() if build else BertForSequenceClassification(CONFIG)
    make_sparse_(model, sentei.frozen_mask(0.7))
    return model.eval()


def adapted(model, settings=BERT, seed=0):
    """The model with an adapter that is not zero."""
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return wrapped.eval()


def scope_zeros(model):
    model = copy.deepcopy(model).requires_grad_(True)  # peft leaves it frozen
    sites = sentei.frozen_mask().scope.resolve(model).sites
    return {site.name: site.parameter.detach() == 0 for site in sites}


VARIANTS = {
    "lora": BERT,
    "rslora": BERT | {"use_rslora": True},
    "dora": BERT | {"use_dora": True},
    "with a bias": BERT | {"lora_bias": True},
    "with whole modules": BERT | {"modules_to_save": ["classifier"]},
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_merged_model_is_w_plus_ba_times_mask(settings, tmp_path):
    base = sparse()
    before = scope_zeros(base)
    wrapped = adapted(copy.deepcopy(base), settings)
    dense = copy.deepcopy(wrapped).merge_and_unload()  # peft's own, which fills the zeros
    assert sum(int(zero.sum()) for zero in scope_zeros(dense).values()) < 0.4 * sum(
        int(zero.sum()) for zero in before.values()
    )

    merged, report = sentei.merge_adapter(wrapped)
    assert type(merged) is BertForSequenceClassification
    assert scope_zeros(merged).keys() == before.keys()
    for name, zero in before.items():
        expected = dense.get_parameter(name).masked_fill(zero, 0)
        assert torch.equal(merged.get_parameter(name), expected), name
    rest = dict(dense.named_parameters()).keys() - before.keys()
    for name in rest - {one.name for one in report.weights}:
        assert torch.equal(merged.get_parameter(name), dense.get_parameter(name)), name

    for one in report.weights:
        assert one.zeros_before == one.zeros_after == int(before[one.name].sum())
        change = dense.get_parameter(one.name) - base.get_parameter(one.name)
        taken = change[before[one.name]].norm().item()
        assert one.masked == pytest.approx(taken, rel=1e-4)
        assert one.kept == pytest.approx(change[~before[one.name]].norm().item(), rel=1e-4)
        assert one.share == pytest.approx((taken / change.norm().item()) ** 2, rel=1e-4)
    zeros = sum(one.zeros_after for one in report.weights)
    assert report.zeros == zeros
    assert report.sparsity == zeros / sum(one.weights for one in report.weights)
    assert 0.2 < report.share < 0.9  # about what it covers; DoRA scales what is kept, too

    merged.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokens = torch.arange(6)[None]
    torch.testing.assert_close(loaded.eval()(tokens).logits, merged.eval()(tokens).logits)


def test_matrices_stored_the_other_way_round():
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=40, pad_token_id=0)
    base = sparse(lambda: GPT2ForSequenceClassification(config))
    before = scope_zeros(base)
    settings = LORA | {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
    assert isinstance(base.transformer.h[0].attn.c_attn, Conv1D)
    merged, report = sentei.merge_adapter(adapted(base, settings))
    after = scope_zeros(merged)
    assert all(torch.equal(after[name], zero) for name, zero in before.items())
    assert len(report.weights) == 6 and all(one.kept > 0 for one in report.weights)


def test_an_adapter_trained_in_the_trainer_and_the_sparse_model_after_it(tmp_path):
    run = trainer(tmp_path)
    run.model = run.model_wrapped = peft.get_peft_model(sparse(), peft.LoraConfig(**BERT))
    run.train()
    merged, report = sentei.merge_adapter(run.model)
    assert report.share > 0
    # What was frozen for the adapter can be trained on with its zeros.
    with pytest.raises(ValueError, match=r"frozen \(requires_grad=False\)"):
        sentei.Pruner(merged, sentei.frozen_mask(), total_steps=3)
    pruner = sentei.Pruner(merged.requires_grad_(True), sentei.frozen_mask(), total_steps=3)
    assert round(pruner.target * pruner.prunable) == round(0.7 * pruner.prunable)


def test_a_matrix_that_is_trained_whole_keeps_its_zeros():
    settings = LORA | {"target_modules": ["query"], "modules_to_save": ["intermediate"]}
    base = sparse()
    before = scope_zeros(base)
    merged, report = sentei.merge_adapter(adapted(base, settings))
    after = scope_zeros(merged)
    assert all(torch.equal(after[name], zero) for name, zero in before.items())
    assert any("intermediate" in one.name for one in report.weights)


def test_what_cannot_be_merged_is_refused():
    with pytest.raises(ValueError, match=r"takes a peft.PeftModel .* not BertForSequence"):
        sentei.merge_adapter(sparse())
    with pytest.raises(ValueError, match="no weight under an adapter has a zero"):
        sentei.merge_adapter(adapted(BertForSequenceClassification(BertConfig(**SMALL))))
    merged = adapted(sparse())
    merged.merge_adapter()
    with pytest.raises(ValueError, match="its adapter default is merged already"):
        sentei.merge_adapter(merged)
    prompts = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    with pytest.raises(ValueError, match="an adapter that can be merged"):
        sentei.merge_adapter(peft.get_peft_model(sparse(), prompts))


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}


@pytest.mark.parametrize("scope", [{}, {"include": ["*.query.*.weight"]}], ids=["found", "named"])
@pytest.mark.parametrize("make", ["get_peft_model", "add_adapter"])
def test_pruning_under_an_adapter_is_refused(scope, make):
    model = BertForSequenceClassification(CONFIG)
    if make == "get_peft_model":
        model = peft.get_peft_model(model, peft.LoraConfig(**BERT))
    else:
        model.add_adapter(peft.LoraConfig(target_modules=["query"]))
    told = (
        r"base_layer.weight lies under an adapter of peft.*sentei.merge_adapter.*merge_and_unload"
    )
    with pytest.raises(ValueError, match=told):
        sentei.Pruner(model, sentei.magnitude(0.5, scope=scope), total_steps=100)


def test_the_command_points_from_an_adapter_to_the_merge(tmp_path):
    from sentei.models.loading import locate_model

    adapted(sparse()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"but an adapter of peft: merge it .*merge_adapter"):
        locate_model(str(tmp_path))
