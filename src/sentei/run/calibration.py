"""Examples by which the inputs of layers are known, where a model is pruned without training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from sentei.run.prepare import Prepared


def calibration_batches(prepared: Prepared) -> Iterable[Any]:
    """Batches of training examples that the seed draws."""
    training, data = prepared.settings.training, prepared.train
    generator = torch.Generator().manual_seed(training.seed)
    chosen = torch.randperm(len(data), generator=generator)[: prepared.calibration].tolist()
    task = prepared.corpus.task
    collator = task.collator(prepared.processor)
    batches = DataLoader(Subset(data, chosen), batch_size=training.batch_size, collate_fn=collator)
    if task.refers:  # beside the model's input there is what is learnt of it
        return (prepared.processor.inputs(batch, prepared.model) for batch in batches)
    return batches
