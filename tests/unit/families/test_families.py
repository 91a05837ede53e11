"""Every preset against a tiny, randomly initialised model of every one of its model types."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from helpers.zoo import LAYERS, MODERN, TEXT, ZOO, Specimen
from sentei import families
from sentei.families import Place
from sentei.parts.scope import Scope


def test_every_model_type_is_in_the_zoo():
    types = {model_type for family in families.known() for model_type in family.model_types}
    assert types == {case.split(",")[0] for case in ZOO}


@pytest.mark.parametrize("case", ZOO)
def test_the_preset_finds_exactly_the_matrices_of_the_blocks(case):
    model = ZOO[case].build()
    model_type = case.split(",")[0]
    assert model.config.model_type == model_type
    family = families.find(model_type)
    layers = 1 if model_type == "albert" else LAYERS

    selection = Scope().resolve(model)

    assert selection.rule == f"family preset {family.name}"
    assert selection.note == family.note
    # In the model, position projections come after the value, or after qkv, and gates before.
    placed = [(site.layer, site.role) for site in selection.sites]
    stacks = ZOO[case].stacks
    assert sorted(placed) == sorted(
        (i, r) for roles in stacks for i in range(layers) for r in roles
    )
    assert list(dict.fromkeys(layer for layer, _ in placed)) == list(range(layers))

    module_of = {**family.roles, **family.optional}
    block = family.block.replace("*", "0")
    for site in selection.sites:
        names = re.escape(module_of[site.role]).replace(r"\*", r"\d").replace(r"\|", "|")
        inside = re.escape(block.format(i=site.layer)) + rf"\.(?:{names})"
        assert re.fullmatch(rf"([\w.]+\.)?{inside}\.weight", site.name)
        module = model.get_submodule(site.name.removesuffix(".weight"))
        assert isinstance(module, Conv1D if family.transposed else nn.Linear)
        assert site.parameter is model.get_parameter(site.name)

    # Nothing two-dimensional was overlooked inside the blocks, by the generic rule's judgement.
    matrices = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and re.search(r"\.\d+\.", name)
    }
    assert {site.name for site in selection.sites} == matrices


def test_albert_is_one_set_of_weights_and_says_so():
    settings = TEXT | {"num_hidden_layers": 4, "num_hidden_groups": 2}
    selection = Scope().resolve(Specimen("AlbertConfig", settings, ()).build())
    assert [site.layer for site in selection.sites] == [0] * 6 + [1] * 6
    assert "shared" in selection.note and "counted once" in selection.note


def test_a_block_without_one_of_its_matrices_is_refused_by_name():
    model = ZOO["t5"].build()
    feed_forward = model.get_submodule("transformer.decoder.block.1.layer.2.DenseReluDense")
    feed_forward.wo = nn.Identity()
    with pytest.raises(ValueError, match=r"it has no transformer\.decoder\.block\.1\.layer.*\.wo"):
        Scope().resolve(model)


def test_roles_have_the_shapes_their_names_promise():
    model = Specimen("ModernBertConfig", MODERN, ()).build()
    shapes = {site.role: tuple(site.parameter.shape) for site in Scope().resolve(model).sites}
    assert shapes == {
        "qkv": (96, 32),
        "attention_out": (32, 32),
        "ffn_in_gate": (48, 32),
        "ffn_out": (32, 24),
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
    t5 = families.find("t5")
    out = "decoder.block.7.layer.2.DenseReluDense.wo"
    assert t5.locate(out) == Place("decoder.block.7", 7, "ffn_out")


def test_find_and_known():
    assert families.find("xlm-roberta").name == "roberta"
    assert families.find("no-such-model") is None
    types = [model_type for family in families.known() for model_type in family.model_types]
    assert len(types) == len(set(types))


def test_imports_nothing_heavy():
    source = Path(families.__file__).parents[1]
    code = (
        "import sys, types\n"
        "sentei = sys.modules['sentei'] = types.ModuleType('sentei')\n"
        f"sentei.__path__ = [{str(source)!r}]\n"
        "import sentei.families\n"
        "heavy = {'torch', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gradients_reach_every_site():
    model = ZOO["bert"].build()
    model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
    assert all(site.parameter.grad is not None for site in Scope().resolve(model).sites)
