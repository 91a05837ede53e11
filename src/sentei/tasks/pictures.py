"""Images with their classes, in folders named by these or in datasets; decoded when asked for.

An image is shown to the model as transformers' ``pipeline`` shows it: upright, the first of several
frames, in red, green and blue, transparency and palettes resolved as Pillow does.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Self

from sentei.data.formats import check_plain
from sentei.data.holdout import set_aside
from sentei.data.labels import as_name, renumber, warn_of_likes
from sentei.messages import SenteiWarning, counted
from sentei.untrusted import reading

SUFFIXES: Final = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""What a file of an image may end in; others in a class's folder are passed over."""

_FIX: Final = "replace it or take it out"


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
        """One of them as the model is shown it, in red, green and blue.

        Raises:
            ValueError: It cannot be read; names it.
        """
        from PIL import Image

        image = self.images[self.places[index]]
        row = f"{self.source}, row {self.places[index] + 1}"
        what: object = image if isinstance(image, Path) else row
        if isinstance(image, Mapping):  # as a dataset keeps it
            content, path = image.get("bytes"), image.get("path")
            image = BytesIO(content) if content is not None else path and Path(path)
        if image is None:
            raise ValueError(f"{row}: there is no image.")
        with reading(what, _FIX):
            if isinstance(image, Image.Image):
                return shown(image, self.source)
            with _opened(image) as file:
                return shown(file, self.source)


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
    by_folder = sorted(as_name(path.name) for path in classes)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(by_folder))}
    files, labels = list[Path](), list[int]()
    for path in classes:
        images = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not images:
            raise ValueError(
                f"{path} holds no image ({', '.join(sorted(SUFFIXES))}); fill it or remove it."
            )
        files += images
        labels += [numbers[as_name(path.name)]] * len(images)
    for file in files:
        with reading(file, _FIX), _opened(file):
            pass
    names = tuple(dict.fromkeys(by_folder))
    warn_of_likes(names, str(folder))
    source = f"{folder} ({counted(len(names), 'class folder')}, {counted(len(files), 'image')})"
    return Pictures(files, list(range(len(files))), labels, names, source)


def _opened(file: Path | BytesIO) -> Any:
    from PIL import Image

    if isinstance(file, Path):
        check_plain(file)
    Image.init()
    # for EPS, whatever its name, Pillow would start Ghostscript
    return Image.open(file, formats=[kind for kind in Image.OPEN if kind != "EPS"])


def shown(image: Any, source: str) -> Any:
    """An image as the model is shown it, in red, green and blue.

    Args:
        image: Of any mode.
        source: Where it comes from, for the warning.

    Raises:
        ValueError: Its values are none of an image.
    """
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        upright = _of_eight_bits(upright, source)
    return upright.convert("RGB")


def _of_eight_bits(image: Any, source: str) -> Any:
    """An image of wider numbers with white where the least range that holds them has its end."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    if not (low >= 0 and high < 1 << 16):
        raise ValueError(f"its values are from {low:g} to {high:g}, and 0 to 65535 are known")
    if image.mode == "F" and high <= 1:
        eight = np.rint(values * 255)
    elif high < 1 << 8:
        return image
    else:
        eight = values // 256  # the upper byte, as Pillow reads colours of 16 bits
    warnings.warn(
        f"{source}: images of 16 bits or of decimal numbers are brought to 8 bits here; "
        "transformers' pipeline shows what is above 255 as white, and what is below 1 as black: "
        "give it images of 8 bits.",
        SenteiWarning,
        stacklevel=2,
    )
    return Image.fromarray(eight.astype(np.uint8))
