"""Attention heads and neurons that contribute nothing, removed: a smaller dense model.

smaller, report = shrink(model)
save(smaller, "folder")
smaller = load("folder")  # or from_pretrained, where report.stock
"""

from __future__ import annotations

from sentei.shrink.cost import LatencyRecord, measure
from sentei.shrink.disk import load, save
from sentei.shrink.remove import ShrinkReport, StructureRecord, shrink

__all__ = [
    "LatencyRecord",
    "ShrinkReport",
    "StructureRecord",
    "load",
    "measure",
    "save",
    "shrink",
]
