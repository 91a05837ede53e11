"""Where examples come from: a known dataset, files, and what is set aside of them."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from sentei.data import hub
from sentei.models.demo import DEMO
from sentei.parts.part import Part
from sentei.tasks import catalogue
from sentei.tasks.catalogue import HubDataset, KnownDataset
from sentei.tasks.options import DataPath, Option

EVAL_SPLITS: Final = (
    "validation",
    "validation_matched",
    "val",
    "valid",
    "dev",
    "eval",
    "test",
)
"""What a split for evaluation is called, the first that is there."""


class CorpusSource(Part):
    """Where examples come from.

    Each field takes the place of those after it: who names another dataset wants none of the
    files, and who names a file to evaluate on wants nothing set aside.
    """

    dataset: Annotated[str | None, Option("task")] = None
    """Known task, such as sst2, squad or wnut_17: its columns, metrics and data on the hub."""

    train: DataPath | None = None
    """Training data: .csv, .tsv, .jsonl, .json, .conll, .txt (also compressed), .parquet, .arrow; a
    pattern such as 'data/*.csv'; a folder of such files, of datasets.save_to_disk, or of images; or
    a dataset on the hub, user/name or user/name:config."""

    eval: DataPath | None = None
    """Evaluation data; without it a tenth of the training data is set aside."""

    holdout: float | None = Field(None, gt=0, lt=1)
    """Part of the training data to set aside and evaluate on, in place of the evaluation data: for
    choosing settings [default: none]."""

    @property
    def known(self) -> KnownDataset | None:
        """What is known of the dataset."""
        return catalogue.find(self.dataset) if self.dataset else None

    @property
    def is_demo(self) -> bool:
        """Whether the examples are those of the demo's package."""
        return self.known is not None and self.known.name == DEMO

    @property
    def hub_dataset(self) -> HubDataset | None:
        """The dataset on the hub, if the examples are of one."""
        if self.known:
            return self.known.hub
        named = hub.parse(self.train) if self.train else None
        return HubDataset(*named) if named else None

    @property
    def source_name(self) -> str:
        """What reports call it."""
        if self.known:
            return self.known.title or str(self.dataset)
        file = self.train or self.eval
        return file.stem if file else ""

    @property
    def eval_splits(self) -> tuple[str, ...]:
        """What a saved dataset's split for evaluation may be called, the dataset's own first."""
        known = self.known.hub if self.known else None
        return (known.eval_split, *EVAL_SPLITS) if known else EVAL_SPLITS
