"""Reading: every known architecture gives the numbers that its model computes with."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import prune

from helpers.encoder_reference import ReferenceProgram
from helpers.shrinking import KINDS, zero_
from helpers.zoo import ZOO
from sentei.runtime.encoder import Unsupported
from sentei.runtime.packed import Packed, choose
from sentei.runtime.reading import MODELS, base_of, read
from sentei.shrink import shrink

TEXT = [case for case in MODELS if "image_size" not in ZOO[case].settings]


def rows(model):
    """The embeddings of the zoo's inputs, of the base model, as torch makes them."""
    base = base_of(model)
    specimen = ZOO[model.config.model_type]
    inputs = specimen.inputs(torch.float32)
    inputs.pop("attention_mask", None)
    hidden = base.embeddings(**inputs)
    return inputs, base.embeddings_project(hidden) if hasattr(
        base, "embeddings_project"
    ) else hidden


def hidden(model):
    """What the reference makes of these embeddings, from the encoder that was read."""
    _, embedded = rows(model)
    batch, length, width = embedded.shape
    packed = Packed(
        lengths=np.full(batch, length),
        ids=None,
        rows=embedded.reshape(-1, width).float().numpy(),
        masked=None,
        out=np.arange(batch * length),
    )
    out = np.zeros((batch * length, width), np.float32)
    ReferenceProgram(read(model).encoder).run(packed, out)
    return torch.from_numpy(out).view(batch, length, width)


@torch.no_grad()
def check(model):
    base = base_of(model)
    inputs, _ = rows(model)
    expected = base(**inputs).last_hidden_state
    torch.testing.assert_close(hidden(model), expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", MODELS)
@torch.no_grad()
def test_every_model(case):
    check(ZOO[case].build())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["bert", "electra", "distilbert", "mpnet", "vit"])
@torch.no_grad()
def test_shrunk(case, kind):
    model = ZOO[case].build()
    assert zero_(model, KINDS[kind])
    smaller, _ = shrink(model)
    counts = {layer.heads for layer in read(smaller).encoder.layers}
    assert counts != {4}
    check(smaller)


@pytest.mark.parametrize("case", ["bert", "vit"])
def test_float32_shares_memory(case):
    model = ZOO[case].build()
    encoder = read(model).encoder
    name = encoder.layers[1].ffn_in.name
    weight = model.get_parameter(name).detach().numpy()
    assert np.shares_memory(weight, encoder.layers[1].ffn_in.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_becomes_float32(dtype):
    model = ZOO["bert"].build().to(dtype)
    encoder = read(model).encoder
    weight = encoder.layers[0].query.weight
    assert weight.dtype == np.float32
    assert (
        torch.from_numpy(weight).to(dtype).equal(model.get_parameter(encoder.layers[0].query.name))
    )


@pytest.mark.parametrize("case", TEXT)
@torch.no_grad()
def test_embeddings_and_ids(case):
    """Tables, norm and ids give what the model's own embeddings give, padding inside too."""
    settings = ZOO[case].settings | ({"embedding_size": 32} if case == "electra" else {})
    model = dataclasses.replace(ZOO[case], settings=settings).build()
    reading = read(model)
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    ids[0, 6:] = ids[1, :3] = ids[2, 4] = model.config.pad_token_id
    found = reading.lookup.ids(ids.numpy(), choose(3, 9, None))
    embeddings = reading.encoder.embeddings
    summed = sum(
        torch.from_numpy(table)[torch.from_numpy(np.array(index))]
        for table, index in zip(embeddings.tables, found, strict=True)
    )
    norm = embeddings.norm
    made = nn.functional.layer_norm(
        summed, summed.shape[-1:], torch.from_numpy(norm.weight), torch.from_numpy(norm.bias)
    )
    own = base_of(model).embeddings(input_ids=ids)
    torch.testing.assert_close(made.view(own.shape), own, rtol=1e-4, atol=1e-4)


def test_projected_embeddings_stay_with_torch():
    config = transformers.ElectraConfig(**ZOO["electra"].settings | {"embedding_size": 16})
    reading = read(transformers.ElectraModel(config))
    assert reading.encoder.embeddings is None
    assert reading.lookup.sizes[0] == 40


@pytest.mark.parametrize(
    "activation, name",
    [
        ("gelu", "gelu"),
        ("gelu_python", "gelu"),
        ("gelu_new", "gelu_tanh"),
        ("gelu_fast", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
        ("relu", "relu"),
    ],
)
@torch.no_grad()
def test_activations(activation, name):
    config = transformers.BertConfig(**ZOO["bert"].settings | {"hidden_act": activation})
    model = transformers.BertModel(config).eval()
    assert read(model).encoder.activation == name
    check(model)


# ------------------------------------------------------------------------------- what is refused


def bert(**settings):
    return transformers.BertModel(transformers.BertConfig(**ZOO["bert"].settings | settings))


@pytest.mark.parametrize(
    "case", ["albert", "deberta", "deberta-v2", "modernbert", "gpt2", "rembert", "t5", "llama"]
)
def test_other_families(case):
    with pytest.raises(Unsupported, match=r"it runs bert, roberta, .*deit"):
        read(ZOO[case].build())


def test_no_model_of_transformers():
    with pytest.raises(Unsupported, match="give a model of transformers"):
        read(nn.Linear(2, 2))


@pytest.mark.parametrize("key", ["is_decoder", "add_cross_attention", "is_causal"])
def test_decoders(key):
    model = bert()
    setattr(model.config, key, True)
    with pytest.raises(Unsupported, match=f"config.{key}=True"):
        read(model)


def test_another_forward():
    class Mine(transformers.BertModel):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    with pytest.raises(Unsupported, match="as transformers has it"):
        read(Mine(bert().config))


def test_a_block_of_others():
    class Attention(nn.Module):
        pass

    model = bert()
    model.encoder.layer[1].attention.extra = Attention()
    with pytest.raises(Unsupported, match=r"attention.extra is a .*\.Attention with a forward"):
        read(model)


def test_activation_unknown():
    with pytest.raises(Unsupported, match="SiLU"):
        read(bert(hidden_act="swish"))


def test_quantized_or_adapted():
    class Adapted(nn.Linear):
        pass

    Adapted.__module__ = "torch.nn.adapted"
    model = bert()
    model.encoder.layer[0].output.dense = Adapted(24, 32)
    with pytest.raises(Unsupported, match="is a Adapted and not a plain Linear"):
        read(model)


def test_masks_of_torch():
    model = bert()
    prune.random_unstructured(model.encoder.layer[0].output.dense, "weight", 0.5)
    with pytest.raises(Unsupported, match=r"prune.remove"):
        read(model)
    prune.remove(model.encoder.layer[0].output.dense, "weight")
    assert (read(model).encoder.layers[0].ffn_out.weight == 0).mean() > 0.4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(value):
    model = bert()
    with torch.no_grad():
        model.encoder.layer[2].intermediate.dense.bias[3] = value
    with pytest.raises(ValueError, match=r"layer.2.intermediate.dense.bias holds NaN"):
        read(model)


def test_large_weights_are_finite():
    model = bert()
    with torch.no_grad():
        model.encoder.layer[0].intermediate.dense.bias.fill_(3e38)
    read(model)


def test_dtypes_and_devices():
    with pytest.raises(Unsupported, match="float64: the engine takes float32, bfloat16, float16"):
        read(bert().double())
    with pytest.raises(Unsupported, match="is on meta"):
        read(bert().to("meta"))


def test_shapes_that_do_not_fit():
    model = bert()
    model.encoder.layer[1].attention.output.dense = nn.Linear(24, 32)
    with pytest.raises(Unsupported, match=r"attention.output.dense.weight is \(32, 24\)"):
        read(model)


def test_mpnet_with_fewer_buckets():
    config = transformers.MPNetConfig(
        **ZOO["mpnet"].settings | {"relative_attention_num_buckets": 16, "pad_token_id": 1}
    )
    with pytest.raises(Unsupported, match="relative_attention_num_buckets=16"):
        read(transformers.MPNetModel(config))


def test_no_blocks():
    with pytest.raises(Unsupported, match="0 blocks"):
        read(bert(num_hidden_layers=0))


def test_encoders_are_frozen():
    encoder = read(bert()).encoder
    with pytest.raises(dataclasses.FrozenInstanceError):
        encoder.hidden = 3
