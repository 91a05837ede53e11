"""Packed folders in plain ``from_pretrained``: streamed, whole, and with nothing left behind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    MixtralConfig,
    MixtralForCausalLM,
)

from helpers.packing import check_same, packed, prune_
from helpers.shrinking import KINDS, zero_
from helpers.zoo import ZOO
from sentei import shrink
from sentei.models.loading import load_named
from sentei.pack import open_packed, pack
from sentei.pack.loading import leaving_packed, packed_of
from sentei.pack.quantizer import PackedConfig

SIZES = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 64,
    "intermediate_size": 96,
    "vocab_size": 90,
}


def bert(**options) -> BertForMaskedLM:
    torch.manual_seed(0)
    return prune_(
        BertForMaskedLM(
            BertConfig(**{**SIZES, "vocab_size": 90, "intermediate_size": 96, **options})
        )
    ).eval()


@pytest.fixture(scope="module")
def model() -> BertForMaskedLM:
    return bert()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    return packed(model, tmp_path_factory.mktemp("packed"), shard="20KB")


@pytest.mark.parametrize(
    "options",
    [{}, {"device_map": "cpu"}, {"device_map": "auto"}, {"disable_mmap": True}],
    ids=["plain", "on the CPU", "where there is room", "read whole"],
)
def test_all_bits_come_back(options, model, folder):
    assert len(list(folder.glob("*.safetensors"))) > 2
    loaded, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info.values()), info
    check_same(loaded, model)
    assert loaded.cls.predictions.decoder.weight is loaded.bert.embeddings.word_embeddings.weight


@pytest.mark.parametrize(
    "places",
    [
        {"": "disk"},
        {"bert.embeddings": "disk", "bert.encoder": "cpu", "cls": "disk"},
        {"bert.embeddings": "cpu", "bert.encoder": "disk", "cls": "cpu"},
    ],
    ids=["everything", "a tied table", "layers"],
)
def test_what_stays_on_disk_computes_the_same(places, model, folder, tmp_path):
    loaded = AutoModelForMaskedLM.from_pretrained(
        folder, device_map=places, offload_folder=tmp_path
    )
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize("kind", ZOO)
def test_every_architecture(kind, tmp_path):
    model = prune_(ZOO[kind].build())
    loaded = type(model).from_pretrained(packed(model, tmp_path))
    check_same(loaded, model)


def test_a_head_and_a_body(folder, model):
    body = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    check_same(body, model.bert)
    fresh = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    assert torch.equal(
        fresh.bert.encoder.layer[1].output.dense.weight,
        model.bert.encoder.layer[1].output.dense.weight,
    )


def test_weights_that_are_given(model, folder):
    """The config alone says that files were packed once."""
    torch.manual_seed(1)
    other = BertForMaskedLM(model.config).eval()
    loaded = BertForMaskedLM.from_pretrained(
        None, config=AutoConfig.from_pretrained(folder), state_dict=other.state_dict()
    )
    check_same(loaded, other)


def test_the_dtype_that_is_asked_for(model, folder):
    loaded = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.bfloat16)
    check_same(loaded, bert().bfloat16())


def test_a_model_of_halves_stays_one(tmp_path):
    model = bert().bfloat16()
    loaded = AutoModelForMaskedLM.from_pretrained(packed(model, tmp_path))
    check_same(loaded, model)


@pytest.mark.parametrize("values, most", [("bf16", 2**-8), ("fp16", 2**-11), ("int8", 1.01 / 127)])
def test_other_values_are_as_near_as_they_say(values, most, model, tmp_path):
    where = packed(model, tmp_path, values=values, embeddings=values)
    loaded = AutoModelForMaskedLM.from_pretrained(where)
    for (name, weight), other in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert ((weight == 0) == (other == 0)).all(), name
        scale = weight.abs() if values != "int8" else weight.abs().amax(dim=-1, keepdim=True)
        assert ((weight - other).abs() <= most * 1.001 * scale + 1e-7).all(), name


# ------------------------------------------------------------------------- nothing left behind


def test_what_is_loaded_is_plain(model, folder, tmp_path):
    loaded = AutoModelForMaskedLM.from_pretrained(folder)
    assert not loaded.is_quantized and not hasattr(loaded, "hf_quantizer")
    assert "quantization_config" not in loaded.config.to_dict()
    loaded.half().float()  # which quantised models refuse
    loaded = AutoModelForMaskedLM.from_pretrained(folder)
    loaded.train()
    loaded(torch.tensor([[1, 2]]), labels=torch.tensor([[1, 2]])).loss.backward()
    loaded.save_pretrained(tmp_path / "saved", max_shard_size="20KB")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert "quantization_config" not in config
    check_same(AutoModelForMaskedLM.from_pretrained(tmp_path / "saved"), model)
    again = packed(loaded, tmp_path)
    check_same(AutoModelForMaskedLM.from_pretrained(again), model)


def test_experts_that_transformers_puts_together(tmp_path):
    """The files have a matrix for each expert, the model one tensor of all of them."""
    torch.manual_seed(0)
    config = MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=3)
    model = MixtralForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "experts" in name:
                weight.mul_(torch.rand_like(weight) < 0.1).add_(0.0)
    where = packed(model, tmp_path)
    with open_packed(where) as inside:
        experts = [name for name in inside.names if ".experts.1." in name]
        assert len(experts) == 6 and all(map(inside.is_packed, experts))
    loaded = AutoModelForCausalLM.from_pretrained(where)
    check_same(loaded, model)
    loaded.save_pretrained(tmp_path / "saved")
    check_same(AutoModelForCausalLM.from_pretrained(tmp_path / "saved"), model)


def test_a_shrunk_model(tmp_path):
    model = ZOO["bert"].build().eval()
    zero_(model, KINDS["ragged"])
    smaller, report = shrink.shrink(prune_(model, 0.5))
    assert not report.stock
    shrink.save(smaller, tmp_path / "smaller")
    pack(tmp_path / "smaller", tmp_path / "packed", values="fp32", embeddings="fp32")
    check_same(shrink.load(tmp_path / "packed"), smaller)
    check_same(load_named(tmp_path / "packed")[0], smaller)


# ---------------------------------------------------------------------------------- other processes

EVALUATE = """
import sys
import torch
from transformers import AutoModelForMaskedLM
model = AutoModelForMaskedLM.from_pretrained(sys.argv[1])
logits = model(torch.arange(40)[None]).logits
torch.save({"logits": logits, "weights": model.state_dict()}, sys.argv[2])
"""


def fresh(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check_result(model, file: Path) -> None:
    """Whether another process had the same bits, and computed the same with them."""
    result = torch.load(file)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, result["weights"][name]), name
    with torch.no_grad():
        assert torch.equal(model(torch.arange(40)[None]).logits, result["logits"])


def test_a_fresh_process_needs_one_import(model, folder, tmp_path):
    done = fresh(f"import sentei\n{EVALUATE}", folder, tmp_path / "result.pt")
    assert done.returncode == 0, done.stderr
    check_result(model, tmp_path / "result.pt")


def test_without_sentei_nothing_is_drawn_in_place_of_weights(model, folder, tmp_path):
    """What was loaded and saved needs none; what is packed is refused."""
    loaded = AutoModelForMaskedLM.from_pretrained(folder)
    loaded.save_pretrained(tmp_path / "saved", max_shard_size="20KB")
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 2
    both = f"{EVALUATE}\nprint('evaluated')\nAutoModelForMaskedLM.from_pretrained(sys.argv[3])"
    done = fresh(both, tmp_path / "saved", tmp_path / "result.pt", folder)
    check_result(model, tmp_path / "result.pt")
    assert done.returncode == 1 and done.stdout.strip() == "evaluated"
    assert "Unknown quantization type, got sentei" in done.stderr
    assert "MISMATCH" in done.stderr and "query.weight" in done.stderr


# ------------------------------------------------------------------------------------- streamed


SLACK = 8 << 20
"""Bytes for what else a process does meanwhile; the model has 80 MB."""


def test_memory_is_the_model_and_its_largest_tensor(tmp_path):
    sizes = {"num_hidden_layers": 6, "hidden_size": 512, "intermediate_size": 2048}
    model = BertModel(BertConfig(**sizes, num_attention_heads=8, vocab_size=4000))
    total = sum(weight.nbytes for weight in model.parameters())
    largest = max(weight.nbytes for weight in model.parameters())
    where = packed(prune_(model), tmp_path, values="bf16", embeddings="bf16")
    tiny = dict.fromkeys((*sizes, "num_attention_heads", "vocab_size"), 8)
    BertModel(BertConfig(**tiny)).save_pretrained(tmp_path / "tiny")
    done = fresh(PEAK, tmp_path / "tiny", where)
    assert done.returncode == 0, done.stderr
    before, peak = map(int, done.stdout.split())
    assert total < peak - before < total + largest + SLACK


PEAK = """
import sys, threading, time
import transformers.modeling_utils
import sentei  # as well after transformers as before it
from transformers import AutoModel

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))

AutoModel.from_pretrained(sys.argv[1])  # code is read at its first use
before = peak = anonymous()
done = False

def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.001)

thread = threading.Thread(target=watch)
thread.start()
model = AutoModel.from_pretrained(sys.argv[2])
done = True
thread.join()
print(before, max(peak, anonymous()))
"""


def test_some_weights_can_be_left_as_they_are(model, folder):
    with leaving_packed(lambda name: name.endswith("output.dense.weight")):
        loaded = AutoModelForMaskedLM.from_pretrained(folder)
    left = dict(loaded.named_parameters())
    for name, weight in model.named_parameters():
        inside = packed_of(left[name])
        assert (inside is not None) == name.endswith("output.dense.weight")
        if inside is None:
            assert torch.equal(left[name], weight)
        else:
            assert left[name].is_meta and left[name].shape == weight.shape
            assert torch.equal(torch.from_numpy(inside.decode()), weight)
    check_same(AutoModelForMaskedLM.from_pretrained(folder), model)


# -------------------------------------------------------------------------------------- refused


def change(folder: Path, to: Path, **config: object) -> Path:
    """A copy of a folder whose config says something else."""
    shutil.copytree(folder, to)
    before = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**before, **config}))
    return to


def test_a_damaged_tensor_is_named(folder, tmp_path):
    where = change(folder, tmp_path / "damaged")
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    index = json.loads((where / "model.safetensors.index.json").read_text())
    file = where / index["weight_map"][name]
    with safe_open(file, framework="np") as tensors:
        record = tensors.get_tensor(name).tobytes()
    data = bytearray(file.read_bytes())
    data[data.index(record) + len(record) * 3 // 4] ^= 4
    file.write_bytes(data)
    with pytest.raises(ValueError, match=f"{file.name}.*{name}.*checksum differs") as raised:
        AutoModelForMaskedLM.from_pretrained(where)
    assert "get or pack" in str(raised.value)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version(version, folder, tmp_path):
    about = {"quant_method": "sentei", "version": version}
    where = change(folder, tmp_path / "other", quantization_config=about)
    with pytest.raises(ValueError, match=r"is packed in version .* this Sentei reads version 1"):
        AutoModelForMaskedLM.from_pretrained(where)


@pytest.mark.parametrize(
    "about",
    [
        *(5, "sentei", [], {}, None),
        *({"quant_method": of} for of in (["sentei"], {}, None, "gptq", "sentei")),
        {"quant_method": "sentei", "version": 1, "load_in_8bit": True},
        {"quant_method": "sentei", "version": 1, "self": 3},
    ],
    ids=repr,
)
def test_a_config_that_says_otherwise(about, folder, tmp_path):
    where = change(folder, tmp_path / "other", quantization_config=about)
    for load in (load_named, shrink.load):
        with pytest.raises(ValueError, match=f"^{re.escape(str(where))}: its "):
            load(where)


@pytest.mark.parametrize("harm", ["again", "swapped", "cut", "another's"])
def test_files_of_other_hands(harm, folder, tmp_path):
    where = change(folder, tmp_path / "other")
    first, second, *_ = sorted(where.glob("*.safetensors"))
    if harm == "again":  # written by safetensors, which drops the list of what is packed
        save_file(load_file(first), first)
    elif harm == "swapped":
        first.rename(where / "x"), second.rename(first), (where / "x").rename(second)
    elif harm == "cut":
        first.write_bytes(first.read_bytes()[:-8])
    else:
        for file in where.glob("*.safetensors"):
            with safe_open(file, framework="pt") as tensors:
                about, held = tensors.metadata(), load_file(file)
            names = json.loads(about["sentei"])["packed"]
            moved = dict(zip(names, [held[name] for name in names[::-1]], strict=True))
            save_file({**held, **moved}, file, about)
    if harm == "swapped":  # each file says what it holds, whatever the index says
        check_same(AutoModelForMaskedLM.from_pretrained(where), bert())
        return
    with pytest.raises(ValueError, match=f"^{re.escape(str(where))}"):
        load_named(where)


def test_a_config_of_a_far_larger_model(folder, tmp_path):
    where = change(folder, tmp_path / "huge", vocab_size=10**9)
    for load in (AutoModelForMaskedLM.from_pretrained, load_named):
        with pytest.raises(ValueError, match=r"says a model of .* and its files have"):
            load(where, ignore_mismatched_sizes=True) if load != load_named else load(where)


def test_a_config_of_another_shape(folder, tmp_path):
    where = change(folder, tmp_path / "wider", intermediate_size=128)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForMaskedLM.from_pretrained(where)


def test_transformers_is_not_asked_to_pack(model, folder, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"transformers packs no models: .* sentei pack"):
        AutoModelForMaskedLM.from_pretrained(tmp_path, quantization_config=PackedConfig(version=1))


def test_shards_of_several_processes(folder):
    config = AutoConfig.from_pretrained(folder)
    config.distributed_config = {"tp_size": 2}
    with pytest.raises(ValueError, match="not loaded in shards of several processes: unpack it"):
        AutoModelForMaskedLM.from_pretrained(folder, config=config)
