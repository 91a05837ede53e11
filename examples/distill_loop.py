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

import torch
from torch.utils.data import DataLoader, RandomSampler
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

import sentei
from sentei.data.features import tokenise
from sentei.models.demo import demo_model_path
from sentei.tasks.demo import load_demo


def main(steps: int, out: Path) -> None:
    torch.manual_seed(0)
    folder = demo_model_path()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    examples, _ = load_demo()
    data = tokenise(examples, tokenizer, 64)
    sampler = RandomSampler(data, replacement=True, num_samples=8 * steps)
    loader = DataLoader(data, 8, sampler=sampler, collate_fn=DataCollatorWithPadding(tokenizer))
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(examples.label_names)
    )
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
