"""Plans of comparisons, in the short spelling."""

from __future__ import annotations

TASK = {"train": "train.jsonl", "eval": "eval.csv", "epochs": 2, "dense_epochs": 1}


def small(**changes):
    """A plan in the short spelling."""
    plan = {
        "settings": {"model": "hub/name", "batch_size": 16},
        "tasks": {"one": dict(TASK), "two": {"task": "sst2", "batch_size": 8}},
        "recipes": {
            "magnitude": "magnitude",
            "taught": {
                "method": "platon",
                "set": ["score.beta2=0.65"],
                "settings": {"learning_rate": "1e-4"},  # YAML takes 1e-4 for a text
            },
        },
        "sparsities": [0.8, 0.9],
        "seeds": [1, 2],
    }
    return plan | changes


def searched(**changes):
    return small(tasks={"one": dict(TASK)}, search=changes)
