"""From settings to everything a run needs; every error that can be known before training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from sentei.data.features import Features
from sentei.data.labels import placeholders, same_names
from sentei.distill import Match
from sentei.distill.cache import expected_bytes
from sentei.distill.layers import match
from sentei.messages import listing
from sentei.models.folder import MANIFEST, load
from sentei.parts.distillation import Distillation
from sentei.parts.scope import Selection
from sentei.recipe import Recipe
from sentei.run.settings import Settings
from sentei.tasks import demo, kinds
from sentei.tasks.catalogue import DEMO
from sentei.tasks.kinds import Kind
from sentei.tasks.task import Examples


@dataclass(frozen=True)
class Corpus:
    """Training and evaluation examples, and the kind of task that says what becomes of them."""

    kind: Kind[Any]
    train: Examples
    evaluation: Examples
    task: str

    @property
    def problem(self) -> str:
        """What reports call the kind."""
        return self.kind.problem

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured, the headline first."""
        return self.kind.metrics


@dataclass(frozen=True)
class Teacher:
    """Who the student learns from.

    ``name`` is ``dense``, ``self`` or what the user called it; ``model`` is None for the first
    two, which are made when the run begins. ``bytes`` are its weights'; ``cache_bytes`` those of
    all its answers on disk, 0 without a cache.
    """

    name: str
    model: PreTrainedModel | None
    match: Match
    notes: tuple[str, ...]
    bytes: int
    cache_bytes: int


@dataclass(frozen=True)
class Prepared:
    """A run ready to start.

    ``trained_head`` says that the checkpoint brought weights for every part of the model, so that
    its metrics before pruning mean something. ``folder`` is what ``from_pretrained`` takes,
    ``processor`` makes the model's input: a tokenizer, or an image processor. ``untaught`` says why
    a recipe that can do without its teacher has none here. ``notes`` say what is taken for granted
    about the model.
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
    teacher: Teacher | None
    untaught: str
    notes: tuple[str, ...]
    trained_head: bool
    selection: Selection
    total_steps: int
    dense_steps: int


def prepare(settings: Settings) -> Prepared:
    """Load and check everything.

    Raises:
        ValueError: Anything that would make the run fail later; names the place and the fix.
    """
    recipe, kind = settings.load_recipe(), kinds.of(settings)
    kind.check_packages()
    chosen, untaught = choose_teacher(settings, recipe), ""
    optional = recipe.distill is not None and not (recipe.distill.required or settings.teacher)
    if chosen and kind.cannot_learn and optional:
        chosen, untaught = None, f"--kind {kind.name} learns from none: {kind.cannot_learn}"
    folder, name = locate_model(settings.model)
    if chosen and recipe.distill:
        _check_teachable(kind)
        places = {"model": folder}
        if chosen not in ("dense", "self"):
            places["teacher"] = locate_model(chosen, "teacher")[0]
        for option, place in places.items():
            if recipe.distill.attention and is_shrunk(place):
                raise ValueError(
                    f"--{option} {place}: its blocks may have any number of attention heads, and "
                    "the recipe compares those of student and teacher one by one; use --set "
                    "distill.attention=0"
                )
    corpus, order = _in_order_of(load_corpus(settings), folder, chosen)
    if chosen and learns_alone(settings, recipe, corpus):
        chosen, untaught = None, "the recipe learns numbers from the labels alone"
    processor = load_processor(corpus.kind, folder)
    train = corpus.kind.features(corpus.train, processor, training=True)
    evaluation = corpus.kind.features(corpus.evaluation, processor, training=False)
    if settings.group_by_length and train.lengths is None:
        raise ValueError(
            f"--group-by-length: {corpus.problem} has inputs of one size; leave the option out"
        )
    total = optimizer_steps(len(train), settings.epochs, settings)
    recipe = recipe.with_examples(len(train))
    recipe.check(total)
    if recipe.schedule.found and settings.dense_epochs:
        raise ValueError(
            f"--dense-epochs {settings.dense_epochs:g}: dense training leaves no zeros, and the "
            "recipe keeps those of --model; leave the option out"
        )
    set_seed(settings.seed)
    model, trained_head = load_model(folder, corpus)
    share_padding(model, processor)
    for features in (train, evaluation):
        corpus.kind.check_model(model, features)
    precision(settings)
    found = corpus.train.label_names
    names = saved_labels(folder) if found else ()
    notes = _taken_for(settings.model, names, found) if trained_head else ()
    if chosen == "self" and not trained_head and optional:
        chosen = None
        untaught = (
            f"--model {settings.model} {_no_head(names, found)}; --dense-epochs 3 would make one "
            "first, or --teacher name one"
        )
    if untaught and settings.teacher_cache:
        raise ValueError(
            f"--teacher-cache {settings.teacher_cache}: this run has no teacher; {untaught}"
        )
    selection = recipe.resolve(model)[0]
    try:
        recipe = recipe.with_zeros(selection)
    except ValueError as error:
        raise ValueError(f"--model {settings.model}: {error}") from None
    teacher = None
    if chosen is not None and recipe.distill is not None:
        if chosen == "self" and not trained_head:
            raise ValueError(
                f"the recipe learns from a teacher, and there is none: --model {settings.model} "
                f"{_no_head(names, found)}. Fine-tune it first with --dense-epochs 3, or name a "
                "fine-tuned model with --teacher"
            )
        teacher = _teacher(chosen, settings, recipe.distill, corpus, model, processor, train)
        teacher = replace(teacher, notes=(*order, *teacher.notes))
    return Prepared(
        settings=settings,
        recipe=recipe,
        corpus=corpus,
        processor=processor,
        train=train,
        evaluation=evaluation,
        model=model,
        model_name=name,
        folder=folder,
        teacher=teacher,
        untaught=untaught,
        notes=notes,
        trained_head=trained_head,
        selection=selection,
        total_steps=total,
        dense_steps=optimizer_steps(len(train), settings.dense_epochs, settings),
    )


def choose_teacher(settings: Settings, recipe: Recipe) -> str | None:
    """``dense``, ``self``, or the model named; None where the recipe has no teacher.

    Raises:
        ValueError: A teacher is named that the recipe does not ask or that will not be there.
    """
    if recipe.distill is None:
        for name in ("teacher", "teacher_cache"):
            if value := getattr(settings, name):
                raise ValueError(
                    f"--{name.replace('_', '-')} {value}: the recipe has no `distill`, which says "
                    "what a teacher is asked for"
                )
        return None
    dense = settings.dense_epochs > 0
    if settings.teacher == "dense" and not dense:
        raise ValueError(
            "--teacher dense: there is no dense training in this run; give it --dense-epochs, or "
            "name a fine-tuned model"
        )
    if settings.teacher in (None, "self"):  # after dense training that is the model before pruning
        return "dense" if dense else "self"
    return settings.teacher


def learns_alone(settings: Settings, recipe: Recipe, corpus: Corpus) -> bool:
    """Whether the task's labels are numbers, which the recipe learns without a teacher.

    Raises:
        ValueError: They are, and a teacher is named, or the recipe requires one.
    """
    asked = recipe.distill
    if asked is None or corpus.problem != "regression" or not asked.labels_only:
        return False
    if settings.teacher or asked.required:
        reason = f"--teacher {settings.teacher}" if settings.teacher else "distill.required=true"
        fix = "leave the option out" if settings.teacher else "use distill.required=false"
        raise ValueError(
            f"{reason}: the recipe learns numbers from the labels alone; {fix}, or add --set "
            "distill.regression=teacher"
        )
    return True


def _check_teachable(kind: Kind[Any]) -> None:
    if kind.cannot_learn:
        raise ValueError(
            f"--kind {kind.name} learns from no teacher: {kind.cannot_learn}; choose a recipe "
            "without `distill`, or leave it out with --set distill=null"
        )
    if kind.settings.teacher_cache and not kind.caches:
        raise ValueError(
            f"--teacher-cache {kind.settings.teacher_cache}: answers are kept for whole texts, not "
            f"for --kind {kind.name}; leave the option out"
        )


def _in_order_of(
    corpus: Corpus, folder: str, teacher: str | None
) -> tuple[Corpus, tuple[str, ...]]:
    """The corpus with its classes numbered as a model numbers them that is trained on them.

    A teacher that was named must know every class; the model being pruned decides only where it
    has the very same names.
    """
    if not corpus.train.label_names:
        return corpus, ()
    found, given = corpus.train.label_names, teacher not in (None, "dense", "self")
    option = "teacher" if given else "model"
    names = saved_labels(locate_model(str(teacher), option)[0] if given else folder, option)
    if names == placeholders(len(names)) or names == found:
        return corpus, _taken_for(str(teacher), names, found) if given else ()
    if not given and not same_names(names, found):
        return corpus, ()
    both = corpus.train.relabel(names), corpus.evaluation.relabel(names)
    return replace(corpus, train=both[0], evaluation=both[1]), ()


def _taken_for(model: str, names: Sequence[str], found: Sequence[str]) -> tuple[str, ...]:
    """A note on a model that does not name its classes, where the data's are not their numbers."""
    unnamed = tuple(names) == placeholders(len(found))
    if not unnamed or tuple(found) in (tuple(names), tuple(map(str, range(len(found))))):
        return ()
    return (f"{model} does not name its classes: taken to be {listing(found)}, in this order",)


def _no_head(names: Sequence[str], found: Sequence[str]) -> str:
    """Why a model called its classes ``names`` has no head for those found in the data."""
    unnamed = tuple(names) == placeholders(len(names))
    if unnamed or len(names) != len(found) or same_names(names, found):
        return "has no head trained for this task"
    return (
        f"has the classes {listing(names)}, and the data have {listing(found)}: if these are the "
        "same, write the model's names into the data, or the data's into id2label and label2id of "
        "the model's config.json"
    )


def _teacher(
    name: str,
    settings: Settings,
    asked: Distillation,
    corpus: Corpus,
    student: PreTrainedModel,
    processor: Any,
    train: Features,
) -> Teacher:
    model, like, notes = None, student, list[str]()
    if name not in ("dense", "self"):
        folder, _ = locate_model(name, "teacher")
        model, trained = load_model(folder, corpus, "teacher")
        if not trained:
            raise ValueError(
                f"--teacher {name}: it has no head trained for this task; fine-tune it first, or "
                "let --dense-epochs make a teacher"
            )
        theirs = load_processor(corpus.kind, folder, "teacher")
        if not corpus.kind.same_input(processor, theirs):
            raise ValueError(
                f"--teacher {name}: it reads other tokens than --model {settings.model}, and both "
                "are given the same ones; choose a teacher with the model's tokenizer"
            )
        share_padding(model, theirs)
        like = model
    found = match(student, like, asked)
    keeps = 0
    if settings.teacher_cache:
        keeps = cache_bytes(found, like, train)
        notes.append(
            f"the teacher's answers to {len(train):,} texts are kept in {settings.teacher_cache}: "
            f"{keeps / 1e6:,.1f} MB when all are there"
        )
    return Teacher(name, model, found, (*found.notes, *notes), parameter_bytes(like), keeps)


def cache_bytes(found: Match, teacher: PreTrainedModel, train: Features) -> int:
    """Bytes of a teacher's answers to all training texts."""
    config: Any = teacher.config
    assert train.lengths is not None
    layers = len(set(found.layers))
    asked = found.distillation
    return expected_bytes(
        train.lengths,
        labels=config.num_labels,
        hidden=(layers + 1, config.hidden_size) if asked.hidden else (0, 0),
        attention=(layers, config.num_attention_heads) if asked.attention else (0, 0),
    )


def load_corpus(settings: Settings) -> Corpus:
    """The data that settings name, from files, the hub or the demo package.

    Raises:
        ValueError: No source or an unusable one.
    """
    kind = kinds.of(settings)
    train, evaluation = kind.load()
    if settings.holdout:
        train, evaluation = kind.split(train, settings.holdout, settings.seed)
    return Corpus(kind, train, evaluation, _task_name(settings))


def load_evaluation(settings: Settings, label_names: tuple[str, ...]) -> Corpus:
    """The evaluation data alone, its labels as the model's.

    Raises:
        ValueError: No source or an unusable one, or a label that the model does not know.
    """
    kind = kinds.of(settings)
    kind.check_packages()
    if settings.holdout:  # what the run set aside
        found = kind.split(kind.load()[0], settings.holdout, settings.seed)[1].relabel(label_names)
    else:
        found = kind.load_evaluation(label_names)
    return Corpus(kind, found, found, _task_name(settings))


def _task_name(settings: Settings) -> str:
    if settings.task:
        return "BBC news" if settings.task == DEMO else settings.task
    source = settings.train or settings.eval
    return source.stem if source else ""


def optimizer_steps(features: int, epochs: float, settings: Settings) -> int:
    """Optimizer steps of ``epochs`` passes over ``features``, as the Trainer counts them."""
    batches = math.ceil(features / settings.batch_size)
    return math.ceil(epochs * max(math.ceil(batches / settings.accumulate), 1))


def locate_model(name: str, option: str = "model") -> tuple[str, str]:
    """What ``from_pretrained`` takes, and the name to print.

    Args:
        name: As the user gave it: of a run's folder its ``model/`` is meant.
        option: The option it was given with.

    Raises:
        ValueError: The demo's package is missing, or a path that is no model's folder.
    """
    if name == DEMO:
        return str(demo.demo_model_path()), "all-MiniLM-L6-v2"
    path = Path(name)
    if path.is_dir() and not (path / "config.json").is_file():
        inside = path / "model"
        if (inside / "config.json").is_file():
            return str(inside), str(inside)
        hint = ""
        if (path / "adapter_config.json").is_file():
            hint = ", but an adapter of peft: merge it into its model with sentei.merge_adapter"
        raise ValueError(f"--{option} {name}: the folder holds no config.json{hint}")
    if not path.exists() and (path.is_absolute() or name.startswith((".", "~"))):
        raise ValueError(f"--{option} {name}: no such folder")
    return name, name


def load_tokenizer(model: str, option: str = "model") -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        ValueError: It cannot be loaded.
    """
    tokenizer: PreTrainedTokenizerBase = _loaded(
        AutoTokenizer.from_pretrained, model, "tokenizer", option
    )
    return tokenizer


def load_processor(kind: Kind[Any], model: str, option: str = "model") -> Any:
    """What makes the model's input for a kind of task.

    Raises:
        ValueError: It cannot be loaded.
    """
    return _loaded(kind.load_processor, model, kind.processor_name, option)


def _loaded(load: Callable[[str], Any], model: str, what: str, option: str) -> Any:
    try:
        return load(model)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(_cannot_load(model, what, error, option)) from error


FRESH: Final = ("missing_keys", "mismatched_keys")
"""Of what from_pretrained tells, the weights that it drew."""


def load_model(model: str, corpus: Corpus, option: str = "model") -> tuple[PreTrainedModel, bool]:
    """The model with a head for the corpus; whether all its weights came from the checkpoint.

    Raises:
        ValueError: It cannot be loaded, or is no model for this kind of task.
    """
    kind = corpus.kind
    # On a CPU, SDPA with attention dropout falls back to a path that makes a training step half as
    # long again as plain attention does.
    attention = None if torch.cuda.is_available() else "eager"
    if is_shrunk(model):
        shrunk = _load_shrunk(model, corpus, option, attention)
        return shrunk, _same_classes(model, corpus, option)
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # a new head is expected, not worth a warning
    try:
        config = AutoConfig.from_pretrained(model, **kind.head(corpus.train))
        loaded, report = kind.model_class.from_pretrained(
            model,
            config=config,
            dtype=torch.float32,
            attn_implementation=attention,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(_cannot_load(model, "model", error, option)) from error
    finally:
        transformers_logging.set_verbosity(level)
    fresh = [key if isinstance(key, str) else key[0] for name in FRESH for key in report[name]]
    _check_body(fresh, loaded, f"--{option} {model}")
    return loaded, not fresh and _same_classes(model, corpus, option)


def _check_body(fresh: Sequence[str], model: PreTrainedModel, where: str) -> None:
    """Refuse a model of which more than a head, or a pooler for one, starts at random."""
    body = f"{model.base_model_prefix}."
    lost = [name for name in fresh if name.startswith(body) and ".pooler" not in name]
    if lost and body != ".":
        raise ValueError(
            f"{where}: {len(lost)} of its weights, {lost[0]} the first, are not in its files or "
            "have another shape there, and would start at random. The files are of another "
            "architecture than config.json says, name their weights otherwise, or are of a shrunk "
            "model, which sentei.shrink.save writes whole"
        )


def _same_classes(model: str, corpus: Corpus, option: str) -> bool:
    """Whether the classes that a model names are the data's: of other tasks a head may fit too."""
    found, names = corpus.train.label_names, saved_labels(model, option)
    return not found or names == placeholders(len(names)) or same_names(names, found)


def share_padding(model: PreTrainedModel, processor: Any) -> None:
    """Tell a model the token that its texts are padded with, where it knows none.

    A decoder with a head for classes looks for the last token before the padding.
    """
    pad = getattr(processor, "pad_token_id", None)
    if pad is not None and getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = pad


def is_shrunk(model: str) -> bool:
    """Whether only :func:`sentei.shrink.load` loads a model: its config cannot say its shapes."""
    return (Path(model) / MANIFEST).is_file()


def _load_shrunk(model: str, corpus: Corpus, option: str, attention: str | None) -> PreTrainedModel:
    """A shrunk model as it is: with its own head, which must be one for the corpus."""
    found = load(model, dtype=torch.float32, attn_implementation=attention)
    kind, head = corpus.kind, corpus.kind.head(corpus.train)
    fits = isinstance(found, kind.model_class._model_mapping.get(type(found.config), ()))
    if not fits:
        what = f"a {type(found).__name__}, which is no model for --kind {kind.name}"
    elif (labels := head.get("num_labels")) not in (None, found.config.num_labels):
        what = f"made for {found.config.num_labels} labels, and the data have {labels}"
    else:
        found.config.update(head)
        return found
    raise ValueError(
        f"--{option} {model}: it was shrunk as {what}; a head can only be exchanged before: "
        "fine-tune the model for this task, then shrink it"
    )


def saved_labels(model: str, option: str = "model") -> tuple[str, ...]:
    """The class names that a fine-tuned model's config carries, in its order.

    Raises:
        ValueError: The config cannot be loaded.
    """
    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(_cannot_load(model, "config", error, option)) from error
    return tuple(config.id2label[i] for i in range(config.num_labels))


def _cannot_load(model: str, what: str, error: Exception, option: str) -> str:
    reason = str(error).strip().partition("\n")[0]
    fix = (
        "the files in this folder are damaged or of another kind"
        if Path(model).is_dir()
        else "check the name; without a network only folders and models in the cache load"
    )
    return f"--{option} {model}: its {what} cannot be loaded ({reason}); {fix}"


def precision(settings: Settings) -> str:
    """The arithmetic to train with: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        ValueError: fp16 without an accelerator.
    """
    if settings.precision == "auto":
        if torch.cuda.is_available():
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return "bf16" if native else "fp16"
        return "bf16" if _cpu_has_bf16() else "fp32"
    if settings.precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("--precision fp16 needs a GPU: use auto, bf16 or fp32")
    return settings.precision


def _cpu_has_bf16() -> bool:
    """Whether bf16 matrix products are faster than fp32 ones here: an instruction for them."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def parameter_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, tied ones once."""
    return sum(parameter.nbytes for parameter in model.parameters())
