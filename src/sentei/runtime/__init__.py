"""A CPU engine for encoders, which turns zeros into speed.

engine = compile("folder")  # or a model
engine(**inputs)  # what the model gives
engine.predict(["a text"]), engine.embed(["a text"])

install(model)  # under the model's own forward: pipelines, Trainer.evaluate, SentenceTransformer
uninstall(model)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentei.lazy import lazily

if TYPE_CHECKING:
    from sentei.runtime.encoder import Unsupported
    from sentei.runtime.engine import Engine, compile
    from sentei.runtime.installation import install, uninstall

__all__ = ["Engine", "Unsupported", "compile", "install", "uninstall"]

_FROM = {
    "Engine": "sentei.runtime.engine",
    "Unsupported": "sentei.runtime.encoder",
    "compile": "sentei.runtime.engine",
    "install": "sentei.runtime.installation",
    "uninstall": "sentei.runtime.installation",
}
"""Where each public name is defined."""

__getattr__ = lazily(__name__, _FROM)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
