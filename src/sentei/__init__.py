"""Sentei prunes pretrained transformers while they are fine-tuned.

pruner = sentei.Pruner(model, sentei.platon(sparsity=0.9), total_steps=steps)
pruner.attach(optimizer)  # nothing else in the loop changes
...
report = pruner.finish()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sentei._version import VERSION
from sentei.distill import Distiller, TeacherCache
from sentei.messages import SenteiWarning
from sentei.methods.auto import auto
from sentei.methods.frozen_mask import frozen_mask
from sentei.methods.knowledge_aware import knowledge_aware
from sentei.methods.l0 import l0
from sentei.methods.leap import leap
from sentei.methods.magnitude import magnitude
from sentei.methods.mgpp import mgpp
from sentei.methods.movement import movement
from sentei.methods.platon import platon
from sentei.methods.proximal import proximal
from sentei.methods.random import random
from sentei.methods.sensitivity import sensitivity
from sentei.methods.soft_movement import soft_movement
from sentei.parts.distillation import Distillation
from sentei.pruning.pruner import Pruner
from sentei.recipe import Recipe
from sentei.serialization import dump, load, override

if TYPE_CHECKING:
    from sentei import shrink
    from sentei.integrations.trainer import PruningCallback
    from sentei.models.adapters import merge_adapter

__version__ = VERSION

__all__ = [
    "Distillation",
    "Distiller",
    "Pruner",
    "PruningCallback",
    "Recipe",
    "SenteiWarning",
    "TeacherCache",
    "__version__",
    "auto",
    "dump",
    "frozen_mask",
    "knowledge_aware",
    "l0",
    "leap",
    "load",
    "magnitude",
    "merge_adapter",
    "mgpp",
    "movement",
    "override",
    "platon",
    "proximal",
    "random",
    "sensitivity",
    "shrink",
    "soft_movement",
]


def __getattr__(name: str) -> object:
    # These need transformers, which takes seconds to import.
    if name == "PruningCallback":
        from sentei.integrations.trainer import PruningCallback

        return PruningCallback
    if name == "merge_adapter":
        from sentei.models.adapters import merge_adapter

        return merge_adapter
    if name == "shrink":
        return importlib.import_module("sentei.shrink")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
