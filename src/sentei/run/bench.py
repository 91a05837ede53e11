"""A model's folder on every engine: inputs out of its data, speeds, and what each engine scores."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import torch
from transformers import PreTrainedModel

from sentei import shrink
from sentei._version import VERSION
from sentei.data.features import Features
from sentei.models.loading import is_a, load_named, locate_model, saved_labels, share_padding
from sentei.models.outputs import Inputs
from sentei.models.structures import divide, family_of
from sentei.records import EngineRecord, SpeedReport
from sentei.report.speed import words
from sentei.run.evaluate import metrics_of
from sentei.run.reference import measured_features
from sentei.run.settings import Settings
from sentei.runtime.bench import machine
from sentei.runtime.bench.as_model import AsModel
from sentei.runtime.bench.choice import Engine
from sentei.runtime.bench.contender import Contender, Model
from sentei.runtime.bench.measure import Tell, measure
from sentei.runtime.bench.opening import open_engines
from sentei.runtime.bench.workloads import (
    Texts,
    images,
    sequences,
    usual_lengths,
    workloads,
)
from sentei.tasks.corpus import Corpus, load_evaluation
from sentei.tensors import count_zeros

BASELINES: Final = ("onnxruntime fp32", "torch fp32", "openvino fp32")
"""What speeds are multiples of: the first of these that was timed, else the first engine."""

CALIBRATION: Final = 64
"""Sequences that static int8 is calibrated on."""


@dataclass(frozen=True)
class Plan:
    """What is to be timed.

    ``batches`` are sequences in a batch, ``lengths`` tokens of each, ``data`` or ``sorted``, or
    empty for the usual ones. Every engine has ``threads`` and runs each workload in each of
    ``rounds``. ``score`` says that each engine's metrics are measured too, where there are
    evaluation data; ``known`` are those of engines that have been, by label. Code that comes with
    the model is run if ``trust_remote_code``.
    """

    engines: tuple[Engine, ...]
    batches: tuple[int, ...] = (1, 8)
    lengths: tuple[str, ...] = ()
    threads: int = 1
    rounds: int = 15
    score: bool = True
    known: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Data:
    """Evaluation data of a model: its examples, what makes its input, and in which batches."""

    corpus: Corpus
    processor: Any
    features: Features
    batch_size: int

    @property
    def texts(self) -> Texts:
        """Inputs of the model."""
        collate = self.corpus.task.collator(self.processor)
        names = tuple(n for n in self.processor.model_input_names if n in self.features[0])
        return Texts(self.features, collate, names)


def bench(folder: str, plan: Plan, settings: Settings | None, tell: Tell) -> SpeedReport:
    """Time a model on several engines in turns, and compare what they give.

    Args:
        folder: Of the model, or of its run.
        plan: What is to be timed.
        settings: Which evaluation data; None draws inputs, and measures no metric.
        tell: Told what is going on.

    Raises:
        ValueError: The model or the data cannot be used, no engine can run it, or a workload is
            more than it takes.
    """
    where, name = locate_model(folder)
    _check_one_pass(settings)
    tell(f"Loading {name}")
    module = load(where, trust_remote_code=plan.trust_remote_code)
    data = evaluation_data(where, module, settings) if settings else None
    texts = data.texts if data else None
    sizes = workloads(module, texts, plan.batches, plan.lengths)
    with tempfile.TemporaryDirectory() as files:
        model = ready(module, texts, plan.threads, Path(files))
        contenders, absent = open_engines(plan.engines, model, tell)
        if not contenders:
            raise ValueError(f"--model {folder}: no engine runs it: {'; '.join(absent)}")
        speeds = measure(
            module, contenders, sizes, rounds=plan.rounds, threads=plan.threads, tell=tell
        )
        engines = [
            score(one, module, data, tell)
            if data and plan.score and str(one.engine) not in plan.known
            else _known(one.engine, plan)
            for one in contenders
        ]
    labels = [one.label for one in engines]
    sparsity, sparsity_all = sparsity_of(module)
    report = SpeedReport(
        sentei=VERSION,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        model=name,
        sparsity=sparsity,
        sparsity_all=sparsity_all,
        threads=plan.threads,
        rounds=plan.rounds,
        baseline=next((one for one in BASELINES if one in labels), labels[0]),
        metric=data.corpus.headline if data and any(one.metrics for one in engines) else None,
        workloads=tuple(one.record for one in sizes),
        engines=tuple(engines),
        speeds=speeds,
        absent=tuple(absent),
        machine=machine.facts(),
    )
    return report.model_copy(update={"words": words(report)})


def _check_one_pass(settings: Settings | None) -> None:
    if settings and not settings.task.one_pass:
        raise ValueError(
            f"--kind {settings.task.label}: sentei bench measures encoders, for classes, tags, "
            "answers and images; for others there are sentei evaluate and sentei shrink --measure"
        )


def _known(engine: Engine, plan: Plan) -> EngineRecord:
    metrics = {k: v for k, v in plan.known.get(str(engine), {}).items() if k != "loss"}
    return EngineRecord(engine=engine.name, precision=engine.precision, metrics=metrics)


def load(folder: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model as what its config says it is, in fp32.

    Raises:
        ValueError: It cannot be loaded.
    """
    model, _ = load_named(folder, "model", trust_remote_code=trust_remote_code)
    model.eval()
    return model


def evaluation_data(folder: str, model: PreTrainedModel, settings: Settings) -> Data:
    """The evaluation data that a model was made for.

    Raises:
        ValueError: They cannot be used, or the model has no head for them.
    """
    task = settings.task
    if not is_a(model, task.model_class):
        raise ValueError(
            f"--model {folder}: a {type(model).__name__} has no head for --kind {task.label}; "
            "give a model fine-tuned on it, such as the model/ folder of a run"
        )
    trust: Any = {"trust_remote_code": settings.trust_remote_code}
    corpus = load_evaluation(task, saved_labels(folder, **trust), settings.training.seed)
    processor = corpus.load_processor(folder, **trust)
    share_padding(model, processor)
    features = measured_features(settings, corpus, processor)
    task.check_model(model, features)
    return Data(corpus, processor, features, settings.training.batch_size)


def ready(module: PreTrainedModel, texts: Texts | None, threads: int, files: Path) -> Model:
    """What engines are made from.

    Args:
        module: The model.
        texts: Its evaluation data; None draws inputs.
        threads: Of every engine.
        files: A folder for files that are of no use afterwards.
    """
    sample, calibration = _samples(module, texts)
    return Model(module, _shrunk(module), sample, calibration, threads, files)


def _samples(module: PreTrainedModel, texts: Texts | None) -> tuple[Inputs, Sequence[Inputs]]:
    """A batch to try engines with, and batches of one that stand for what they will read."""
    if texts:
        ones = [texts.batch([i]) for i in texts.spread(CALIBRATION)]
        return texts.batch([0, 1]), ones
    if module.main_input_name == "pixel_values":
        return images(module, None, 2), [images(module, None, 1) for _ in range(CALIBRATION)]
    [length] = map(int, usual_lengths(module, None))
    ones = [dict(sequences(module, None, 1, length)) for _ in range(CALIBRATION)]
    return sequences(module, None, 2, length), ones


def _shrunk(module: PreTrainedModel) -> PreTrainedModel | None:
    """The model without idle heads and neurons; None where there are none, or nobody knows."""
    try:
        smaller, report = shrink.shrink(copy.deepcopy(module))
    except ValueError:
        return None
    return smaller.eval() if report.removed else None


def score(contender: Contender, module: PreTrainedModel, data: Data, tell: Tell) -> EngineRecord:
    """What an engine scores on the evaluation data."""
    engine = contender.engine
    tell(f"Measuring {data.corpus.headline} of {engine}")
    place = cast(PreTrainedModel, AsModel(contender, module, data.texts.names))
    try:
        metrics = metrics_of(place, data.processor, data.corpus, data.features, data.batch_size)
    except ValueError as error:  # such as an output that is not finite
        return EngineRecord(engine=engine.name, precision=engine.precision, note=str(error))
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return EngineRecord(engine=engine.name, precision=engine.precision, metrics=finite)


def sparsity_of(module: PreTrainedModel) -> tuple[float, float]:
    """Of the matrices of the blocks, or where nobody knows which those are of all; and of all."""
    parameters = dict(module.named_parameters())
    try:
        structures = [at.structure for at in divide(module, family_of(module))]
        names = {part.parameter for one in structures for part in one.weights}
    except ValueError:
        names = set(parameters)
    matrices = [parameters[name] for name in names if parameters[name].dim() == 2]
    return _zeros(matrices), _zeros([*parameters.values()])


def _zeros(tensors: Sequence[torch.Tensor]) -> float:
    return sum(map(count_zeros, tensors)) / max(sum(one.numel() for one in tensors), 1)
