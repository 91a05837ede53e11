"""Model folders as they come: damaged, hostile, or with code of their own."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import torch

Damage = Callable[[Path], object]


class Evil:
    """What, unpickled, leaves a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def text(file: str, content: str | bytes) -> Damage:
    """Another content."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / file).write_bytes(data)


def setting(file: str = "config.json", **changes: object) -> Damage:
    """Other values."""

    def apply(folder: Path) -> None:
        data = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(data | changes))

    return apply


def weights(change: Callable[[bytes], bytes]) -> Damage:
    """Other bytes in model.safetensors."""

    def apply(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return apply


def pipe(file: str) -> Damage:
    """A file that would be waited for."""

    def apply(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return apply


def index(names: object) -> Damage:
    """An index of shards in place of the one file."""

    def apply(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "whole.safetensors")
        content = {"metadata": {}, "weight_map": names}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return apply


def pickled(folder: Path, *, bare: bool) -> None:
    """Weights as a pickle that would make the folder ``canary`` beside."""
    (folder / "model.safetensors").unlink()
    evil = {"weight": Evil(folder.parent / "canary")}
    if bare:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, folder / "pytorch_model.bin")


DEEP = "[" * 100_000 + "]" * 100_000
CONFIGS: dict[str, Damage] = {
    **{
        f"config {name}": text("config.json", content)
        for name, content in {
            "empty": "",
            "cut": '{"model_type": "be',
            "binary": bytes(range(256)),
            "of NUL": b"\0" * 64,
            "a list": "[]",
            "a number": "3",
            "deep": DEEP,
            "a key twice": '{"model_type": "bert", "model_type": "gpt2"}',
        }.items()
    },
    "config a pipe": pipe("config.json"),
    "hidden 0": setting(hidden_size=0),
    "hidden -4": setting(hidden_size=-4),
    "hidden text": setting(hidden_size="big"),
    "hidden 10 to the 18": setting(hidden_size=10**18),
    "hidden of 400 digits": setting(hidden_size=10**400),
    "vocabulary 10 to the 9": setting(vocab_size=10**9),
    "positions 10 to the 11": setting(max_position_embeddings=10**11),
    "neurons 10 to the 8": setting(intermediate_size=10**8),
    "dropout nan": setting(hidden_dropout_prob=float("nan")),
    "dropout 2": setting(hidden_dropout_prob=2.0),
    "heads 0": setting(num_attention_heads=0),
    "heads 3": setting(num_attention_heads=3),
    "heads -2": setting(num_attention_heads=-2),
    "3,000 layers": setting(num_hidden_layers=3000),
    "400 layers": setting(num_hidden_layers=400),
    "10 to the 9 layers": setting(num_hidden_layers=10**9),
    "10 to the 9 labels": setting(num_labels=10**9, id2label=None),
    "id2label text": setting(id2label="abc"),
    "id2label with a gap": setting(id2label={"0": "no", "2": "yes"}),
    "architectures a number": setting(architectures=3),
    "architectures numbers": setting(architectures=[3]),
    "activation nope": setting(hidden_act="nope"),
    "type nope": setting(model_type="nope"),
    "type a list": setting(model_type=["bert"]),
    "padding beyond the vocabulary": setting(pad_token_id=10**6),
    "bitsandbytes": setting(quantization_config={"quant_method": "bitsandbytes"}),
    "gptq": setting(quantization_config={"quant_method": "gptq", "bits": 4}),
}
WEIGHTS: dict[str, Damage] = {
    "weights cut": weights(lambda data: data[: len(data) // 2]),
    "weights empty": weights(lambda data: b""),
    "weights text": weights(lambda data: b"hello"),
    "header huge": weights(lambda data: struct.pack("<Q", 2**60) + data[8:]),
    "header flipped": weights(lambda data: data[:9] + bytes([data[9] ^ 255]) + data[10:]),
    "header cut": weights(lambda data: data[:40]),
    "shape changed": weights(lambda data: data.replace(b'"shape":[16,16]', b'"shape":[16,61]', 1)),
    "weights a pipe": pipe("model.safetensors"),
    "weights gone": lambda folder: (folder / "model.safetensors").unlink(),
    "a bare pickle": lambda folder: pickled(folder, bare=True),
    "a pickle of torch": lambda folder: pickled(folder, bare=False),
    "shards elsewhere": index({"a": "../whole.safetensors"}),
    "shards of another folder": index({"a": "/etc/passwd"}),
    "shards missing": index({"a": "nowhere.safetensors"}),
    "shards that are numbers": index({"a": 3}),
    "no shards": index([1]),
    "an adapter beside": text("adapter_config.json", '{"base_model_name_or_path": "a/b"}'),
    "distributed": text("shard-00000-model-00000-of-00001.safetensors", b"x"),
}
TOKENIZERS: dict[str, Damage] = {
    **{
        f"tokenizer {name}": text("tokenizer.json", content)
        for name, content in {
            "empty": "",
            "a list": "[]",
            "deep": DEEP,
            "bytes": b"\xff\x00",
        }.items()
    },
    "tokenizer a pipe": pipe("tokenizer.json"),
    "settings cut": text("tokenizer_config.json", '{"a": 1'),
    "settings a list": text("tokenizer_config.json", "[]"),
    "settings deep": text("tokenizer_config.json", DEEP),
    "class in no list": setting("tokenizer_config.json", auto_map=[1]),
    "length text": setting("tokenizer_config.json", model_max_length="long"),
    "token a number": setting("tokenizer_config.json", pad_token=5),
    "no unknown token": setting("tokenizer_config.json", unk_token="[NOPE]"),
}


def own_code(folder: Path, canary: Path) -> None:
    """Give a folder of a BERT classifier code of its own, which leaves a file when it is run."""
    (folder / "toy_code.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(canary)!r}).write_text('run')\n"
        "from transformers import BertConfig, BertForSequenceClassification\n"
        "from .toy_parts import TYPE\n"
        "class ToyConfig(BertConfig):\n"
        "    model_type = TYPE\n"
        "class ToyClassifier(BertForSequenceClassification):\n"
        "    config_class = ToyConfig\n"
    )
    (folder / "toy_parts.py").write_text("TYPE = 'toy-bert'\n")
    setting(
        model_type="toy-bert",
        architectures=["ToyClassifier"],
        auto_map={
            "AutoConfig": "toy_code.ToyConfig",
            "AutoModelForSequenceClassification": "toy_code.ToyClassifier",
        },
    )(folder)
