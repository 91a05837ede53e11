"""What a run is asked to do: one frozen record, written beside its results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sentei import methods, serialization
from sentei.data.formats import Quoting
from sentei.data.table import Layout
from sentei.models.demo import DEMO
from sentei.parts.distillation import Distillation
from sentei.recipe import Recipe
from sentei.tasks import catalogue as tasks


class Settings(BaseModel):
    """A run's model, data, recipe and training.

    Field documentation is also the command line's help.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    """Model: a name on the hub, or the folder of a model or of a run."""

    task: str | None = None
    """Known task, such as sst2, squad or wnut_17: its columns, metrics and data on the hub."""

    kind: str | None = None
    """Kind of task: classification, tokens, answers, images, language or summaries [default: that
    of --task, else classification]."""

    train: Path | None = None
    """Training data: .csv, .tsv, .jsonl, .json, .conll, .txt, a folder of datasets.save_to_disk, or
    of images."""

    eval: Path | None = None
    """Evaluation data; without it a tenth of the training data is set aside."""

    holdout: float | None = Field(None, gt=0, lt=1)
    """Part of the training data to set aside and evaluate on, in place of the evaluation data: for
    choosing settings [default: none]."""

    text_column: str | None = None
    """Column of the text; for summaries, of what is summed up."""

    pair_column: str | None = None
    """Column of the second text, for pairs."""

    label_column: str | None = None
    """Column of the label [default: label]."""

    tokens_column: str | None = None
    """Column of the list of tokens; in .conll files its number [default: tokens, or 1]."""

    tags_column: str | None = None
    """Column of the list of BIO tags; in .conll files its number [default: tags, or the last]."""

    question_column: str | None = None
    """Column of the question [default: question]."""

    context_column: str | None = None
    """Column of the text that holds the answer [default: context]."""

    answers_column: str | None = None
    """Column of the answers, as in the hub's squad [default: answers]."""

    image_column: str | None = None
    """Column of the image, in saved datasets [default: image or img]."""

    target_column: str | None = None
    """Column of the summary [default: summary, highlights or target]."""

    regression: bool = False
    """The label is a number to predict, not a class."""

    metric: str | None = None
    """Headline metric, such as accuracy, f1, matthews, spearman, exact_match, perplexity or rougeL
    [default: by task]."""

    encoding: str = "utf-8"
    """Encoding of the data files."""

    quoting: Quoting = "auto"
    """Quotes in separated files: standard, none, or auto (standard in .csv, none in .tsv)."""

    delimiter: str | None = None
    """Separator of columns [default: comma in .csv, tab in .tsv]."""

    header: bool = True
    """Whether the first line names the columns; without, they are called 1, 2, ..."""

    recipe: dict[str, Any]
    """The pruning recipe, complete."""

    teacher: str | None = None
    """Model to learn from: a name on the hub, a folder, `dense` (what --dense-epochs makes) or
    `self` (the model before pruning) [default: if the recipe learns from one, dense, else self]."""

    teacher_cache: Path | None = None
    """Folder to keep the teacher's answers in, so that each text asks it once [default: none]."""

    epochs: float = Field(3.0, gt=0)
    """Passes over the training data while pruning."""

    dense_epochs: float = Field(0.0, ge=0)
    """Passes of ordinary fine-tuning first; pruning starts from its result."""

    batch_size: int = Field(32, ge=1)
    """Examples in a batch."""

    accumulate: int = Field(1, ge=1)
    """Batches in an optimizer step."""

    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate; it falls linearly to 0."""

    group_by_length: bool = False
    """Make batches of examples of like length: less padding, so faster where lengths differ."""

    lr_warmup: float = Field(0.1, ge=0, lt=1)
    """Fraction of training in which the learning rate rises to its peak."""

    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay of AdamW."""

    clip: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0 does not clip."""

    max_length: int | None = Field(None, ge=4)
    """Tokens kept of a text or pair, in a window of a context, or in a block of running text
    [default: 128; answers 384; language and summaries 512; or the model's limit]."""

    doc_stride: int = Field(128, ge=0)
    """Tokens that two windows of a long context share."""

    max_answer_length: int = Field(30, ge=1)
    """Tokens of an answer at most."""

    null_threshold: float = 0.0
    """How far the score of no answer must lie above that of the best answer to be given."""

    flip: bool = False
    """Mirror half of the training images, others in each epoch."""

    prefix: str | None = None
    """Words put before each text to be summed up, such as T5's `summarize: `."""

    max_new_tokens: int = Field(64, ge=1)
    """Tokens of a summary at most, of those given and those written."""

    num_beams: int | None = Field(None, ge=1)
    """Beams of the search for a summary [default: the model's own number]."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of forward and backward; auto is bf16 where the hardware has it."""

    seed: int = Field(42, ge=0)
    """Seed of everything drawn: new weights, order of data, dropout, and what is set aside for
    evaluation without --eval."""

    evaluations: int = Field(5, ge=0)
    """Evaluations during training, the last at its end; the model that is written is measured in
    any case."""

    checkpoints: int = Field(5, ge=1)
    """Checkpoints during training; the newest two are kept."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            ValueError: The file is missing, damaged or from another version.
        """
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ValueError(f"{path}: no run was begun here ({error.strerror})") from error
        except (yaml.YAMLError, ValidationError) as error:
            raise ValueError(f"{path}: not the settings of a run: {error}") from error

    def write(self, path: Path) -> None:
        """Write everything, defaults included, so that it holds in whatever folder it is read."""
        data = {name: absolute(name, value) for name, value in self.model_dump(mode="json").items()}
        path.write_text(yaml.safe_dump(data, sort_keys=False), "utf-8")

    def load_recipe(self) -> Recipe:
        """The recipe."""
        return serialization.load(self.recipe)

    def layout(self) -> Layout:
        """How the data files are laid out: the task's columns, or those named."""
        known = (
            tasks.layout_of(tasks.find(self.task)) if self.task and self.task != DEMO else Layout()
        )
        named = bool(self.text_column)
        return Layout(
            text_column=self.text_column or known.text_column,
            pair_column=self.pair_column or (None if named else known.pair_column),
            label_column=self.label_column or known.label_column,
            problem="regression" if self.regression else known.problem,
            encoding=self.encoding,
            quoting=self.quoting,
            delimiter=self.delimiter,
            header=self.header,
        )


def absolute(name: str, value: Any) -> Any:
    """The value of a setting as it holds in any folder: whole paths of files and folders."""
    if name in ("model", "teacher"):
        local = value not in (None, DEMO, "dense", "self") and Path(value).is_dir()
    else:
        local = name in ("train", "eval", "teacher_cache") and value is not None
    return os.path.abspath(value) if local else value


OF_TRAINING = (
    "recipe",
    "teacher",
    "teacher_cache",
    "epochs",
    "dense_epochs",
    "accumulate",
    "group_by_length",
    "learning_rate",
    "lr_warmup",
    "weight_decay",
    "clip",
    "flip",
    "precision",
    "evaluations",
    "checkpoints",
)
"""Settings that a finished model is measured without."""


def make_recipe(
    method: str | None,
    sparsity: float | None,
    recipe_file: Path | None,
    overrides: list[str],
    *,
    pattern: str | None = None,
    teacher: bool = False,
) -> Recipe:
    """The recipe a command line asks for: a method or a file, then single values.

    Args:
        method: Its name [default: auto].
        sparsity: The final one.
        recipe_file: YAML, instead of a method.
        overrides: ``path=value``, applied last.
        pattern: What is pruned together.
        teacher: Whether one was named; a recipe without a teacher's loss then gets the default.

    Raises:
        ValueError: Both or neither source is given, or a value does not fit.
    """
    if recipe_file and method:
        raise ValueError("--recipe and --method both name a method: give one of them")
    try:
        if recipe_file:
            recipe = serialization.load(recipe_file)
        else:
            chosen = methods.find(method or "auto")
            recipe = chosen.build() if sparsity is None else chosen.build(sparsity)
    except ValidationError as error:
        raise ValueError(serialization.explain(error)) from None
    if pattern:
        recipe = serialization.load({**serialization.to_dict(recipe), "pattern": pattern})
    if teacher and recipe.distill is None:
        recipe = recipe.model_copy(update={"distill": Distillation()})
    if recipe_file and sparsity is not None:
        overrides = [f"schedule.sparsity={sparsity}", *overrides]
    return serialization.override(recipe, overrides)


def check_output(folder: Path) -> None:
    """Refuse a folder that a run would overwrite or cannot write to.

    Raises:
        ValueError: It is a file, it is not empty, or it cannot be made.
    """
    if folder.is_file():
        raise ValueError(f"--out {folder}: a file is in the way; name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        begun = (folder / "run.yaml").is_file()
        fix = (
            "it holds a run: go on with --resume, or name another folder"
            if begun
            else "name a new or empty folder"
        )
        raise ValueError(f"--out {folder}: the folder is not empty; {fix}")
    parent = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.exists())
    if not os.access(parent, os.W_OK):
        raise ValueError(f"--out {folder}: {parent} cannot be written to")
