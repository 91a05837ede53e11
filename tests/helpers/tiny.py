"""A tiny model and data that it can learn."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

WORDS = {"positive": ["good", "fine", "great"], "negative": ["bad", "poor", "awful"]}
THINGS = ["film", "book", "meal"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_bert(folder: Path) -> Path:
    """An untrained BERT without a head, and its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [*SPECIAL, *WORDS["positive"], *WORDS["negative"], *THINGS, "the", "a", "was"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer(
        vocab={word: number for number, word in enumerate(vocabulary)}, model_max_length=64
    ).save_pretrained(folder)
    return folder


def sentences(count: int, seed: int) -> list[dict[str, str]]:
    """Rows whose label the adjective decides."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        label = rng.choice(["negative", "positive"])
        word, thing = rng.choice(WORDS[label]), rng.choice(THINGS)
        rows.append({"text": f"the {thing} was {word}", "label": label})
    return rows


def write_data(folder: Path) -> dict[str, Path]:
    """A training file and an evaluation file."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"train": folder / "train.jsonl", "eval": folder / "eval.csv"}
    lines = [json.dumps(row) for row in sentences(160, seed=0)]
    files["train"].write_text("\n".join(lines) + "\n")
    with files["eval"].open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sentences(40, seed=1))
    return files
