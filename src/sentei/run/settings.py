"""What a run is asked to do: one frozen record, written beside its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from sentei.files import check_place, leftovers, write_text
from sentei.messages import explain
from sentei.parts.part import Part
from sentei.tasks.options import WHOLE_PATHS, DataPath, ModelName, Option
from sentei.tasks.task import Task
from sentei.untrusted import read_yaml, to_yaml

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""As numpy takes it."""

Precision = Literal["auto", "fp32", "bf16", "fp16"]

StateDtype = Literal["fp32", "bf16"]

Optimizers = Literal["adamw", "bert_adam", "bert_adamax"]

LearningRates = Literal["linear", "cosine", "constant"]


class Training(Part):
    """How a model is trained, dense and while it is pruned."""

    epochs: float = Field(3.0, ge=0, le=1e6)
    """Passes over the training data while pruning; 0 prunes a trained model at once, without
    training it."""

    calibration: int = Field(1024, ge=1)
    """Training examples, drawn by lot, by which inputs of layers are known where --epochs is 0 and
    the recipe looks at them."""

    dense_epochs: float = Field(0.0, ge=0, le=1e6)
    """Passes of ordinary fine-tuning first; pruning starts from its result."""

    batch_size: int = Field(32, ge=1)
    """Examples in a batch."""

    accumulate: int = Field(1, ge=1)
    """Batches in an optimizer step."""

    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate [default: 5e-5; embeddings 2e-4]."""

    group_by_length: bool = False
    """Make batches of examples of like length: less padding, so faster where lengths differ."""

    lr_warmup: float = Field(0.1, ge=0, lt=1)
    """Fraction of training in which the learning rate rises to its peak."""

    lr_schedule: LearningRates = "linear"
    """What follows the rise: linear or cosine fall to --lr-floor at the end, constant stays."""

    lr_floor: float = Field(0.0, ge=0, lt=1)
    """Fraction of the peak at which a falling learning rate ends."""

    optimizer: Optimizers = "adamw"
    """adamw; bert_adam, of BERT's first code, without bias correction; or bert_adamax, of MT-DNN's,
    the same by the largest gradient so far."""

    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """Weight of the past in the optimizer's average of gradients."""

    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """Weight of the past in the optimizer's measure of their size."""

    adam_epsilon: float = Field(1e-8, gt=0)
    """Added to that measure."""

    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay, in units of the learning rate; not of biases and layer norms."""

    clip: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0 does not clip."""

    clip_each: bool = False
    """Clip the gradient of each weight matrix or vector alone instead of all together."""

    freeze_embeddings: bool = False
    """Do not train the embeddings, with the layer norm beside them."""

    precision: Precision = "auto"
    """Arithmetic of forward and backward; auto is bf16 where the hardware has it."""

    dtype: Precision = "auto"
    """Precision of the weights that are written; auto is that of the model's files. They are
    trained in fp32 in any case."""

    state_dtype: StateDtype = "fp32"
    """Precision of the running means of gradients that auto, platon and sensitivity keep beside
    every weight while they prune; bf16 halves them."""

    seed: Seed = 42
    """Seed of everything drawn: new weights, order of data, dropout, and what is set aside for
    evaluation without --eval."""

    evaluations: int = Field(5, ge=0)
    """Evaluations during training, the last at its end; the model that is written is measured in
    any case."""

    checkpoints: int = Field(5, ge=1)
    """Checkpoints during training; the newest two are kept."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.lr_floor and self.lr_schedule == "constant":
            raise ValueError(
                f"--lr-floor {self.lr_floor:g}: a constant learning rate does not fall; leave the "
                "option out, or --lr-schedule constant"
            )
        if self.clip_each and not self.clip:
            raise ValueError(
                "--clip-each: --clip 0 does not clip; give --clip the largest norm, or leave the "
                "option out"
            )
        return self


class Teaching(Part):
    """Who teaches, where the recipe says that a teacher is learnt from."""

    model: Annotated[ModelName | None, Option("teacher")] = None
    """Model to learn from: a name on the hub, a folder, `dense` (what --dense-epochs makes) or
    `self` (the model before pruning) [default: if the recipe learns from one, dense, else self]."""

    cache: Annotated[DataPath | None, Option("teacher_cache")] = None
    """Folder to keep the teacher's answers in, so that each text asks it once [default: none]."""


class Settings(Part):
    """A run: a model, the task it is to do, how it is trained and pruned, and who teaches.

    Documentation of fields is also the command line's help.
    """

    model: ModelName
    """Model: a name on the hub, or the folder of a model or of a run."""

    trust_remote_code: bool = False
    """Run the code that comes with the model, or with its teacher: read it before."""

    task: SerializeAsAny[Task[Any]]
    """What is learnt, from which data."""

    training: Training = Training()
    """How."""

    recipe: dict[str, Any]
    """The pruning recipe, complete."""

    teacher: Teaching = Teaching()
    """Who teaches."""

    @model_validator(mode="after")
    def _usual_training(self) -> Self:
        """Where nothing is said, what is usual for the task."""
        training, usual = self.training, self.task.usual_training
        if missing := {k: v for k, v in usual.items() if k not in training.model_fields_set}:
            object.__setattr__(self, "training", training.model_copy(update=missing))
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            ValueError: The file is missing, damaged or from another version.
        """
        if not path.exists():
            raise ValueError(f"{path}: no run was begun here")
        data = read_yaml(path)
        if isinstance(data, Mapping) and "epochs" in data:
            raise ValueError(
                f"{path}: written by an older Sentei, which did not divide settings into task, "
                "training and teacher; begin the run again"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ValueError(f"{path}: not the settings of a run: {explain(error)}") from error

    def write(self, path: Path) -> None:
        """Write everything, defaults included, so that it holds in whatever folder it is read."""
        data = self.model_dump(mode="json", context=WHOLE_PATHS)
        data["task"] = {"kind": self.task.label, **data["task"]}  # first, for the reader
        write_text(path, to_yaml(data))


def is_written(settings: Settings, path: Path) -> bool:
    """Whether a file holds these settings: what is whole is not written again."""
    try:
        return Settings.read(path) == settings
    except ValueError:
        return False


def check_output(folder: Path) -> None:
    """Refuse a folder that a run would overwrite or cannot write to.

    Raises:
        ValueError: It is a file, it is not empty, or it cannot be made.
    """
    try:
        check_place(folder)
    except ValueError as error:
        raise ValueError(f"--out {error}") from None
    if folder.is_dir() and {*folder.iterdir()} - {*leftovers(folder)}:
        begun = (folder / "run.yaml").is_file()
        fix = (
            "it holds a run: go on with --resume, or name another folder"
            if begun
            else "name a new or empty folder"
        )
        raise ValueError(f"--out {folder}: the folder is not empty; {fix}")
