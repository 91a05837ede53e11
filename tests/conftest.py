"""What several tests need: a tiny model, and data that it can learn."""

from __future__ import annotations

import csv
import json
import os
import random
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

# One thread here and in every process a test starts: tiny tensors gain nothing from more, and runs
# that are compared bit for bit must add in the same order.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

WORDS = {"positive": ["good", "fine", "great"], "negative": ["bad", "poor", "awful"]}
THINGS = ["film", "book", "meal"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Compiled kernels go to a folder of the session's, which its workers share."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENTEI_CACHE", str(folder / "sentei-cache"))
        yield


@pytest.fixture
def no_accelerator_is_left():
    """What a Trainer or an Accelerator has set for the whole process goes with the test."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A folder with an untrained BERT without a head, and its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
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


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> dict[str, Path]:
    """A training file and an evaluation file."""
    folder = tmp_path_factory.mktemp("data")
    files = {"train": folder / "train.jsonl", "eval": folder / "eval.csv"}
    lines = [json.dumps(row) for row in sentences(160, seed=0)]
    files["train"].write_text("\n".join(lines) + "\n")
    with files["eval"].open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sentences(40, seed=1))
    return files
