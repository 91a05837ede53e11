"""A model sharded by ``fully_shard`` is pruned as one process prunes it whole."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy
from torch.nn.parallel import DistributedDataParallel

import sentei
from distributed.sharding import (
    METHODS,
    STEPS,
    WIDTH,
    Case,
    Run,
    launch,
    parts,
    recipe_of,
    shard,
    train,
    whole,
)
from helpers.zoo import ZOO
from sentei.parts import Distillation
from sentei.pruning.sharded_cut import BINS
from sentei.testing import Network

ROUNDED = {"mgpp", "l0", "knowledge_aware", "obs", "auto", "whole copies stay"}
"""Where a sum over a matrix goes into weights or scores, that is made in parts here and in one
there: l0's push is measured in mean gradients, reconstruction multiplies matrices of fewer rows."""


def train_heads(method: str, mesh: DeviceMesh | None, *, teach: bool = False) -> dict[str, Any]:
    """Heads and neurons of a transformer, whose matrices are sharded block by block; with a teacher
    or without.
    """
    torch.manual_seed(0)
    model: nn.Module = ZOO["bert"].build().double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if mesh is not None:
        shard(model, model.bert.encoder.layer[0], mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    recipe = recipe_of(method, "pattern=head+neuron")
    pruner = sentei.Pruner(model, recipe, total_steps=STEPS)
    pruner.attach(optimizer)
    teacher = ZOO["bert"].build().double()
    if teach:
        sentei.Distiller(model, teacher, Distillation(hidden=1.0, attention=1.0)).attach()
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        ids = torch.randint(5, 40, (4, 6), generator=generator)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        model(**batch, labels=ids[:, 0] % 2).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    masks = {name: whole(mask) for name, mask in pruner.masks.items()}
    report = pruner.finish().model_dump(exclude={"recipe"})
    return {"masks": masks, "weights": {}, "sparsity": report["pruned"], "report": report}


CASES: dict[str, Case] = {
    **{name: partial(train, recipe_of(name)) for name in METHODS},
    "rows": partial(train, recipe_of("magnitude", "pattern=row")),
    "columns": partial(train, recipe_of("magnitude", "pattern=column")),
    "blocks": partial(train, recipe_of("movement", "pattern=2x2")),
    "largest of blocks": partial(
        train, recipe_of("sensitivity", "pattern={kind: block, rows: 2, columns: 2, reduce: max}")
    ),
    "1:2": partial(train, recipe_of("platon", "pattern=1:2", "schedule.sparsity=0.5")),
    "uneven": partial(train, recipe_of("magnitude"), width=7),
    "means in bf16": partial(train, recipe_of("platon"), state_dtype=torch.bfloat16),
    "sharded after the pruner was made": partial(train, recipe_of("platon"), late=True),
    "whole copies stay": partial(
        train, recipe_of("l0", "budget.settle=0.2"), reshard_after_forward=False
    ),
    "heads": partial(train_heads, "magnitude"),
    "heads of l0": partial(train_heads, "l0"),
    "heads with a teacher": partial(train_heads, "leap", teach=True),
}


FOUR = [*METHODS, "rows", "blocks", "uneven"]
"""Of them those that four processes do too."""


def reduced(policy: Mapping[str, Any], mesh: DeviceMesh) -> Any:
    return train(recipe_of("movement"), mesh, dtype=torch.float32, **policy)


def replicated(mesh: DeviceMesh) -> Any:
    """HSDP: shards over two of four, and two of each."""
    both = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    return train(recipe_of("leap"), both)


COUNTED = {
    "one ranking": ("budget=global",),
    "one a matrix": ("budget=uniform",),
    "one an output": ("budget=uniform_rows",),
    "rows of each matrix": ("pattern=row", "budget=uniform"),
}


def moved(mesh: DeviceMesh) -> Any:
    """For each of these how often processes spoke, what one of them gave away, in bytes, and how
    many decisions there were.
    """
    made, reduce = {}, dist.all_reduce
    for name, settings in COUNTED.items():
        run, sizes = Run(recipe_of("magnitude", *settings), mesh, dtype=torch.float32), []

        def counted(tensor: torch.Tensor, *args: Any, sizes: Any = sizes, **kwargs: Any) -> Any:
            sizes.append(tensor.nbytes)
            return reduce(tensor, *args, **kwargs)

        dist.all_reduce = counted
        pruner = run.train().pruner
        dist.all_reduce = reduce
        made[name] = (len(sizes), sum(sizes), len(pruner.updates))
    return made


def most_bytes(rankings: int, sites: int) -> int:
    """Of an update: a bracket that missed and four levels of counts, ties, and what came of it."""
    return rankings * (5 * (BINS + 3) * 8 + 16) + sites * 8


def apart(mesh: DeviceMesh) -> str:
    """Copies of a model that drift apart."""
    model = DistributedDataParallel(Network(6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = sentei.Pruner(model, recipe_of("magnitude"), total_steps=STEPS)
    pruner.attach(optimizer)
    for _ in range(STEPS):
        model(torch.ones(2, 8)).sum().backward()
        with torch.no_grad():
            model.module.blocks[0].weight.mul_(1 + mesh.get_rank() * torch.rand(6, 6))
        try:
            optimizer.step()
        except RuntimeError as error:
            return str(error)
    return "no error"


def saved(folder: Path, method: str, mesh: DeviceMesh, **options: Any) -> None:
    run = Run(recipe_of(method), mesh, **options).train(STEPS // 2)
    checkpoint.save(parts(run), checkpoint_id=folder)
    run.pruner.save(folder / "pruner.safetensors")


def refused(folder: Path, mesh: DeviceMesh) -> str:
    """What is said of a state that was kept in another precision."""
    try:
        loaded(folder, "platon", mesh)
    except ValueError as error:
        return str(error)
    return "no error"


def loaded(folder: Path, method: str, mesh: DeviceMesh, **options: Any) -> Any:
    run = Run(recipe_of(method), mesh, **options)
    state = parts(run)
    checkpoint.load(state, checkpoint_id=folder)
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.pruner.load_state_dict(state["pruner"])
    run.count = STEPS // 2
    return run.train(STEPS).result()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def results(folder):
    """Of four processes, and then of two, all cases."""
    bf16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    four = {name: CASES[name] for name in FOUR}
    four |= {
        "replicated": replicated,
        "saved": partial(saved, folder / "state", "movement"),
        "saved in bf16": partial(saved, folder / "half", "platon", state_dtype=torch.bfloat16),
    }
    two = {
        **CASES,
        "bf16": partial(reduced, {"mp_policy": bf16}),
        "offloaded": partial(reduced, {"offload_policy": CPUOffloadPolicy(pin_memory=False)}),
        "loaded": partial(loaded, folder / "state", "movement"),
        "loaded in bf16": partial(loaded, folder / "half", "platon", state_dtype=torch.bfloat16),
        "refused": partial(refused, folder / "half"),
        "moved": moved,
        "apart": apart,
    }
    made = {}
    for ranks, cases in ((4, four), (2, two)):
        (folder / str(ranks)).mkdir()
        made[ranks] = launch(ranks, cases, folder / str(ranks))
    return made


def assert_same(made: dict, alone: dict, rounding: float) -> None:
    for name, mask in alone["masks"].items():
        assert torch.equal(made["masks"][name], mask), name
    for name, weight in alone["weights"].items():
        assert (made["weights"][name] - weight).abs().max() <= rounding, name
    assert made["sparsity"] == alone["sparsity"]
    report = made["report"]
    for field, value in alone["report"].items():
        if field.endswith("_histogram"):  # edges may differ a little
            for part in ("kept", "pruned"):
                assert sum(report[field][part]) == sum(value[part]), (field, part)
        elif field == "updates":
            for one, other in zip(report[field], value, strict=True):
                assert one == pytest.approx(other, abs=1e-12)
        else:
            assert report[field] == value, field


alone = lru_cache(lambda case: CASES[case](None))


@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
@pytest.mark.parametrize(
    ("ranks", "case"), [*((2, case) for case in CASES), *((4, case) for case in FOUR)]
)
def test_sharded_is_as_whole(results, ranks, case):
    for made in results[ranks]:
        assert_same(made[case], alone(case), 1e-12 if case in ROUNDED else 0.0)


def test_with_shards_that_are_replicated(results):
    for made in results[4]:
        assert_same(made["replicated"], alone("leap"), 0.0)


@pytest.mark.parametrize("case", ["bf16", "offloaded"])
def test_under_policies_the_count_is_exact(results, case):
    for made in results[2]:
        assert made[case]["report"]["pruned"] == round(0.7 * 4 * WIDTH**2)


def test_what_four_processes_saved_two_go_on_with(results):
    for made in results[2]:
        assert_same(made["loaded"], alone("movement"), 0.0)
        assert_same(made["loaded in bf16"], alone("means in bf16"), 0.0)


def test_a_state_in_another_precision_is_refused(results):
    for made in results[2]:
        assert "its state is kept in bfloat16, and this pruner's in float32" in made["refused"]


def test_bytes_on_the_wire(results):
    for name, (_, bytes_, updates) in results[2][0]["moved"].items():
        rankings = 1 if name == "one ranking" else 4
        assert 0 < bytes_ <= updates * most_bytes(rankings, 4), name
    assert most_bytes(1, 72) < 60_000  # BERT-base, of 85 million weights in 72 matrices
    assert most_bytes(72, 72) < 1_000_000


def test_processes_speak_no_more_often_for_more_matrices(results):
    moved = results[2][0]["moved"]
    for name in ("one ranking", "one a matrix"):  # a bracket that missed, four levels, and two
        exchanges, _, updates = moved[name]
        assert updates < exchanges <= 7 * updates, name
    for name in ("one an output", "rows of each matrix"):
        exchanges, _, updates = moved[name]
        assert exchanges == updates, name


def test_copies_that_drift_apart_are_told(results):
    for made in results[2]:
        assert made["apart"].startswith("the masks of step 2 are not the same on all processes")


def test_a_file_of_four_processes_is_that_of_one(results, folder):
    run = Run(recipe_of("movement"), None).train(STEPS // 2)
    run.pruner.save(folder / "alone.safetensors")
    files = (folder / "alone.safetensors", folder / "state" / "pruner.safetensors")
    one, other = (load_file(file) for file in files)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-9, atol=1e-12)
    later = Run(recipe_of("movement"), None)
    later.pruner.load(files[1])
    assert later.pruner.step == STEPS // 2
