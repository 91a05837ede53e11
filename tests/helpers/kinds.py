"""A task of every kind that is not text classification: a tiny model and data, as options."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTModel,
)

THINGS = ["film", "book", "meal"]
WORDS = ["good", "fine", "great", "bad", "poor", "awful"]
CLS, SEP = 2, 3


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tokens(folder: Path, tiny: Path) -> list[object]:
    """Things are entities, and nothing else is."""
    rng = random.Random(0)
    for name, count in (("train", 96), ("eval", 24)):
        text = ""
        for _ in range(count):
            text += f"the\tO\n{rng.choice(THINGS)}\tB-thing\nwas\tO\n{rng.choice(WORDS)}\tO\n\n"
        (folder / f"{name}.conll").write_text(text)
    given = ["--train", folder / "train.conll", "--eval", folder / "eval.conll"]
    return ["--kind", "tokens", "--model", tiny, *given, "--batch-size", 16]


def answers(folder: Path, tiny: Path) -> list[object]:
    """What the thing was; of some contexts something else is asked."""
    rng = random.Random(0)
    for name, count in (("train", 96), ("eval", 24)):
        paragraphs = []
        for number in range(count):
            filler = " ".join(rng.choice(["a", "the"]) for _ in range(rng.randint(0, 20)))
            word, thing = rng.choice(WORDS), rng.choice(THINGS)
            context = f"{filler} {thing} was {word}".strip()
            answer = {"text": word, "answer_start": context.rindex(word)}
            possible = number % 4 > 0
            question = {"id": str(number), "question": "was" if possible else "a a"}
            question |= {"answers": [answer] if possible else [], "is_impossible": not possible}
            paragraphs.append({"context": context, "qas": [question]})
        text = json.dumps({"version": "v2.0", "data": [{"paragraphs": paragraphs}]})
        (folder / f"{name}.json").write_text(text)
    given = ["--train", folder / "train.json", "--eval", folder / "eval.json"]
    return [
        *("--kind", "answers", "--model", tiny, *given, "--batch-size", 16),
        *("--max-length", 16, "--doc-stride", 4),
    ]


def images(folder: Path, tiny: Path) -> list[object]:
    """Dark or light; the checkpoint has no image processor."""
    from PIL import Image

    rng = random.Random(0)
    for name, count in (("train", 48), ("validation", 16)):
        for number in range(count):
            kind, level = ("dark", 40) if number % 2 else ("light", 210)
            path = folder / "images" / name / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = level + rng.randint(-30, 30)
            Image.new("RGB", (20, 20), (shade, shade, shade)).save(path)
    small = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    torch.manual_seed(0)
    ViTModel(ViTConfig(**small, image_size=16, patch_size=8)).save_pretrained(folder / "vit")
    given = ["--train", folder / "images", "--batch-size", 8, "--flip"]
    return ["--kind", "images", "--model", folder / "vit", *given]


def language(folder: Path, tiny: Path) -> list[object]:
    """Sentences of one pattern."""
    rng = random.Random(0)
    words = [f"the {rng.choice(THINGS)} was {rng.choice(WORDS)}" for _ in range(600)]
    (folder / "train.txt").write_text("\n".join(words) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    tokenizer.save_pretrained(folder / "llama")
    given = ["--train", folder / "train.txt", "--max-length", 16, "--batch-size", 8]
    return ["--kind", "language", "--model", folder / "llama", *given]


def masked_text(folder: Path, tiny: Path) -> list[object]:
    """Two sentences of one pattern in each block; the checkpoint has no head."""
    rng = random.Random(0)
    rows = [{"text": f"the {rng.choice(THINGS)} was {rng.choice(WORDS)}"} for _ in range(1200)]
    given = ["--train", lines(folder / "train.jsonl", rows), "--max-length", 12]
    return ["--kind", "masked-text", "--model", tiny, *given, "--batch-size", 16]


def summaries(folder: Path, tiny: Path) -> list[object]:
    """The same of every text, so that a tiny model learns to write it."""
    rng = random.Random(0)
    for name, count in (("train", 64), ("eval", 8)):
        rows = []
        for _ in range(count):
            document = f"the {rng.choice(THINGS)} was {rng.choice(WORDS)}"
            rows.append({"document": document, "summary": "the film was good"})
        lines(folder / f"{name}.jsonl", rows)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=CLS,
        eos_token_id=SEP,
        decoder_start_token_id=SEP,
        forced_eos_token_id=SEP,
    )
    BartModel(config).save_pretrained(folder / "bart")
    tokenizer.save_pretrained(folder / "bart")
    given = ["--train", folder / "train.jsonl", "--eval", folder / "eval.jsonl"]
    more = ["--batch-size", 8, "--num-beams", 2, "--max-new-tokens", 6]
    return ["--kind", "summaries", "--model", folder / "bart", *given, *more]


def embeddings(folder: Path, tiny: Path) -> list[object]:
    """Texts alone, of one pattern, which the model learns to embed as before."""
    rng = random.Random(0)
    rows = [f"{rng.choice(THINGS)} was {rng.choice(WORDS)} the {rng.choice(WORDS)} {i % 3 * 'a '}"
            for i in range(200)]  # fmt: skip
    given = ["--train", lines(folder / "train.jsonl", [{"text": text} for text in rows])]
    return ["--kind", "embeddings", "--model", tiny, *given, "--batch-size", 16]


TASKS = {
    task.__name__.replace("_", "-"): task
    for task in (tokens, answers, images, language, masked_text, summaries, embeddings)
}
