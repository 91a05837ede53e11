"""Sparse models in small files: a Hugging Face folder near the entropy of what it holds.

pack("folder", "packed", values="int8", embeddings="int8")
unpack("packed", "folder")  # plain again

with open_packed("packed") as packed:
    packed.tensor(name)  # dense
    packed.packed(name)  # positions and values
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentei.lazy import lazily

if TYPE_CHECKING:
    from sentei.models.contents import is_packed
    from sentei.pack.encoding import encode
    from sentei.pack.folder import Packed, TensorRecord, pack, unpack
    from sentei.pack.opened import PackedFolder, open_packed
    from sentei.pack.tensor import PackedTensor

__all__ = [
    "Packed",
    "PackedFolder",
    "PackedTensor",
    "TensorRecord",
    "encode",
    "is_packed",
    "open_packed",
    "pack",
    "unpack",
]

_FROM = {
    "Packed": "sentei.pack.folder",
    "PackedFolder": "sentei.pack.opened",
    "PackedTensor": "sentei.pack.tensor",
    "TensorRecord": "sentei.pack.folder",
    "encode": "sentei.pack.encoding",
    "is_packed": "sentei.models.contents",
    "open_packed": "sentei.pack.opened",
    "pack": "sentei.pack.folder",
    "unpack": "sentei.pack.folder",
}
"""Where each public name is defined."""

__getattr__ = lazily(__name__, _FROM)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
