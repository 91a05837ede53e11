"""Prune inside the Hugging Face Trainer: examples/plain_loop.py with the Trainer's loop.

python examples/hf_trainer.py --steps 40 --out pruned

The lines marked (1) and (2) are all that pruning adds to an ordinary Trainer script.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

import sentei
from sentei.data.features import tokenise
from sentei.models.demo import demo_model_path
from sentei.tasks.demo import load_demo


def main(steps: int, out: Path) -> None:
    folder = demo_model_path()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    examples, _ = load_demo()
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(examples.label_names)
    )
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
        train_dataset=tokenise(examples, tokenizer, 64),
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
