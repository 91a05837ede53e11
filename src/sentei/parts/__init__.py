"""The axes of a recipe, for whoever writes a method: abstract parts, and those that many share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentei.lazy import lazily

if TYPE_CHECKING:
    from sentei.parts.budget import (
        AcrossSizes,
        Budget,
        Global,
        Quota,
        Settling,
        Threshold,
        Uniform,
        UniformRows,
        each_place,
        everything,
        unlike,
    )
    from sentei.parts.distillation import Distillation
    from sentei.parts.inputs import Inputs
    from sentei.parts.learning import Adam
    from sentei.parts.masks import Latent, Mask, Project, StraightThrough
    from sentei.parts.part import Part
    from sentei.parts.patterns import (
        NM,
        Block,
        Column,
        Grouped,
        Head,
        Hybrid,
        Neuron,
        Pattern,
        Row,
        Tiling,
        UnitGroup,
        Unstructured,
        matrix_shape,
        tiled,
    )
    from sentei.parts.penalties import (
        Penalty,
        ProximalPenalty,
        RatioPenalty,
        ScoreL1,
        ScorePenalty,
        ScorePush,
        WeightPenalty,
        push_down_,
    )
    from sentei.parts.progress import Progress
    from sentei.parts.reconstruction import LeastSquares, Reconstruction
    from sentei.parts.schedule import AtOnce, Constant, Cubic, Schedule, Sparsity
    from sentei.parts.scope import Scope, Selection
    from sentei.parts.scores import (
        InputScore,
        Learned,
        Magnitude,
        Memory,
        Score,
        Sensitivity,
        Signal,
        Smoothed,
        SquaredSensitivity,
        Windowed,
    )
    from sentei.parts.site import Site

_MODULES = {
    "budget": "AcrossSizes Budget Global Quota Settling Threshold Uniform UniformRows "
    "each_place everything unlike",
    "distillation": "Distillation",
    "inputs": "Inputs",
    "learning": "Adam",
    "masks": "Latent Mask Project StraightThrough",
    "part": "Part",
    "patterns": "Block Column Grouped Head Hybrid NM Neuron Pattern Row Tiling UnitGroup "
    "Unstructured matrix_shape tiled",
    "penalties": "Penalty ProximalPenalty RatioPenalty ScoreL1 ScorePenalty ScorePush "
    "WeightPenalty push_down_",
    "progress": "Progress",
    "reconstruction": "LeastSquares Reconstruction",
    "schedule": "AtOnce Constant Cubic Schedule Sparsity",
    "scope": "Scope Selection",
    "scores": "InputScore Learned Magnitude Memory Score Sensitivity Signal Smoothed "
    "SquaredSensitivity Windowed",
    "site": "Site",
}

__all__ = [
    "NM",
    "AcrossSizes",
    "Adam",
    "AtOnce",
    "Block",
    "Budget",
    "Column",
    "Constant",
    "Cubic",
    "Distillation",
    "Global",
    "Grouped",
    "Head",
    "Hybrid",
    "InputScore",
    "Inputs",
    "Latent",
    "Learned",
    "LeastSquares",
    "Magnitude",
    "Mask",
    "Memory",
    "Neuron",
    "Part",
    "Pattern",
    "Penalty",
    "Progress",
    "Project",
    "ProximalPenalty",
    "Quota",
    "RatioPenalty",
    "Reconstruction",
    "Row",
    "Schedule",
    "Scope",
    "Score",
    "ScoreL1",
    "ScorePenalty",
    "ScorePush",
    "Selection",
    "Sensitivity",
    "Settling",
    "Signal",
    "Site",
    "Smoothed",
    "Sparsity",
    "SquaredSensitivity",
    "StraightThrough",
    "Threshold",
    "Tiling",
    "Uniform",
    "UniformRows",
    "UnitGroup",
    "Unstructured",
    "WeightPenalty",
    "Windowed",
    "each_place",
    "everything",
    "matrix_shape",
    "push_down_",
    "tiled",
    "unlike",
]

__getattr__ = lazily(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names.split()},
)


def __dir__() -> list[str]:
    return __all__
