"""Shards that Accelerate, the Trainer and transformers make (FSDP2), pruned as one process does.

Accelerate takes no notice of FSDP on a CPU: it asks what kind of devices there are. Told that they
are GPUs, it goes the way that it goes there.
"""

from __future__ import annotations

import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)
from transformers.distributed import DistributedConfig

import sentei
from distributed.sharding import Case, launch, whole
from helpers.zoo import LLAMA

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_accelerator_is_left")]

STEPS = 8
BATCH = 4
RECIPES = {
    "magnitude": sentei.magnitude(0.6, every=1),
    "platon": sentei.platon(0.6, every=1, window=2),
    "movement": sentei.movement(0.6, every=1),
}
BERT = BertConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    vocab_size=40,
    max_position_embeddings=16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
LAYER = "BertLayer"


def bert() -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(BERT).double().train()


def tokens() -> torch.Tensor:
    return torch.randint(5, 40, (STEPS * BATCH, 6), generator=torch.Generator().manual_seed(1))


def begin(mesh: DeviceMesh | None, *, gpus: bool) -> None:
    """As a launcher has begun it; ``gpus`` is what Accelerate believes."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    if mesh is None:
        return
    place = {"RANK": mesh.get_rank(), "LOCAL_RANK": mesh.get_rank()}
    place |= {"WORLD_SIZE": mesh.size(), "LOCAL_WORLD_SIZE": mesh.size()}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # not asked: the group is there
    PartialState(cpu=True)
    if gpus:
        believe_in_gpus()


def believe_in_gpus() -> None:
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def result(model: nn.Module, pruner: sentei.Pruner, report: sentei.PruningReport) -> dict[str, Any]:
    return {
        "weights": {name: whole(p.detach()) for name, p in model.named_parameters()},
        "pruned": [site.pruned for site in report.sites],
        "updates": [update.model_dump() for update in report.updates],
        "sharded": {type(p).__name__ for p in model.parameters()} == {"DTensor"},
    }


class Loop:
    """Accelerate's loop; every process sees the same batches."""

    def __init__(
        self,
        method: str,
        mesh: DeviceMesh | None,
        *,
        made_before: bool = False,
        attached_before: bool = False,
    ) -> None:
        begin(mesh, gpus=True)
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=[LAYER],
            reshard_after_forward=True,
            cpu_ram_efficient_loading=False,
        )
        self.accelerator = Accelerator(cpu=True, fsdp_plugin=plugin if mesh else None)
        model = bert()
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        if made_before or attached_before:
            self.pruner = sentei.Pruner(model, RECIPES[method], total_steps=STEPS)
        if attached_before:
            self.pruner.attach(optimizer)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        if not (made_before or attached_before):
            self.pruner = sentei.Pruner(self.model, RECIPES[method], total_steps=STEPS)
        if not attached_before:
            self.pruner.attach(self.optimizer)

    def train(self, start: int = 0, stop: int = STEPS) -> Loop:
        for ids in tokens().split(BATCH)[start:stop]:
            loss = self.model(input_ids=ids, labels=ids[:, 0] % 2).loss
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self

    def result(self) -> dict[str, Any]:
        return result(self.model, self.pruner, self.pruner.finish())


def loop(method: str, mesh: DeviceMesh | None, **options: Any) -> dict[str, Any]:
    return Loop(method, mesh, **options).train().result()


def loop_again(folder: Path, mesh: DeviceMesh) -> dict[str, Any]:
    """Saved on the way, and gone on with by others."""
    one = Loop("platon", mesh).train(0, 5)
    one.accelerator.save_state(str(folder))
    one.pruner.save(folder / "pruner.safetensors")
    other = Loop("platon", mesh)
    other.accelerator.load_state(str(folder))
    other.pruner.load(folder / "pruner.safetensors")
    return other.train(5).result()


def told(mesh: DeviceMesh) -> dict[str, str]:
    """What is said of what cannot be done."""
    said, one = {}, Loop("platon", mesh).train(0, 3)
    try:
        pickle.dumps(one.pruner.state_dict())
    except ValueError as error:
        said["pickled"] = str(error)
    try:
        Loop("magnitude", mesh, attached_before=True).train(0, 1)
    except ValueError as error:
        said["sharded after it was attached"] = str(error)
    return said


class InOrder(Trainer):
    """Reads its rows in their order, which two processes read as one does."""

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def trainer(model: nn.Module, folder: Path, mesh: DeviceMesh | None, **more: Any) -> Trainer:
    """Before its training; each process has its part of every batch."""
    begin(mesh, gpus=False)
    arguments = TrainingArguments(
        str(folder),
        use_cpu=True,
        max_steps=STEPS,
        per_device_train_batch_size=BATCH // (mesh.size() if mesh else 1),
        learning_rate=5e-3,
        save_steps=3,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        **more,
    )
    assert arguments.device.type == "cpu"  # asks what devices there are
    if "fsdp" in more:
        believe_in_gpus()
    rows = [{"input_ids": ids, "labels": ids} for ids in tokens()]
    callback = sentei.PruningCallback(RECIPES["platon"])
    return InOrder(model, arguments, train_dataset=rows, callbacks=[callback])


def trained(run: Trainer, *, resume: Path | None = None) -> dict[str, Any]:
    run.train(resume_from_checkpoint=resume and str(resume))
    callback = next(c for c in run.callback_handler.callbacks if hasattr(c, "report"))
    made = result(run.model, callback.pruner, callback.report)
    return made | {"logged": [line.get("sparsity") for line in run.state.log_history][:STEPS]}


def llama(source: Path, **more: Any) -> nn.Module:
    return LlamaForCausalLM.from_pretrained(source, dtype=torch.float64, **more)


def by_accelerate(source: Path, kind: str, folder: Path, mesh: DeviceMesh | None) -> Any:
    """The Trainer with ``fsdp``; and another that goes on from its first checkpoint."""
    if mesh is None:
        return trained(trainer(llama(source), folder, None))
    shards = {"version": 2, "state_dict_type": kind}
    run = trainer(llama(source), folder, mesh, fsdp=True, fsdp_config=dict(shards))
    made = trained(run)
    run.save_model(str(folder / "model"))
    again = trainer(llama(source), folder, mesh, fsdp=True, fsdp_config=dict(shards))
    return made | {"again": trained(again, resume=folder / "checkpoint-3")}


def by_transformers(source: Path, folder: Path, mesh: DeviceMesh) -> Any:
    """The Trainer with a model that is sharded as it is loaded."""
    model = llama(source, distributed_config=DistributedConfig(fsdp_size=mesh.size()))
    made = trained(trainer(model, folder, mesh, save_only_model=True))
    model.save_pretrained(folder / "model")
    return made


LOOPS: dict[str, Case] = {
    **{method: partial(loop, method) for method in RECIPES},
    "sharded after the pruner was made": partial(loop, "platon", made_before=True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**LLAMA)).double().save_pretrained(folder / "llama")
    return folder


@pytest.fixture(scope="module")
def results(folder):
    cases = LOOPS | {
        "gone on with": partial(loop_again, folder / "state"),
        "told": told,
        "loaded sharded": partial(by_transformers, folder / "llama", folder / "loaded"),
    }
    for kind in ("FULL_STATE_DICT", "SHARDED_STATE_DICT"):
        cases[kind] = partial(by_accelerate, folder / "llama", kind, folder / kind)
    (folder / "ranks").mkdir()
    return launch(2, cases, folder / "ranks")


def assert_same(made: dict, alone: dict, rounding: float = 1e-9) -> None:
    assert made["sharded"] and made["pruned"] == alone["pruned"]
    for name, weight in alone["weights"].items():
        assert torch.equal(made["weights"][name] == 0, weight == 0), name
        assert (made["weights"][name] - weight).abs().max() <= rounding, name
    assert [one["flips"] for one in made["updates"]] == [one["flips"] for one in alone["updates"]]


@pytest.mark.parametrize("case", LOOPS)
def test_accelerate(results, case):
    alone = LOOPS[case](None)
    for made in results:
        assert_same(made[case], alone)


def test_accelerates_checkpoints_go_on_to_the_same_bits(results):
    for made in results:
        assert_same(made["gone on with"], made["platon"], 0.0)


def test_what_cannot_be_is_told(results):
    for made in results:
        told = made["told"]
        assert "cannot be pickled" in told["pickled"] and "pruner.save(path)" in told["pickled"]
        assert "sharded (fully_shard) after the pruner" in told["sharded after it was attached"]


@pytest.fixture(scope="module")
def alone(folder):
    return by_accelerate(folder / "llama", "", folder / "alone", None)


@pytest.mark.parametrize("case", ["FULL_STATE_DICT", "SHARDED_STATE_DICT", "loaded sharded"])
def test_the_trainer(results, alone, case, folder):
    for made in results:
        assert_same(made[case], alone)
        assert made[case]["logged"] == alone["logged"]
    place = "loaded" if case == "loaded sharded" else case
    if case != "SHARDED_STATE_DICT":
        saved = load_file(folder / place / "model" / "model.safetensors")
        for name, weight in results[0][case]["weights"].items():
            assert name not in saved or torch.equal(saved[name], weight), name


@pytest.mark.parametrize("case", ["FULL_STATE_DICT", "SHARDED_STATE_DICT"])
def test_the_trainers_checkpoints_go_on_to_the_same_bits(results, case):
    for made in results:
        assert_same(made[case]["again"], made[case], 0.0)
