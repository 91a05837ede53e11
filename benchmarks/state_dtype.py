"""What is lost where running means are kept in bf16: masks and accuracy beside those in float32.

    python -m benchmarks.state_dtype --data DATA

all-MiniLM-L6-v2 with a head for two classes is trained on sentences of SST-2 and pruned, in bf16
autocast, at one learning rate. Of every method and seed there are three trainings: with means in
float32, in bf16, and in float32 once more with one weight of the start moved by a millionth, which
shows how far trainings part by themselves. Beside the first, means in bf16 follow the same weights
and gradients step by step: the masks that they would make at its decisions differ by rounding
alone. DATA is the folder of the data sets, as benchmarks/corpora.py reads them; bytes are those
that the state holds, which are the bytes that were told before.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import sentei
from benchmarks import corpora, machine
from benchmarks.measured import markdown
from sentei.methods import find
from sentei.models.demo import demo_model_path
from sentei.pruning.widened import round_, widened

METHODS = ("platon", "sensitivity")
SPARSITY, RATE, BATCH, LENGTH, EVERY = 0.9, 2e-4, 16, 32, 10
ARMS = {"float32": torch.float32, "bf16": torch.bfloat16, "moved": torch.float32}

Batch = tuple[dict[str, Tensor], Tensor]


class Texts:
    """SST-2 in batches.

    Args:
        data: The folder of the data sets.
        sentences: Of the training set, drawn once.
    """

    def __init__(self, data: Path, sentences: int) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(demo_model_path())
        with tempfile.TemporaryDirectory() as folder:
            files = corpora.write(corpora.CORPORA["sst2"], data, Path(folder))
            train, self._evaluation = ([*map(json.loads, file.open())] for file in files)
        self._train = train[:sentences]

    def training(self, seed: int) -> Iterator[Batch]:
        rows = random.Random(seed).sample(self._train, len(self._train))
        yield from self._batches(rows)

    def evaluation(self) -> Iterator[Batch]:
        yield from self._batches(self._evaluation)

    def _batches(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Batch]:
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            texts = [row["text"] for row in some]
            inputs = self._tokenizer(
                texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
            )
            yield dict(inputs), torch.tensor([int(row["label"]) for row in some])


class Following:
    """Means in bf16 that follow the training of another pruner, and the masks they would make."""

    def __init__(self, pruner: sentei.Pruner, optimizer: torch.optim.Optimizer) -> None:
        self._score, self._pruner, self._step = pruner.recipe.score, pruner, 0
        self._sites = pruner._state.selected
        kept = self._score.memory
        self._memory = [
            {name: torch.zeros_like(site.parameter, dtype=torch.bfloat16) for name in kept}
            for site in self._sites
        ]
        optimizer.register_step_post_hook(self._observe)

    @torch.no_grad()
    def _observe(self, *_: object) -> None:
        self._step += 1
        for site, kept in zip(self._sites, self._memory, strict=True):
            weight, gradient = site.parameter, site.parameter.grad
            assert gradient is not None
            memory = widened(kept, torch.float32)
            scratch = torch.empty_like(weight)
            self._score.observe_(memory, weight, gradient, self._step, scratch)
            round_(memory)

    @torch.no_grad()
    def same(self) -> float:
        """The share of weights of which the pruner's masks say the same now."""
        scores = []
        for site, kept in zip(self._sites, self._memory, strict=True):
            out = torch.empty_like(site.parameter)
            memory = widened(kept, torch.float32)
            scores.append(self._score.value(memory, site.parameter, out).flatten().clone())
        ranked = torch.cat(scores).argsort(stable=True)
        keep = torch.ones(ranked.numel(), dtype=torch.bool)
        keep[ranked[: self._pruner.pruned]] = False
        return equal(keep, flat(self._pruner.masks))


def flat(masks: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([mask.flatten() for mask in masks.values()])


def equal(one: Tensor, other: Tensor) -> float:
    return float((one == other).double().mean())


def train(texts: Texts, method: str, arm: str, seed: int) -> dict[str, Any]:
    """One training; its masks, accuracy and bytes."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(demo_model_path(), num_labels=2)
    model.train()
    batches, dtype = list(texts.training(seed)), ARMS[arm]
    recipe = find(method).build(SPARSITY)
    told = recipe.fit(model, len(batches), state_dtype=dtype).state_bytes
    pruner = sentei.Pruner(model, recipe, total_steps=len(batches), state_dtype=dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    following = Following(pruner, optimizer) if arm == "float32" else None  # before the pruner
    pruner.attach(optimizer)
    if arm == "moved":
        with torch.no_grad():
            next(iter(pruner._state.selected)).parameter[0, 0] += 1e-6
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(10 * (step + 1) / len(batches), 1 - step / len(batches))
    )
    shares = []
    for inputs, labels in batches:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**inputs).logits
        nn.functional.cross_entropy(logits.float(), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if following is not None and pruner.updates and pruner.updates[-1].step == pruner.step:
            shares += [following.same()] if pruner.step % EVERY == 0 else []
    masks, state = flat(pruner.masks).clone(), pruner.state_dict()
    kept = [*state["masks"].values(), *(t for of in state["memory"].values() for t in of.values())]
    assert sum(tensor.nbytes for tensor in kept) == told
    pruner.finish()
    line = {"masks": masks, "bytes": told, "accuracy": accuracy(model, texts)}
    print(method, seed, arm, line["accuracy"], shares[-1:], flush=True)
    return {**line, "following": shares}


@torch.no_grad()
def accuracy(model: nn.Module, texts: Texts) -> float:
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        answers = [(model(**inputs).logits, labels) for inputs, labels in texts.evaluation()]
    right = [logits.argmax(-1) == labels for logits, labels in answers]
    return float(torch.cat(right).double().mean())


def measure(texts: Texts, method: str, seed: int) -> dict[str, Any]:
    runs = {arm: train(texts, method, arm, seed) for arm in ARMS}
    first = runs["float32"]
    return {
        "method": method,
        "seed": seed,
        "following": first["following"],
        "equal": {arm: equal(first["masks"], run["masks"]) for arm, run in runs.items()},
        "accuracy": {arm: run["accuracy"] for arm, run in runs.items()},
        "bytes": {arm: run["bytes"] for arm, run in runs.items()},
    }


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    header = [
        "method",
        "state, MB: float32",
        "bf16",
        "same masks, same training",
        "same masks, own training",
        "the same, float32 moved",
        "accuracy: float32",
        "bf16",
        "float32 moved",
    ]
    rows = []
    for method in dict.fromkeys(line["method"] for line in lines):
        some = [line for line in lines if line["method"] == method]
        per_seed = [mean(line["following"]) for line in some]
        means = {
            kind: {arm: mean(line[kind][arm] for line in some) for arm in ARMS}
            for kind in ("equal", "accuracy", "bytes")
        }
        shares = (mean(per_seed), means["equal"]["bf16"], means["equal"]["moved"])
        rows.append(
            [
                f"`{method}`",
                *(f"{means['bytes'][arm] / 1e6:.1f}" for arm in ("float32", "bf16")),
                *(f"{100 * share:.2f} %" for share in shares),
                *(f"{100 * means['accuracy'][arm]:.2f}" for arm in ARMS),
            ]
        )
    return markdown(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=3200)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    texts = Texts(arguments.data, arguments.sentences)
    lines: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for method in METHODS:
            lines.append(measure(texts, method, seed))
            machine.write("state_dtype", table(lines), {"runs": lines})


if __name__ == "__main__":
    main()
