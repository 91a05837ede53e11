"""Images with their classes, in folders named by these or in datasets; decoded when asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from sentei.data.holdout import set_aside
from sentei.data.labels import renumber
from sentei.messages import counted

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
        counts = Counter(self.labels).most_common()
        return {self.label_names[label]: count for label, count in counts}

    def relabel(self, label_names: Sequence[str]) -> Self:
        """The same under another order of the class names, such as a saved model's.

        Raises:
            ValueError: If a class that occurs has no place in ``label_names``.
        """
        index = renumber(self.counts(), label_names, self.source)
        labels = [index[self.label_names[label]] for label in self.labels]
        return replace(self, labels=labels, label_names=tuple(label_names))

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """A part of each class set aside.

        Raises:
            ValueError: There are too few.
        """
        images = self.images
        keys = [
            "/".join(images[i].parts[-2:]) if isinstance(images, list) else str(i)
            for i in self.places
        ]
        columns, strata = ("places", "labels"), self.labels
        return set_aside(self, columns, keys, strata, "image", fraction=fraction, seed=seed)

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


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder; none, if it is none. A class called train has none, a split has."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in inside if path.is_dir() and not path.name.startswith("."))


def read_folder(folder: Path) -> Pictures:
    """The images below a folder, its subfolders being the classes.

    Raises:
        ValueError: It holds none, or one that cannot be read.
    """
    classes = subfolders(folder)
    if not classes:
        raise ValueError(
            f"{folder} holds no folders: images belong in one folder for each class, such as "
            f"{folder / 'cat'} and {folder / 'dog'}."
        )
    files, labels = list[Path](), list[int]()
    for number, path in enumerate(classes):
        images = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not images:
            raise ValueError(
                f"{path} holds no image ({', '.join(sorted(SUFFIXES))}); fill it or remove it."
            )
        files += images
        labels += [number] * len(images)
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
