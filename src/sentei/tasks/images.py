"""A class for every image, from folders named by their classes or from datasets.

Images are made ready by the checkpoint's own processor. A checkpoint that has none gets a simple
one, which is saved beside the pruned model: resized to the model's size, scaled to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NoReturn

from sentei.data.formats import ARROW, suffix
from sentei.data.labels import read_names, warn_of_likes
from sentei.data.table import no_column
from sentei.messages import counted, short
from sentei.tasks.labelled import Labelled
from sentei.tasks.options import Option
from sentei.tasks.pictures import Pictures, read_folder, subfolders
from sentei.untrusted import reading

if TYPE_CHECKING:
    from sentei.data.features import Features
    from sentei.tasks.task import Collator


class Images(Labelled[Pictures]):
    """Image classification."""

    kind: Literal["images"] = "images"

    image_column: str | None = None
    """Column of the image, in saved datasets [default: image or img]."""

    flip: Annotated[bool, Option(training=True)] = False
    """Mirror half of the training images, others in each epoch."""

    title = "image classification"
    auto_class = "AutoModelForImageClassification"
    pipeline_tag = "image-classification"
    processor_name = "image processor"
    packages: ClassVar = {"PIL": "vision"}

    @property
    def metric_choices(self) -> tuple[str, ...]:
        """Metrics of classes."""
        return ("accuracy", "f1", "matthews")

    # ------------------------------------------------------------------------------ data

    def read(self, path: Path, splits: Sequence[str]) -> Pictures:
        """The images of a folder with a folder a class, or of a dataset.

        Raises:
            ValueError: It holds none, or one that cannot be read.
        """
        from sentei.data import sources

        if path.is_file() and suffix(path) not in ARROW:
            raise ValueError(
                f"{path} is a file: images are read from a folder with a folder for each class, "
                f"from {' and '.join(ARROW)}, or from a folder made by save_to_disk."
            )
        if not path.is_dir() or sources.is_saved(path):
            return self.from_dataset(*sources.load(path, splits))
        return read_folder(next((path / name for name in splits if subfolders(path / name)), path))

    def has_evaluation(self, path: Path) -> bool:
        """Whether a folder has both a split to train on and one to evaluate on."""
        from sentei.data import sources

        if not path.is_dir() or sources.is_saved(path):
            return bool(sources.split_names(path).intersection(self.eval_splits))
        return bool(subfolders(path / "train")) and any(
            subfolders(path / name) for name in self.eval_splits
        )

    def from_dataset(self, dataset: Any, name: str) -> Pictures:
        """The images of a ``datasets.Dataset``, decoded only when they are asked for.

        Raises:
            ValueError: A column is missing or holds something else.
        """
        from datasets import ClassLabel, Image

        usual = [one for one in ("image", "img") if one in dataset.column_names] or ["image"]
        image, label = self.image_column or usual[0], self.label_column or "label"
        for column, option in ((image, "--image-column"), (label, "--label-column")):
            if column not in dataset.column_names:
                raise ValueError(no_column(name, column, dataset.column_names, option))

        def fail(row: int, reason: str) -> NoReturn:
            raise ValueError(f"{name}, row {row + 1}: {reason}")

        with reading(name, f"its column {short(label)} is damaged"):
            cells, feature = list(dataset[label]), dataset.features[label]
        if isinstance(feature, ClassLabel):
            names, labels = tuple(feature.names), cells
            for row, cell in enumerate(cells):
                if cell is None or cell == -1:
                    fail(row, "there is no label; take the row out.")
                if cell not in range(len(names)):
                    fail(row, f"the label {cell} is none of the {len(names)} declared.")
        else:
            found = read_names(cells, fail, "A class is a whole number or a name.")
            names = tuple(sorted(set(found)))
            warn_of_likes(names, name)
            index = {name: number for number, name in enumerate(names)}
            labels = [index[one] for one in found]
        source = f"{name} ({image} -> {label}, {counted(len(labels), 'image')})"
        if isinstance(dataset.features[image], Image):
            dataset = dataset.cast_column(image, Image(decode=False))
        return Pictures(dataset[image], list(range(len(labels))), labels, names, source)

    def check_training(self, examples: Pictures) -> None:
        """Refuse a single class.

        Raises:
            ValueError: There is one.
        """
        if len(set(examples.labels)) == 1:
            raise ValueError(
                f"{examples.source}: every image is of the class "
                f"{short(examples.label_names[examples.labels[0]])}. "
                f"There is nothing to learn from one class."
            )

    # ------------------------------------------------------------------ model and features

    def head(self, examples: Pictures) -> dict[str, object]:
        """Classes."""
        return super().head(examples) | {"problem_type": "single_label_classification"}

    def load_processor(self, folder: str, *, trust_remote_code: bool = False) -> Any:
        """The checkpoint's image processor, or a simple one for its size of image."""
        from transformers import AutoImageProcessor
        from transformers.utils.hub import cached_file

        from sentei.models.pretrained import load_config

        trust: Any = {"trust_remote_code": trust_remote_code}
        there: Any = {"_raise_exceptions_for_missing_entries": False}
        names = ("preprocessor_config.json", "processor_config.json")
        if any(cached_file(folder, name, **there) for name in names):
            return AutoImageProcessor.from_pretrained(folder, **trust)
        config = load_config(folder, **trust)
        size = getattr(config, "image_size", None)
        if size is None:
            raise ValueError("no image processor, and no image_size in its config")
        return _simple(size, getattr(config, "num_channels", 3))

    def same_input(self, ours: Any, theirs: Any) -> bool:
        """Whether two processors make the same pixels."""
        names = ("size", "crop_size", "image_mean", "image_std", "resample", "do_normalize")
        a, b = ours.to_dict(), theirs.to_dict()
        return all(a.get(name) == b.get(name) for name in names)

    def features(self, examples: Pictures, processor: Any, *, seed: int | None = None) -> Features:
        """An image each, mirrored by chance while a model is trained on them."""
        from sentei.tasks.pixels import Pixels

        return Pixels(examples, processor, seed if self.flip else None)

    def collator(self, processor: Any) -> Collator:
        """Images of one size, stacked."""
        from sentei.tasks.pixels import stacked

        return stacked


def _simple(size: int | Sequence[int], channels: int) -> Any:
    from transformers import ViTImageProcessorPil

    height, width = (size, size) if isinstance(size, int) else size
    half = [0.5] * channels
    return ViTImageProcessorPil(
        size={"height": height, "width": width}, image_mean=half, image_std=half
    )
