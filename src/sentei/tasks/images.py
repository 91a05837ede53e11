"""A class for every image, from folders named by their classes or from datasets.

Images are made ready by the checkpoint's own processor. A checkpoint that has none gets a simple
one, which is saved beside the pruned model: resized to the model's size, scaled to [-1, 1].
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import datasets
import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
)

from sentei.data.features import Features
from sentei.data.holdout import set_aside
from sentei.data.labels import renumber
from sentei.data.sources import is_saved, load, split_names
from sentei.data.table import Table, no_column
from sentei.messages import counted
from sentei.tasks import catalogue as tasks
from sentei.tasks.labelled import Labelled
from sentei.tasks.task import Batch, Collator

SUFFIXES: Final = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""What a file of an image may end in; others in a class's folder are passed over."""


@dataclass(frozen=True)
class Pictures:
    """Images with the number of each one's class in ``label_names``.

    ``images`` are files, or what a dataset's column holds at these ``places``.
    """

    images: Any
    places: list[int]
    labels: list[int]
    label_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self) -> dict[str, int]:
        """How often each class occurs, the most frequent first."""
        found = Counter(self.labels).most_common()
        return {self.label_names[label]: count for label, count in found}

    def relabel(self, label_names: Sequence[str]) -> Self:
        """The same under another order of the class names, such as a saved model's.

        Raises:
            ValueError: If a class that occurs has no place in ``label_names``.
        """
        index = renumber(self.counts(), label_names, self.source)
        labels = [index[self.label_names[label]] for label in self.labels]
        return replace(self, labels=labels, label_names=tuple(label_names))

    def open(self, index: int) -> Any:
        """One of them, decoded.

        Raises:
            ValueError: It cannot be read; names it.
        """
        image = self.images[self.places[index]]
        if isinstance(image, Path):
            return _decoded(image)
        if image is None or not hasattr(image, "convert"):
            raise ValueError(f"{self.source}, row {self.places[index] + 1}: there is no image.")
        return image


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
        self._mode = "L" if len(mean) == 1 else "RGB"

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        i = range(len(self))[index]
        image = self.pictures.open(i).convert(self._mode)
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


class Images(Labelled[Pictures]):
    """Image classification."""

    name = "images"
    problem = "image classification"
    model_class = AutoModelForImageClassification
    columns = ("image_column", "label_column")
    options = ("flip",)
    processor_name = "image processor"
    metric_names = ("accuracy", "f1", "matthews")
    default_metrics = tasks.DEFAULT_METRICS["classification"]
    packages: ClassVar = {"sklearn": "metrics", "PIL": "vision"}

    def read(self, path: Path, splits: Sequence[str]) -> Pictures:
        """The images of a folder with a folder a class, or of a saved dataset.

        Raises:
            ValueError: It holds none, or one that cannot be read.
        """
        if not path.is_dir():
            what = "a file" if path.exists() else "missing"
            raise ValueError(
                f"{path} is {what}: images are read from a folder with a folder for each class, or "
                f"one made by save_to_disk."
            )
        if is_saved(path):
            return self.from_dataset(*load(path, splits))
        return _folder(next((path / name for name in splits if _subfolders(path / name)), path))

    def has_evaluation(self, path: Path) -> bool:
        """Whether a folder has both a split to train on and one to evaluate on."""
        if is_saved(path):
            return bool(split_names(path).intersection(self.eval_splits))
        return bool(_subfolders(path / "train")) and any(
            _subfolders(path / name) for name in self.eval_splits
        )

    def from_dataset(self, dataset: Any, name: str) -> Pictures:
        """The images of a ``datasets.Dataset``, decoded only when they are asked for.

        Raises:
            ValueError: A column is missing or holds something else.
        """
        wanted = self.column("image_column")
        usual = [one for one in ("image", "img") if one in dataset.column_names]
        image, label = wanted or (usual or ["image"])[0], self.column("label_column") or "label"
        for column, option in ((image, "--image-column"), (label, "--label-column")):
            if column not in dataset.column_names:
                raise ValueError(no_column(name, column, dataset.column_names, option))
        cells, feature = list(dataset[label]), dataset.features[label]
        for row, cell in enumerate(cells, start=1):
            if cell is None or cell == -1:
                raise ValueError(f"{name}, row {row}: there is no label; take the row out.")
        if isinstance(feature, datasets.ClassLabel):
            names, labels = tuple(feature.names), cells
        else:
            names = tuple(sorted({str(cell) for cell in cells}))
            index = {name: number for number, name in enumerate(names)}
            labels = [index[str(cell)] for cell in cells]
        source = f"{name} ({image} -> {label}, {counted(len(labels), 'image')})"
        return Pictures(dataset[image], list(range(len(labels))), labels, names, source)

    def from_table(self, table: Table) -> Pictures:
        """Tables of text hold no images.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"{table.name}: images are read from folders and saved datasets.")

    def from_files(self, train: Path, evaluation: Path | None) -> tuple[Pictures, Pictures]:
        """Both parts; there must be two classes to train on.

        Raises:
            ValueError: There is one.
        """
        both = super().from_files(train, evaluation)
        if len(set(both[0].labels)) == 1:
            raise ValueError(
                f"{both[0].source}: every image is of the class {both[0].label_names[0]!r}. There "
                f"is nothing to learn from one class."
            )
        return both

    def split(self, examples: Pictures, fraction: float, seed: int) -> tuple[Pictures, Pictures]:
        """A part of each class set aside."""
        images = examples.images
        keys = [
            "/".join(images[i].parts[-2:]) if isinstance(images, list) else str(i)
            for i in examples.places
        ]
        columns, strata = ("places", "labels"), examples.labels
        return set_aside(examples, columns, keys, strata, "image", fraction=fraction, seed=seed)

    def head(self, examples: Pictures) -> dict[str, object]:
        """Classes."""
        return super().head(examples) | {"problem_type": "single_label_classification"}

    def load_processor(self, folder: str) -> Any:
        """The checkpoint's image processor, or a simple one for its size of image."""
        try:
            return AutoImageProcessor.from_pretrained(folder)
        except (OSError, ValueError) as error:
            config = AutoConfig.from_pretrained(folder)
            size = getattr(config, "image_size", None)
            if size is None:
                raise ValueError(f"no image processor, and no image_size ({error})") from error
            return _simple(size, getattr(config, "num_channels", 3))

    def same_input(self, ours: Any, theirs: Any) -> bool:
        """Whether two processors make the same pixels."""
        names = ("size", "crop_size", "image_mean", "image_std", "resample", "do_normalize")
        a, b = ours.to_dict(), theirs.to_dict()
        return all(a.get(name) == b.get(name) for name in names)

    def features(self, examples: Pictures, processor: Any, *, training: bool) -> Pixels:
        """An image each."""
        flip = self.settings.seed if training and self.settings.flip else None
        return Pixels(examples, processor, flip)

    def collator(self, processor: Any) -> Collator:
        """Images of one size, stacked."""
        return _stacked


def _stacked(rows: list[dict[str, Any]]) -> Batch:
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def _simple(size: int | Sequence[int], channels: int) -> Any:
    from transformers import ViTImageProcessorPil

    height, width = (size, size) if isinstance(size, int) else size
    half = [0.5] * channels
    return ViTImageProcessorPil(
        size={"height": height, "width": width}, image_mean=half, image_std=half
    )


def _subfolders(folder: Path) -> list[Path]:
    """Folders in a folder; none, if it is none. A class called train has none, a split has."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in inside if path.is_dir() and not path.name.startswith("."))


def _folder(folder: Path) -> Pictures:
    """The images below a folder, its subfolders being the classes."""
    classes = _subfolders(folder)
    if not classes:
        raise ValueError(
            f"{folder} holds no folders: images belong in one folder for each class, such as "
            f"{folder / 'cat'} and {folder / 'dog'}."
        )
    files, labels = list[Path](), list[int]()
    for number, path in enumerate(classes):
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not found:
            raise ValueError(
                f"{path} holds no image ({', '.join(sorted(SUFFIXES))}); fill it or remove it."
            )
        files += found
        labels += [number] * len(found)
    for file in files:
        _check_header(file)
    names = tuple(path.name for path in classes)
    source = f"{folder} ({counted(len(names), 'class folder')}, {counted(len(files), 'image')})"
    return Pictures(files, list(range(len(files))), labels, names, source)


def _check_header(file: Path) -> None:
    from PIL import Image

    try:
        with Image.open(file):
            pass
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(_unreadable(file, error)) from error


def _decoded(file: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(file) as image:
            image.load()
            return image
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(_unreadable(file, error)) from error


def _unreadable(file: Path, error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0]
    return f"{file}: not an image that can be read ({reason}); replace it or take it out."
