"""Attention heads, neurons and tokens that contribute nothing, removed: a smaller dense model.

smaller, report = shrink(model)
save(smaller, "folder")
smaller = load("folder")  # or from_pretrained, where report.stock

smaller, tokenizer, report = shrink_vocabulary(model, tokenizer, texts)
save(smaller, "folder", tokenizer=tokenizer)
"""

from __future__ import annotations

from sentei.models.folder import load, save
from sentei.shrink.cost import LatencyRecord, latency
from sentei.shrink.remove import ShrinkReport, StructureRecord, shrink
from sentei.shrink.vocabulary.cut import VocabularyReport, shrink_vocabulary

__all__ = [
    "LatencyRecord",
    "ShrinkReport",
    "StructureRecord",
    "VocabularyReport",
    "latency",
    "load",
    "save",
    "shrink",
    "shrink_vocabulary",
]
