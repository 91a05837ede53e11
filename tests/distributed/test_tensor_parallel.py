"""A model that transformers splits by its own plan (``tp_plan``) is pruned as one process does.

In float64: where a layer sums over inputs, processes sum what each has, so that gradients differ in
their last bits, and weights with them. What they rank is far further apart than that.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.distributed import DistributedConfig

import sentei
from distributed.sharding import METHODS, STEPS, ended, launch, parts, recipe_of, whole
from helpers.zoo import LLAMA
from sentei.parts import Distillation
from sentei.testing import make_sparse_

BATCH = 4


def build(folder: Path) -> None:
    """Save a small Llama, and another one to learn from."""
    settings = LLAMA | {"num_key_value_heads": 4, "num_hidden_layers": 1}
    torch.manual_seed(0)
    for name in ("llama", "teacher"):
        model = LlamaForCausalLM(LlamaConfig(**settings)).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder / name)


def load(folder: Path, mesh: DeviceMesh | None, name: str = "llama") -> nn.Module:
    """It, split over the processes of a mesh, or whole; over four by FSDP2 too, and of eight four
    hold copies (HSDP).
    """
    options: dict[str, Any] = {}
    if mesh is not None:
        place = {"RANK": mesh.get_rank(), "LOCAL_RANK": mesh.get_rank(), "WORLD_SIZE": mesh.size()}
        os.environ |= {name: str(value) for name, value in place.items()}
        shards = min(mesh.size() // 2, 2)
        options["distributed_config"] = DistributedConfig(
            tp_size=2, fsdp_size=shards, dp_replicate_size=mesh.size() // 2 // shards
        )
    model = AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float64, **options)
    return model.train()


class Run:
    """A training; every process sees the same batches."""

    def __init__(
        self,
        folder: Path,
        recipe: sentei.Recipe,
        mesh: DeviceMesh | None,
        *,
        tied: bool = False,
        teach: Callable[[nn.Module, Path, DeviceMesh | None], object] | None = None,
    ) -> None:
        self.model = load(folder, mesh)
        if teach is not None:
            teach(self.model, folder, mesh)
        make_sparse_(self.model, recipe)
        if tied:  # few values, that do not change
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.copy_((4 * parameter).round() / 4)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0 if tied else 1e-3)
        self.pruner = sentei.Pruner(self.model, recipe, total_steps=STEPS, examples=STEPS * BATCH)
        self.pruner.attach(self.optimizer)
        self.count = 0

    def train(self, steps: int = STEPS) -> Run:
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(5, 40, (STEPS, BATCH, 6), generator=generator)
        for batch in ids[self.count : self.count + steps]:
            self.model(input_ids=batch, labels=batch).loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.count += 1
        return self

    def result(self) -> dict[str, Any]:
        return ended(self.model, self.pruner)


def train(method: str, *settings: str, **options: Any) -> Callable[[Path, DeviceMesh | None], Any]:
    recipe = recipe_of(method, *settings)
    return lambda folder, mesh: Run(folder, recipe, mesh, **options).train().result()


def teacher(
    *, split: bool, **terms: Any
) -> Callable[[nn.Module, Path, DeviceMesh | None], sentei.Distiller]:
    """Attaches another model as a teacher, split as the student is, or whole in every process."""

    def attach(student: nn.Module, folder: Path, mesh: DeviceMesh | None) -> sentei.Distiller:
        other = load(folder, mesh if split else None, "teacher")
        return sentei.Distiller(student, other, Distillation(**terms)).attach()

    return attach


def at_once(folder: Path, mesh: DeviceMesh | None) -> Any:
    model = load(folder, mesh)
    report = sentei.one_shot(model, recipe_of("magnitude"))
    weights = {name: whole(p.detach()) for name, p in model.named_parameters()}
    masks = {site.name: weights[site.name] != 0 for site in report.sites}
    fields = report.model_dump(exclude={"recipe"})
    return {"masks": masks, "weights": weights, "sparsity": report.sparsity, "report": fields}


def written(folder: Path, mesh: DeviceMesh) -> Any:
    """As transformers saves it."""
    run = Run(folder, recipe_of("magnitude"), mesh).train()
    made = run.result()
    run.model.save_pretrained(folder / "sparse")
    return made


def saved(folder: Path, mesh: DeviceMesh) -> None:
    run = Run(folder, HALFWAY, mesh).train(STEPS // 2)
    checkpoint.save(parts(run), checkpoint_id=folder / "dcp")


def loaded(folder: Path, mesh: DeviceMesh | None) -> Any:
    run = Run(folder, HALFWAY, mesh)
    state = parts(run)
    checkpoint.load(state, checkpoint_id=folder / "dcp")
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.pruner.load_state_dict(state["pruner"])
    run.count = STEPS // 2
    return run.train(STEPS).result()


def refused(method: str, *settings: str) -> Callable[[Path, DeviceMesh], str]:
    def attach(folder: Path, mesh: DeviceMesh) -> str:
        try:
            Run(folder, recipe_of(method, *settings), mesh)
        except ValueError as error:
            return str(error)
        return "no error"

    return attach


HALFWAY = recipe_of("movement")
SAID = {"logits": 1.0, "hidden": 1.0}
SEEN = SAID | {"attention": 1.0, "relative": True}
NO_SPLIT_INPUTS = "scope.exclude=['*.o_proj.*', '*.down_proj.*']"
TABLE = "scope.include=['*.embed_tokens.*', '*.mlp.*.weight']"
"""With a table of embeddings, whose gradient every process has whole."""

CASES = {
    "magnitude": train("magnitude"),
    "platon": train("platon"),
    "movement": train("movement"),
    "l0": train("l0"),
    "wanda": train("wanda", NO_SPLIT_INPUTS),
    "1:2": train("platon", "pattern=1:2", "schedule.sparsity=0.5"),
    "heads": train("magnitude", "pattern=head+neuron"),
    "ties": train("magnitude", "budget=uniform", tied=True),
    "a table": train("sensitivity", TABLE),
    "a split teacher": train("leap", teach=teacher(split=True, **SAID)),
    "a whole teacher": train("leap", teach=teacher(split=False, **SAID)),
    "a split teacher's attention": train("leap", teach=teacher(split=True, **SEEN)),
    "a whole teacher's attention": train("leap", teach=teacher(split=False, **SEEN)),
}
INPUTS = {"auto", "knowledge_aware", "mgpp", "obs"}
"""Methods that reconstruct."""
MORE = {
    **{name: train(name) for name in METHODS if name not in CASES.keys() | INPUTS},
    **{name: train(name, NO_SPLIT_INPUTS) for name in sorted(INPUTS)},
    "auto, of everything": train("auto", "reconstruction=null"),
    "rows": train("magnitude", "pattern=row"),
    "columns": train("movement", "pattern=column"),
    "blocks": train("movement", "pattern=4x4"),
    "heads of leap": train("leap", "pattern=head+neuron"),
    "ties of everything": train("magnitude", tied=True),
    "at once": at_once,
}
BOTH = ("platon", "movement", "heads", "ties", "a table", "a split teacher's attention")
"""Done with FSDP2 and HSDP too, on a mesh of two dimensions or three."""

REFUSED = {
    "reconstruction refused": (
        refused("auto"),
        "solves for whole outputs. Set reconstruction to null",
    ),
    "wanda refused": (
        refused("wanda"),
        "score wanda looks at all inputs of a layer. Use another score",
    ),
    "uniform_rows refused": (refused("magnitude", "budget=uniform_rows"), "Use budget: uniform"),
    "4:8 refused": (
        refused("magnitude", "pattern=4:8", "schedule.sparsity=0.5"),
        "layers.0.mlp.down_proj.weight is shared out by its inputs in parts that 8 does not divide",
    ),
}


def launched(ranks: int, cases: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    place = Path(tempfile.mkdtemp(dir=folder))
    return launch(ranks, {name: partial(case, folder) for name, case in cases.items()}, place)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def results(folder):
    others = {"written": written, "saved": saved, "loaded": loaded}
    told = {name: case for name, (case, _) in REFUSED.items()}
    return launched(2, CASES | others | told, folder)


@pytest.fixture(scope="module")
def alone(folder):
    return cache(lambda name: (CASES | MORE)[name](folder, None))


def assert_same(made: dict[str, Any], alone: dict[str, Any]) -> None:
    for name, mask in alone["masks"].items():
        assert torch.equal(made["masks"][name], mask), name
    for name, weight in alone["weights"].items():
        assert (made["weights"][name] - weight).abs().max() <= 1e-12, name
    assert made["sparsity"] == alone["sparsity"]
    for field in ("pruned", "zeros", "sites", "units"):
        assert made["report"][field] == alone["report"][field], field


quiet = pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")


@quiet
@pytest.mark.parametrize("case", CASES)
def test_split_is_as_whole(results, alone, case):
    for made in results:
        assert_same(made[case], alone(case))


@quiet
@pytest.mark.long
def test_with_every_method(folder, alone):
    for made in launched(2, MORE, folder):
        for case in MORE:
            assert_same(made[case], alone(case))


@quiet
@pytest.mark.long
@pytest.mark.parametrize("ranks", [4, 8])
def test_with_fsdp(folder, alone, results, ranks):
    """Columns of some rows, on a mesh of two by two (by two); and it goes on where two processes
    stopped.
    """
    cases = {name: CASES[name] for name in BOTH}
    for made in launched(ranks, {**cases, "loaded": loaded}, folder):
        for case in BOTH:
            assert_same(made[case], alone(case))
        assert_same(made["loaded"], alone("movement"))


@quiet
def test_what_two_processes_saved_goes_on(results, alone, folder):
    for made in results:
        for name, weight in made["movement"]["weights"].items():  # to the same bits
            assert torch.equal(made["loaded"]["weights"][name], weight), name
        assert_same(made["loaded"], alone("movement"))
    assert_same(loaded(folder, None), alone("movement"))


def test_what_is_saved_is_sparse(results, folder):
    model = load(folder, None, "sparse")
    for name, weight in results[0]["written"]["weights"].items():
        assert torch.equal(model.get_parameter(name), weight), name


@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_all_inputs_is_refused(results, case):
    for made in results:
        assert REFUSED[case][1] in made[case]
