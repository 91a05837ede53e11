"""From settings to everything a run needs; every error that can be known before training."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from sentei.distill import Match, match
from sentei.distill.cache import expected_bytes
from sentei.hf import data, demo, metrics, tasks
from sentei.hf.settings import DEMO, Settings
from sentei.hf.tokens import Tokens, tokenise
from sentei.parts.distillation import Distillation
from sentei.parts.scope import Selection
from sentei.recipe import Recipe


@dataclass(frozen=True)
class Corpus:
    """Training and evaluation examples, and how predictions on them are measured."""

    train: data.Examples
    evaluation: data.Examples
    task: str
    problem: tasks.Problem
    metrics: tuple[str, ...]


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
    its metrics before pruning mean something. ``folder`` is what ``from_pretrained`` takes.
    """

    settings: Settings
    recipe: Recipe
    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    train: Tokens
    evaluation: Tokens
    model: PreTrainedModel
    model_name: str
    folder: str
    teacher: Teacher | None
    trained_head: bool
    selection: Selection
    total_steps: int
    dense_steps: int


def prepare(settings: Settings) -> Prepared:
    """Load and check everything.

    Raises:
        ValueError: Anything that would make the run fail later; names the place and the fix.
    """
    recipe = settings.load_recipe()
    for module in ("sklearn", "scipy"):
        if importlib.util.find_spec(module) is None:
            raise ValueError(f"metrics need {module}: pip install 'sentei[metrics]'")
    chosen = choose_teacher(settings, recipe)
    folder, name = locate_model(settings.model)
    corpus, order = _in_order_of(load_corpus(settings), folder, chosen)
    total = optimizer_steps(len(corpus.train), settings.epochs, settings)
    recipe = recipe.with_examples(len(corpus.train))
    recipe.check(total)
    tokenizer = load_tokenizer(folder)
    length = token_limit(settings, tokenizer)
    train = tokenise(corpus.train, tokenizer, length)
    evaluation = tokenise(corpus.evaluation, tokenizer, length)
    set_seed(settings.seed)
    model, trained_head = load_model(folder, corpus)
    precision(settings)
    teacher = None
    if chosen is not None and recipe.distill is not None:
        if chosen == "self" and not trained_head:
            raise ValueError(
                f"the recipe learns from a teacher, and there is none: --model {settings.model} "
                "has no head trained for this task. Fine-tune it first with --dense-epochs 3, or "
                "name a fine-tuned model with --teacher"
            )
        teacher = _teacher(chosen, settings, recipe.distill, corpus, model, tokenizer, train)
        teacher = replace(teacher, notes=(*order, *teacher.notes))
    return Prepared(
        settings=settings,
        recipe=recipe,
        corpus=corpus,
        tokenizer=tokenizer,
        train=train,
        evaluation=evaluation,
        model=model,
        model_name=name,
        folder=folder,
        teacher=teacher,
        trained_head=trained_head,
        selection=recipe.scope.resolve(model),
        total_steps=total,
        dense_steps=optimizer_steps(len(corpus.train), settings.dense_epochs, settings),
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
    if names == tuple(f"LABEL_{i}" for i in range(len(names))) or names == found:
        if not given or names == found or len(names) != len(found):
            return corpus, ()
        return corpus, (
            f"{teacher} does not name its classes: taken to be {', '.join(found)}, in this order",
        )
    if not given and set(names) != set(found):
        return corpus, ()
    both = corpus.train.relabel(names), corpus.evaluation.relabel(names)
    return replace(corpus, train=both[0], evaluation=both[1]), ()


def _teacher(
    name: str,
    settings: Settings,
    asked: Distillation,
    corpus: Corpus,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Tokens,
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
        if load_tokenizer(folder, "teacher").get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"--teacher {name}: it reads other tokens than --model {settings.model}, and both "
                "are given the same ones; choose a teacher with the model's tokenizer"
            )
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


def cache_bytes(found: Match, teacher: PreTrainedModel, train: Tokens) -> int:
    """Bytes of a teacher's answers to all training texts."""
    config: Any = teacher.config
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
    layout = settings.layout()
    if settings.task == DEMO:
        train, evaluation = demo.load_demo(seed=0)
    elif settings.train:
        train, evaluation = data.load_files(
            settings.train, settings.eval, layout, seed=settings.seed
        )
    elif settings.task:
        train, evaluation = data.load_hub(tasks.find(settings.task))
    else:
        raise ValueError("no data: name a task with --task, or a file with --train")
    if settings.holdout:
        train, evaluation = data.split(train, settings.holdout, settings.seed)
    return Corpus(train, evaluation, _task_name(settings), layout.problem, _metrics(settings))


def load_evaluation(settings: Settings, label_names: tuple[str, ...] | None) -> Corpus:
    """The evaluation data alone, its labels as the model's.

    Raises:
        ValueError: No source or an unusable one, or a label that the model does not know.
    """
    layout = settings.layout()
    if settings.eval:
        found = data.load_file(settings.eval, layout, label_names=label_names)
    else:
        found = load_corpus(settings).evaluation
        if label_names and found.label_names:
            found = found.relabel(label_names)
    return Corpus(found, found, _task_name(settings), layout.problem, _metrics(settings))


def _task_name(settings: Settings) -> str:
    if settings.task:
        return "BBC news" if settings.task == DEMO else settings.task
    source = settings.train or settings.eval
    return source.stem if source else ""


def _metrics(settings: Settings) -> tuple[str, ...]:
    task = tasks.find(settings.task) if settings.task and settings.task != DEMO else None
    problem = settings.layout().problem
    names = task.metrics if task else tasks.DEFAULT_METRICS[problem]
    if settings.metric is None:
        return names
    if settings.metric not in metrics.METRICS:
        known = ", ".join(metrics.METRICS)
        raise ValueError(
            f"--metric {settings.metric}{tasks.did_you_mean(settings.metric, metrics.METRICS)}: "
            f"choose from {known}"
        )
    return (settings.metric, *(name for name in names if name != settings.metric))


def optimizer_steps(examples: int, epochs: float, settings: Settings) -> int:
    """Optimizer steps of ``epochs`` passes, as the Trainer counts them."""
    batches = math.ceil(examples / settings.batch_size)
    return math.ceil(epochs * max(math.ceil(batches / settings.accumulate), 1))


def locate_model(name: str, option: str = "model") -> tuple[str, str]:
    """What ``from_pretrained`` takes, and the name to print.

    Args:
        name: As the user gave it.
        option: The option it was given with.

    Raises:
        ValueError: The demo's package is missing, or a path that is no model's folder.
    """
    if name == DEMO:
        return str(demo.demo_model_path()), "all-MiniLM-L6-v2"
    path = Path(name)
    if path.is_dir() and not (path / "config.json").is_file():
        inside = path / "model"
        hint = f"; did you mean {inside}?" if (inside / "config.json").is_file() else ""
        raise ValueError(f"--{option} {name}: the folder holds no config.json{hint}")
    if not path.exists() and (path.is_absolute() or name.startswith((".", "~"))):
        raise ValueError(f"--{option} {name}: no such folder")
    return name, name


def load_tokenizer(model: str, option: str = "model") -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        ValueError: It cannot be loaded.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(_cannot_load(model, "tokenizer", error, option)) from error
    return tokenizer


def token_limit(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens kept of a text or pair."""
    return settings.max_length or min(128, tokenizer.model_max_length)


def load_model(model: str, corpus: Corpus, option: str = "model") -> tuple[PreTrainedModel, bool]:
    """The model with a head for the corpus; whether all its weights came from the checkpoint.

    Raises:
        ValueError: It cannot be loaded, or is no model for sequence classification.
    """
    labels = corpus.train.label_names
    head: dict[str, object] = {"num_labels": 1, "problem_type": "regression"}
    if labels:
        head = {
            "num_labels": len(labels),
            "problem_type": "single_label_classification",
            "id2label": dict(enumerate(labels)),
            "label2id": {label: i for i, label in enumerate(labels)},
        }
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # a new head is expected, not worth a warning
    try:
        config = AutoConfig.from_pretrained(model, **head)
        loaded, report = AutoModelForSequenceClassification.from_pretrained(
            model,
            config=config,
            dtype=torch.float32,
            # On a CPU, SDPA with attention dropout falls back to a path that makes a training step
            # half as long again as plain attention does.
            attn_implementation=None if torch.cuda.is_available() else "eager",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(_cannot_load(model, "model", error, option)) from error
    finally:
        transformers_logging.set_verbosity(level)
    fresh = [*report["missing_keys"], *report["mismatched_keys"]]
    return loaded, not fresh


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
            return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
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
