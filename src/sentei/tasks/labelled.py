"""What kinds with one label for a whole example share, whatever they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from transformers import PreTrainedModel

from sentei.data.features import Features
from sentei.tasks import metrics
from sentei.tasks.task import Batch, Examples, Kind, Said

E = TypeVar("E", bound=Examples)


class Labelled(Kind[E]):
    """A class or a value for each example: logits beside labels."""

    any_order = True

    def said(self, model: PreTrainedModel, batch: Batch, processor: object) -> Said:
        """Logits beside the true labels."""
        output = model(**batch)
        labels = batch["labels"].cpu().numpy()
        values = output.logits.float().cpu().numpy(), labels
        return Said(float(output.loss), len(labels), values)

    def measure(self, said: Sequence[Said], examples: E, features: Features) -> dict[str, float]:
        """The task's metrics."""
        logits, labels = zip(*(one.values for one in said), strict=True)
        return metrics.compute(self.metrics, np.concatenate(logits), np.concatenate(labels))
