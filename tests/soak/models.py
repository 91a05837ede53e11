"""Model folders: damaged weights, configs with other values, tokenizers, pickles, code."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .bad import CANARY, FILES, INSPECT, SPECIAL, TEXTS, VALUES, Content, attempt
from .trial import Trial
from .world import World, copy

GROUP = "model folders: configs, weights, tokenizers, code"

CODE = b"import os\nos.system('touch canary')\nopen('canary', 'w')\nclass X: pass\n"


def trials(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """Each file harmed or exchanged; each value of a config."""
    for name, what, content in _files(world, rng):
        for words in _commands(world, rng):
            if rng.random() < share:
                before = _folder(world, {"model/vocab.txt"} if name == "tokenizer.json" else set())
                yield attempt(
                    GROUP,
                    f"{words[0]}, {name}: {what}",
                    words,
                    {f"model/{name}": content},
                    before=before,
                    allowed=("small",),
                )


def _commands(world: World, rng: random.Random) -> list[list[str]]:
    train = ["--train", str(world.data["train"])]
    commands = [
        [*INSPECT, "--model", "HERE/model", *train],
        ["verify", "HERE/model"],
        ["shrink", "HERE/model", "--out", "HERE/small"],
        ["evaluate", "--model", "HERE/model", *train],
        [*INSPECT, "--model", str(world.model), *train, "--teacher", "HERE/model"],
    ]
    return [commands[0], rng.choice(commands[1:])]


def _folder(world: World, without: set[str]):
    """A fine-tuned model's folder, but for some files."""

    def act(place: Path) -> None:
        copy(world.reference(world.prune("platon")) / "model", place / "model")
        for name in without:
            (place / name).unlink(missing_ok=True)

    return act


def _files(world: World, rng: random.Random) -> Iterator[tuple[str, str, Content]]:
    run = world.reference(world.prune("platon")) / "model"
    config = json.loads((run / "config.json").read_text())
    for key in [*config, "quantization_config", "auto_map", "torch_dtype", "tie_word_embeddings"]:
        for what in rng.sample(sorted(VALUES), 4):
            changed = {**config, key: VALUES[what]}
            yield "config.json", f"{key} is {what}", json.dumps(changed).encode()
    for what, changed in _configs(config).items():
        yield "config.json", what, json.dumps(changed).encode()
    for what, text in TEXTS.items():
        labels = {"0": text, "1": "other"}
        changed = {**config, "id2label": labels, "label2id": {v: k for k, v in labels.items()}}
        yield "config.json", f"a label is {what}", json.dumps(changed).encode()
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    for name in names:
        for what, data in FILES.items():
            yield name, what, data
        for what in rng.sample(sorted(SPECIAL), 4):
            yield name, what, _instead(SPECIAL[what])
    for name in ("generation_config.json", "shrink.json", "special_tokens_map.json", "README.md"):
        for what in rng.sample(sorted(FILES), 7):
            yield name, what, FILES[what]
    for what, data in _weights(run).items():
        yield "model.safetensors", what, data
    yield from _elsewhere(config)


def _instead(make):
    def act(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return act


def _configs(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Values that belong together, or not."""
    code = {"AutoConfig": "code.X", "AutoModel": "code.X", "AutoTokenizer": ["code.X", None]}
    foreign = {"AutoConfig": "org/name--code.X"}
    changes: dict[str, dict[str, Any]] = {
        "code": {"auto_map": code, "model_type": "new"},
        "code of a known model": {"auto_map": {"AutoModelForSequenceClassification": "code.X"}},
        "code from elsewhere": {"auto_map": foreign, "model_type": "new"},
        "an unknown kind": {"model_type": "nope"},
        "another kind": {"model_type": "gpt2"},
        "another architecture": {"architectures": ["LlamaForCausalLM"]},
        "an architecture that is no model": {"architectures": ["os.system"]},
        "no architecture": {"architectures": []},
        "bitsandbytes": {
            "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": 1}
        },
        "gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        "unknown quantisation": {"quantization_config": {"quant_method": "\x1b[31m"}},
        "3,000 layers": {"num_hidden_layers": 3_000},
        "10 million layers": {"num_hidden_layers": 10_000_000},
        "a huge vocabulary": {"vocab_size": 10**12},
        "a huge width": {"hidden_size": 10**9},
        "a small vocabulary": {"vocab_size": 2},
        "heads that do not divide": {"num_attention_heads": 7},
        "many labels": {"id2label": {str(n): f"l{n}" for n in range(100_000)}},
        "labels with a gap": {"id2label": {"0": "a", "7": "b"}},
        "labels twice": {"id2label": {"0": "a", "1": "a"}},
        "an unknown dtype": {"dtype": "nope"},
        "an unknown activation": {"hidden_act": "nope"},
        "an activation that is code": {"hidden_act": "__import__('os').system('touch canary')"},
        "attention from elsewhere": {"_attn_implementation": "kernels-community/x"},
    }
    return {what: {**config, **changed} for what, changed in changes.items()}


def _weights(run: Path) -> dict[str, bytes]:
    """Files of safetensors that say what is not so."""
    data = (run / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]

    def packed(changed: Any, body: bytes = rest) -> bytes:
        text = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + body

    first = next(name for name in header if name != "__metadata__")
    entry = header[first]
    return {
        "cut": data[: len(data) // 2],
        "header cut": data[:20],
        "a huge header": struct.pack("<Q", 2**62) + data[8:],
        "a header of 200 MB": struct.pack("<Q", 200_000_000) + data[8:],
        "header deep": packed(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        "header no JSON": packed(b"\xff" * 64),
        "header a list": packed(b"[]"),
        "a tensor less": packed({k: v for k, v in header.items() if k != first}),
        "another shape": packed({**header, first: {**entry, "shape": [1, 2, 3]}}),
        "a huge shape": packed({**header, first: {**entry, "shape": [2**60, 2**60]}}),
        "another dtype": packed({**header, first: {**entry, "dtype": "I8"}}),
        "unknown dtype": packed({**header, first: {**entry, "dtype": "X99"}}),
        "offsets back": packed({**header, first: {**entry, "data_offsets": [9, 0]}}),
        "offsets beyond": packed({**header, first: {**entry, "data_offsets": [0, 2**50]}}),
        "metadata": packed({**header, "__metadata__": {"format": "\x1b[31m"}}),
        "NaN": packed(header, b"\xff" * len(rest)),
        "odd name": packed({("\x1b[31m" if k == first else k): v for k, v in header.items()}),
        "pickle": CANARY,
        "more behind": data + b"x",
    }


def _elsewhere(config: dict[str, Any]) -> Iterator[tuple[str, str, Content]]:
    """Other files that a loader may follow."""
    index = {"metadata": {}, "weight_map": {"a": "../../x.safetensors"}}
    pickles = ("pytorch_model.bin", "training_args.bin", "tf_model.h5", "vocab.pkl")

    def alone(name: str, data: bytes):
        def act(path: Path) -> None:
            (path.parent / "model.safetensors").unlink(missing_ok=True)
            path.write_bytes(data)

        return act

    for name in pickles:
        yield name, "a pickle that runs", alone(name, CANARY)
    yield "pytorch_model.bin", "garbage", alone("pytorch_model.bin", FILES["binary"])
    for what, data in {"an index": index, "index list": [], "index text": "x"}.items():
        written = json.dumps(data).encode()
        yield "model.safetensors.index.json", what, alone("index", written)
    for name in ("code.py", "modeling_new.py", "tokenizer.py", "conftest.py", "sitecustomize.py"):
        yield name, "code beside", CODE
    for name in ("chat_template.jinja", "preprocessor_config.json", "adapter_config.json"):
        yield name, "deep", FILES["deep"]
        yield name, "a list", b"[]"
    yield "adapter_config.json", "elsewhere", b'{"base_model_name_or_path": "../../x"}'
    yield (
        "tokenizer_config.json",
        "code",
        json.dumps(
            {"tokenizer_class": "X", "auto_map": {"AutoTokenizer": ["code.X", None]}}
        ).encode(),
    )
    yield (
        "config.json",
        "a link to another's",
        lambda path: (path.unlink(), os.symlink("/etc/passwd", path))[0],
    )
