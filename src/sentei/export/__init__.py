"""Models for engines outside PyTorch, checked against the model that they were made from.

report = export(model, "folder", to="onnx", inputs=batches)  # or openvino; int8=True
semi_structured_(model)  # 2:4 weights on a GPU's sparse tensor cores
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentei.lazy import lazily

if TYPE_CHECKING:
    from sentei.export.agreement import Agreement
    from sentei.export.semi_structured import SemiStructured, semi_structured_
    from sentei.export.write import ExportReport, export

__all__ = ["Agreement", "ExportReport", "SemiStructured", "export", "semi_structured_"]

_FROM = {
    "Agreement": "sentei.export.agreement",
    "ExportReport": "sentei.export.write",
    "SemiStructured": "sentei.export.semi_structured",
    "export": "sentei.export.write",
    "semi_structured_": "sentei.export.semi_structured",
}
"""Where each public name is defined."""

__getattr__ = lazily(__name__, _FROM)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
