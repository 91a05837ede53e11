"""Images as a model takes them."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch

from sentei.data.features import Features
from sentei.tasks.pictures import Pictures


class Pixels(Features):
    """Images as a model takes them, made ready when they are asked for.

    Args:
        pictures: The images.
        processor: Makes them ready.
        flip: Seed of the choice which are mirrored; None mirrors none.
    """

    def __init__(self, pictures: Pictures, processor: Any, flip: int | None = None) -> None:
        self.pictures = pictures
        self.processor = processor
        self.flip = flip
        self.epoch = 0
        mean = np.atleast_1d(np.asarray(getattr(processor, "image_mean", None) or [0.5] * 3))
        self._grey = len(mean) == 1

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        i = range(len(self))[index]
        image = self.pictures.open(i)
        if self._grey:
            image = image.convert("L")
        if self.flip is not None and self._mirrored(i):
            from PIL import ImageOps

            image = ImageOps.mirror(image)
        pixels = self.processor(image, return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": self.pictures.labels[i]}

    def set_epoch(self, epoch: int) -> None:
        """Mirror others than in the epoch before."""
        self.epoch = epoch

    def _mirrored(self, index: int) -> bool:
        # A hash and not a generator: a run that resumes in the middle of an epoch mirrors the same.
        return bool(zlib.crc32(f"{self.flip} {self.epoch} {index}".encode()) & 1)


def stacked(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch of images of one size."""
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }
