"""Sentei prunes pretrained transformers while they are fine-tuned.

pruner = sentei.Pruner(model, sentei.platon(sparsity=0.9), total_steps=steps)
pruner.attach(optimizer)  # nothing else in the loop changes
...
report = pruner.finish()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentei._version import VERSION
from sentei.lazy import after_import, lazily

if TYPE_CHECKING:
    from sentei import export, pack, parts, runtime, shrink
    from sentei.distill import Distiller, TeacherCache
    from sentei.integrations.trainer import PruningCallback
    from sentei.messages import SenteiWarning
    from sentei.methods import published
    from sentei.methods.auto import auto
    from sentei.methods.frozen_mask import frozen_mask
    from sentei.methods.knowledge_aware import knowledge_aware
    from sentei.methods.l0 import l0
    from sentei.methods.leap import leap
    from sentei.methods.magnitude import magnitude
    from sentei.methods.mgpp import mgpp
    from sentei.methods.movement import movement
    from sentei.methods.obs import obs
    from sentei.methods.platon import platon
    from sentei.methods.proximal import proximal
    from sentei.methods.random import random
    from sentei.methods.sensitivity import sensitivity
    from sentei.methods.soft_movement import soft_movement
    from sentei.methods.wanda import wanda
    from sentei.models.adapters import merge_adapter
    from sentei.parts.distillation import Distillation
    from sentei.pruning.one_shot import one_shot
    from sentei.pruning.pruner import Pruner
    from sentei.recipe import Recipe
    from sentei.serialization import dump, load, override

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
    "export",
    "frozen_mask",
    "knowledge_aware",
    "l0",
    "leap",
    "load",
    "magnitude",
    "merge_adapter",
    "mgpp",
    "movement",
    "obs",
    "one_shot",
    "override",
    "pack",
    "parts",
    "platon",
    "proximal",
    "published",
    "random",
    "runtime",
    "sensitivity",
    "shrink",
    "soft_movement",
    "wanda",
]

_FROM = {
    "Distillation": "sentei.parts.distillation",
    "Distiller": "sentei.distill",
    "Pruner": "sentei.pruning.pruner",
    "PruningCallback": "sentei.integrations.trainer",
    "Recipe": "sentei.recipe",
    "SenteiWarning": "sentei.messages",
    "TeacherCache": "sentei.distill",
    "auto": "sentei.methods.auto",
    "dump": "sentei.serialization",
    "export": "sentei.export",
    "frozen_mask": "sentei.methods.frozen_mask",
    "knowledge_aware": "sentei.methods.knowledge_aware",
    "l0": "sentei.methods.l0",
    "leap": "sentei.methods.leap",
    "load": "sentei.serialization",
    "magnitude": "sentei.methods.magnitude",
    "merge_adapter": "sentei.models.adapters",
    "mgpp": "sentei.methods.mgpp",
    "movement": "sentei.methods.movement",
    "obs": "sentei.methods.obs",
    "one_shot": "sentei.pruning.one_shot",
    "override": "sentei.serialization",
    "pack": "sentei.pack",
    "parts": "sentei.parts",
    "platon": "sentei.methods.platon",
    "proximal": "sentei.methods.proximal",
    "published": "sentei.methods",
    "random": "sentei.methods.random",
    "runtime": "sentei.runtime",
    "sensitivity": "sentei.methods.sensitivity",
    "shrink": "sentei.shrink",
    "soft_movement": "sentei.methods.soft_movement",
    "wanda": "sentei.methods.wanda",
}
"""Where each public name is defined."""

__getattr__ = lazily(__name__, _FROM)


def _load_packed_models() -> None:
    """Have plain ``from_pretrained`` read what :mod:`sentei.pack` writes."""
    from sentei.pack.quantizer import register

    register()


after_import("transformers.modeling_utils", _load_packed_models)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
