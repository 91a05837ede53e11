"""From settings to everything a run needs; every error that can be known before training."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, set_seed

from sentei import serialization
from sentei.data.features import Features
from sentei.messages import listing
from sentei.models.embeddings import embeddings
from sentei.models.loading import (
    check_family,
    load_model,
    locate_model,
    saved_labels,
    share_padding,
)
from sentei.models.pretrained import check_writable, load_config, stored_dtype
from sentei.parts.scope import Selection
from sentei.recipe import Fitted, Recipe
from sentei.run import teacher as teachers
from sentei.run.precision import precision, state_dtype, written_dtype
from sentei.run.reference import References, load_references, with_reference
from sentei.run.settings import Settings, Training
from sentei.run.teacher import Teacher
from sentei.tasks.corpus import Corpus, load_corpus


@dataclass(frozen=True)
class Prepared:
    """A run ready to start.

    ``trained_head`` says that the checkpoint brought weights for every part of the model, so that
    its metrics before pruning mean something. ``folder`` is what ``from_pretrained`` takes,
    ``dtype`` what the weights are written in; ``processor`` makes the model's input: a tokenizer,
    or an image processor. ``untaught`` says why a recipe that can do without its teacher has none
    here. ``notes`` say what is taken for granted about the model.
    """

    settings: Settings
    recipe: Recipe
    corpus: Corpus
    processor: Any
    train: Features
    evaluation: Features
    model: PreTrainedModel
    model_name: str
    folder: str
    dtype: torch.dtype
    teacher: Teacher | None
    references: References
    untaught: str
    notes: tuple[str, ...]
    trained_head: bool
    selection: Selection
    total_steps: int
    dense_steps: int

    @property
    def calibration(self) -> int:
        """Examples by which inputs of layers are known, where nothing is trained while pruning."""
        training = self.settings.training
        looks = self.recipe.inputs is not None and not training.epochs
        return min(training.calibration, len(self.train)) if looks else 0

    def fresh_model(self) -> PreTrainedModel:
        """The model once more as it was before any training."""
        set_seed(self.settings.training.seed)  # its head is drawn
        trust = self.settings.trust_remote_code
        model, _ = load_model(self.folder, self.corpus.head, trust_remote_code=trust)
        share_padding(model, self.processor)
        return model


def _check_launcher() -> None:
    """Refuse a launcher that wants the model sharded: whole ones are saved, by one process."""
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true"):
        raise ValueError(
            "the launcher asks for FSDP (ACCELERATE_USE_FSDP), and the command saves whole models "
            "from its first process: launch it for DDP (torchrun, or accelerate without fsdp); "
            "sharded models are pruned in a Trainer or loop of your own (docs/guides/machines.md)"
        )


def prepare(settings: Settings) -> Prepared:
    """Load and check everything.

    Raises:
        ValueError: Anything that would make the run fail later; names the place and the fix.
    """
    settings, recipe = with_reference(settings), planned(settings)
    task, training = settings.task, settings.training
    task.check_packages()
    choice = teachers.choose_teacher(settings, recipe)
    folder, name = locate_model(settings.model)
    trust: Any = {"trust_remote_code": settings.trust_remote_code}
    config = _config(settings, folder)  # before the data, which may take long
    teachers.check_folders(choice, recipe, folder)
    corpus = load_corpus(task, training.seed)
    corpus, order = teachers.number_classes(corpus, folder, choice, **trust)
    choice = teachers.unless_labels_suffice(choice, settings, recipe, corpus)
    processor = corpus.load_processor(folder, **trust)
    train = corpus.training_features(processor, training.seed)
    evaluation = corpus.evaluation_features(processor)
    total = pruning_steps(len(train), training)
    _check_steps(training, recipe.with_examples(len(train)), corpus, train, total)
    set_seed(training.seed)
    model, trained_head = load_model(folder, corpus.head, **trust)
    check_writable(model, f"--model {settings.model}")
    share_padding(model, processor)
    for features in (train, evaluation):
        task.check_model(model, features)
    precision(training.precision)
    labels = corpus.train.label_names
    names = saved_labels(folder, **trust) if labels else ()
    notes = teachers.assumed_names(settings.model, names, labels) if trained_head else ()
    if not trained_head:
        notes += _new_head(settings)
        choice = teachers.unless_untrained(choice, settings, recipe, names, labels)
    fitted = _fit(settings, recipe, model, train)
    _check_frozen(training, model, fitted.selection)
    teacher = teachers.load_teacher(
        choice, settings, fitted.recipe, corpus, model, processor, train
    )
    return Prepared(
        settings=settings,
        recipe=fitted.recipe,
        corpus=corpus,
        processor=processor,
        train=train,
        evaluation=evaluation,
        model=model,
        model_name=name,
        folder=folder,
        dtype=written_dtype(training.dtype, stored_dtype(folder, config)),
        references=load_references(settings, corpus, processor),
        teacher=teacher and replace(teacher, notes=(*order, *teacher.notes)),
        untaught=choice.untaught,
        notes=notes,
        trained_head=trained_head,
        selection=fitted.selection,
        total_steps=total,
        dense_steps=optimizer_steps(len(train), training.dense_epochs, training),
    )


def _config(settings: Settings, folder: str) -> PreTrainedConfig:
    """The model's config, of an architecture that can have the task's head."""
    _check_launcher()
    task = settings.task
    config = load_config(folder, "model", trust_remote_code=settings.trust_remote_code)
    check_family(config, task.model_class, f"--kind {task.label}", f"--model {settings.model}")
    return config


def planned(settings: Settings) -> Recipe:
    """The recipe that is pruned with: for no epochs, in one decision without training.

    Raises:
        ValueError: It acts in training, and there is none; or it is no recipe.
    """
    recipe = settings.task.adapt(serialization.load(settings.recipe))
    if settings.training.epochs:
        return recipe
    try:
        return recipe.at_once()
    except ValueError as error:
        raise ValueError(f"--epochs 0: {error}") from None


def pruning_steps(features: int, training: Training) -> int:
    """Optimizer steps of pruning with so many features; without training 1, for the decision."""
    return optimizer_steps(features, training.epochs, training) or 1


def optimizer_steps(features: int, epochs: float, training: Training) -> int:
    """Optimizer steps of ``epochs`` passes over ``features``, as the Trainer counts them."""
    batches = math.ceil(features / training.batch_size)
    return math.ceil(epochs * max(math.ceil(batches / training.accumulate), 1))


def _check_steps(
    training: Training, recipe: Recipe, corpus: Corpus, train: Features, total: int
) -> None:
    """Refuse settings of training that these data or this recipe cannot have."""
    if training.group_by_length and train.lengths is None:
        raise ValueError(
            f"--group-by-length: {corpus.problem} has inputs of one size; leave the option out"
        )
    recipe.check(total)
    try:
        recipe.check_state(state_dtype(training.state_dtype))
    except ValueError as error:
        raise ValueError(f"--state-dtype {training.state_dtype}: {error}") from None
    if recipe.schedule.from_model and training.dense_epochs:
        raise ValueError(
            f"--dense-epochs {training.dense_epochs:g}: dense training leaves no zeros, and the "
            "recipe keeps those of --model; leave the option out"
        )


def _fit(settings: Settings, recipe: Recipe, model: PreTrainedModel, train: Features) -> Fitted:
    """The recipe for the model and as many steps as are trained."""
    try:
        return recipe.fit(model, pruning_steps(len(train), settings.training), len(train))
    except ValueError as error:
        raise ValueError(f"--model {settings.model}: {error}") from None


def _new_head(settings: Settings) -> tuple[str, ...]:
    """What is told of a model that gets a new head, which something must train."""
    task, training, model = settings.task, settings.training, f"--model {settings.model}"
    if not training.epochs and not training.dense_epochs:
        raise ValueError(
            f"--epochs 0: {model} has no trained head for this task, and nothing would train it; "
            "give a model fine-tuned on it, or --dense-epochs 3 to fine-tune first"
        )
    return (f"{model} {task.new_head}",) if task.new_head else ()


def _check_frozen(training: Training, model: PreTrainedModel, selection: Selection) -> None:
    """Refuse to prune what is not trained."""
    if not training.freeze_embeddings:
        return
    try:
        frozen = {id(weight) for weight in embeddings(model).values()}
    except ValueError as error:
        raise ValueError(f"--freeze-embeddings: {error}; leave the option out") from None
    pruned = [site.name for site in selection.sites if id(site.parameter) in frozen]
    if pruned:
        raise ValueError(
            f"--freeze-embeddings: the recipe prunes {listing(pruned, 3)}, and what is pruned must "
            f"be trained: leave the option out, or --set scope.exclude='[{pruned[0]}]'"
        )
