"""Every preset against a tiny, randomly initialised model of every one of its model types."""

import re
import subprocess
import sys

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig

from sentei import families
from sentei.families import Place
from sentei.parts.scope import Scope

LAYERS = 2
SIX = ("query", "key", "value", "attention_out", "ffn_in", "ffn_out")
TEXT = {
    "hidden_size": 8,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 400,
    "max_position_embeddings": 20,
}
DISTIL = {"dim": 8, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 16, "vocab_size": 40}
IMAGE = {
    "hidden_size": 8,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 8,
    "patch_size": 4,
}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
MODERN = {f"{token}_token_id": 0 for token in ("pad", "bos", "eos", "cls", "sep")}

MODELS: dict[str, tuple[str, dict[str, object], tuple[str, ...]]] = {
    "bert": ("BertConfig", TEXT, SIX),
    "ernie": ("ErnieConfig", TEXT, SIX),
    "megatron-bert": ("MegatronBertConfig", TEXT, SIX),
    "rembert": ("RemBertConfig", TEXT, SIX),
    "roberta": ("RobertaConfig", TEXT, SIX),
    "roberta-prelayernorm": ("RobertaPreLayerNormConfig", TEXT, SIX),
    "xlm-roberta": ("XLMRobertaConfig", TEXT, SIX),
    "xlm-roberta-xl": ("XLMRobertaXLConfig", TEXT, SIX),
    "camembert": ("CamembertConfig", TEXT, SIX),
    "data2vec-text": ("Data2VecTextConfig", TEXT, SIX),
    "electra": ("ElectraConfig", TEXT, SIX),
    "deberta": (
        "DebertaConfig",
        TEXT | RELATIVE,
        ("qkv", "pos_key", "pos_query", "attention_out", "ffn_in", "ffn_out"),
    ),
    "deberta, absolute": (
        "DebertaConfig",
        TEXT | {"relative_attention": False},
        ("qkv", "attention_out", "ffn_in", "ffn_out"),
    ),
    "deberta-v2": (
        "DebertaV2Config",
        TEXT | RELATIVE | {"share_att_key": False, "conv_kernel_size": 3},
        ("query", "key", "value", "pos_key", "pos_query", "attention_out", "ffn_in", "ffn_out"),
    ),
    "deberta-v2, version 3": (
        "DebertaV2Config",
        TEXT | RELATIVE | {"share_att_key": True, "position_buckets": 4},
        SIX,
    ),
    "distilbert": ("DistilBertConfig", DISTIL, SIX),
    "mpnet": ("MPNetConfig", TEXT, SIX),
    "albert": ("AlbertConfig", TEXT, SIX),
    "modernbert": (
        "ModernBertConfig",
        TEXT | MODERN,
        ("qkv", "attention_out", "ffn_in_gate", "ffn_out"),
    ),
    "vit": ("ViTConfig", IMAGE, SIX),
    "deit": ("DeiTConfig", IMAGE, SIX),
}


def build(config_name: str, settings: dict[str, object]) -> nn.Module:
    config: PreTrainedConfig = getattr(transformers, config_name)(**settings)
    if settings is IMAGE:
        name = config_name.replace("Config", "ForImageClassification")
        return getattr(transformers, name)(config)
    return AutoModelForSequenceClassification.from_config(config)


def test_every_model_type_is_built_below():
    types = {model_type for family in families.known() for model_type in family.model_types}
    assert types == {case.split(",")[0] for case in MODELS}


@pytest.mark.parametrize("case", MODELS)
def test_the_preset_finds_exactly_the_matrices_of_the_blocks(case):
    config_name, settings, roles = MODELS[case]
    model = build(config_name, settings)
    model_type = case.split(",")[0]
    assert model.config.model_type == model_type
    family = families.find(model_type)
    layers = 1 if model_type == "albert" else LAYERS

    selection = Scope().resolve(model)

    assert selection.rule == f"family preset {family.name}"
    assert selection.note == family.note
    # Position projections come after the value, or after qkv, in the model.
    placed = [(site.layer, site.role) for site in selection.sites]
    assert sorted(placed) == sorted((i, role) for i in range(layers) for role in roles)
    assert [layer for layer, _ in placed] == sorted(layer for layer, _ in placed)

    module_of = {**family.roles, **family.optional}
    block = family.block.replace("*", "0")
    for site in selection.sites:
        inside = block.format(i=site.layer) + f".{module_of[site.role]}"
        assert re.fullmatch(rf"([\w.]+\.)?{re.escape(inside)}\.weight", site.name)
        assert isinstance(model.get_submodule(site.name.removesuffix(".weight")), nn.Linear)
        assert site.parameter is model.get_parameter(site.name)

    # Nothing two-dimensional was overlooked inside the blocks, by the generic rule's judgement.
    matrices = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.search(r"\.\d+\.", name)
    }
    assert {site.name for site in selection.sites} == matrices


def test_albert_is_one_set_of_weights_and_says_so():
    model = build("AlbertConfig", TEXT | {"num_hidden_layers": 4, "num_hidden_groups": 2})
    selection = Scope().resolve(model)
    assert [site.layer for site in selection.sites] == [0] * 6 + [1] * 6
    assert "shared" in selection.note and "counted once" in selection.note


def test_roles_have_the_shapes_their_names_promise():
    model = build("ModernBertConfig", TEXT | MODERN)
    shapes = {site.role: tuple(site.parameter.shape) for site in Scope().resolve(model).sites}
    assert shapes == {
        "qkv": (24, 8),
        "attention_out": (8, 8),
        "ffn_in_gate": (32, 8),
        "ffn_out": (8, 16),
    }


def test_locate():
    bert = families.find("bert")
    query = "bert.encoder.layer.11.attention.self.query"
    assert bert.locate(query) == Place("bert.encoder.layer.11", 11, "query")
    assert bert.locate("encoder.layer.0.output.dense") == Place("encoder.layer.0", 0, "ffn_out")
    assert bert.locate("encoder.layer.0.output.LayerNorm") == Place("encoder.layer.0", 0, None)
    assert bert.locate("encoder.layer.0") == Place("encoder.layer.0", 0, None)
    assert bert.locate("bert.pooler.dense") is None
    assert bert.locate("myencoder.layer.0.output.dense") is None


def test_find_and_known():
    assert families.find("xlm-roberta").name == "roberta"
    assert families.find("no-such-model") is None
    types = [model_type for family in families.known() for model_type in family.model_types]
    assert len(types) == len(set(types))


def test_imports_nothing_heavy():
    heavy = "{'torch', 'transformers'} & set(sys.modules)"
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('alone', {families.__file__!r})\n"
        "alone = importlib.util.module_from_spec(spec)\n"
        "sys.modules['alone'] = alone\n"
        "spec.loader.exec_module(alone)\n"
        f"assert not {heavy}, {heavy}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gradients_reach_every_site():
    model = build("BertConfig", TEXT)
    model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
    assert all(site.parameter.grad is not None for site in Scope().resolve(model).sites)
