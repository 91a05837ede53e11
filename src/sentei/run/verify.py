"""Checks what a folder claims, on the file itself and through what loads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from sentei import serialization
from sentei.messages import listing
from sentei.models.contents import is_packed, weight_files
from sentei.models.folder import is_shrunk, transformer_folder
from sentei.models.loading import load_named
from sentei.pack import open_packed
from sentei.records import PruningReport, Record
from sentei.tensors import count_zeros
from sentei.untrusted import reading


class Check(Record):
    """One claim: what it says, whether it holds, and what the files have."""

    claim: str
    holds: bool
    evidence: str


def verify(
    folder: Path,
    claims: PruningReport | None,
    sparsity: float | None = None,
    *,
    trust_remote_code: bool = False,
) -> tuple[Check, ...]:
    """Check a run's folder, or a model's.

    Args:
        folder: A run's folder (with ``model/``) or a model's folder.
        claims: The report that makes the claims, if there is one.
        sparsity: Least sparsity to find, over the report's sites, or over all matrices where there
            is no report.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        ValueError: There is no model to check, or the report says what no model can be.
    """
    if sparsity is not None and not 0 <= sparsity < 1:
        raise ValueError(f"--sparsity {sparsity}: it must be in [0, 1), such as 0.8")
    model = transformer_folder(folder / "model" if (folder / "model").is_dir() else folder)
    zeros, sizes, broken, damaged = _count(model)
    loaded, reloads = _reload(model, zeros, trust_remote_code=trust_remote_code)
    if loaded is not None:
        for name, _ in loaded.named_buffers():  # no weights, though a file may hold them
            zeros.pop(name, None), sizes.pop(name, None)
    checks = [
        Check(
            claim="every weight is finite",
            holds=not broken,
            evidence=f"NaN or infinite: {broken[0]}"
            if broken
            else f"{sum(sizes.values()):,} weights",
        )
    ]
    if is_packed(model):
        checks.insert(0, _checksums(model, len(sizes), damaged))
    total, in_files = sum(zeros.values()), list(sizes)
    if loaded is not None:  # a file may hold weights under older names than the model's
        named = dict(loaded.named_parameters())
        zeros = {name: count_zeros(p) for name, p in named.items()} | zeros
        sizes = {name: p.numel() for name, p in named.items()} | sizes
    if claims is not None:
        with reading("report.json", "it is damaged", "it describes no model"):
            checks += _claims(claims, zeros, sizes, total)
    if sparsity is not None:
        scope = [site.name for site in claims.sites] if claims else in_files
        share = _share(*(sum(of.get(name, 0) for name in scope) for of in (zeros, sizes)))
        over = "the scope" if claims else "all parameters"
        checks.append(
            Check(
                claim=f"at least {sparsity:.2%} of {over} is zero",
                holds=share >= sparsity - 1e-12,
                evidence=f"{share:.4%}",
            )
        )
    return (*checks, reloads)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _count(model: Path) -> tuple[dict[str, int], dict[str, int], list[str], list[str]]:
    """What every tensor in the files holds that are loaded.

    Returns:
        Zeros and entries of each; the names of those that are not finite; and what is wrong with
        those of a packed model that cannot be read.
    """
    zeros, sizes = dict[str, int](), dict[str, int]()
    broken, damaged = list[str](), list[str]()
    for name, tensor in _tensors(model):
        if isinstance(tensor, ValueError):
            damaged.append(str(tensor))
            continue
        zeros[name], sizes[name] = count_zeros(tensor), tensor.numel()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            broken.append(name)
    return zeros, sizes, broken, damaged


def _tensors(model: Path) -> Iterator[tuple[str, Tensor | ValueError]]:
    files = [file for file in weight_files(model) if file.suffix == ".safetensors"]
    if not files:
        raise ValueError(f"{model}: holds no model.safetensors to verify")
    if is_packed(model):
        with open_packed(model) as packed:
            for name in packed.names:
                try:
                    yield name, packed.tensor(name)
                except ValueError as error:
                    yield name, error
        return
    for file in files:
        with reading(file, "it is damaged: get or write it again"):
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():
                    yield name, tensors.get_tensor(name)


def _checksums(model: Path, tensors: int, damaged: list[str]) -> Check:
    size = sum(file.stat().st_size for file in weight_files(model))
    return Check(
        claim="every tensor is as it was packed",
        holds=not damaged,
        evidence="; ".join(damaged[:3]) or f"{tensors} checksums, {size:,} bytes",
    )


def _claims(
    claims: PruningReport, zeros: dict[str, int], sizes: dict[str, int], total: int
) -> list[Check]:
    wrong = [
        f"{site.name}: claims {site.pruned:,} of {site.weights:,}, "
        f"holds {zeros.get(site.name, 0):,} of {sizes.get(site.name, 0):,}"
        for site in claims.sites
        if (site.pruned, site.weights) != (zeros.get(site.name), sizes.get(site.name))
    ]
    pruned = sum(zeros.get(site.name, 0) for site in claims.sites)
    return [
        Check(
            claim=f"{claims.pruned:,} of {claims.prunable:,} prunable weights are zero "
            f"({claims.sparsity:.4%})",
            holds=pruned == claims.pruned,
            evidence=f"{pruned:,} ({_share(pruned, claims.prunable):.4%})",
        ),
        Check(
            claim=f"zeros are where the report says, in each of {len(claims.sites)} matrices",
            holds=not wrong,
            evidence=wrong[0] if wrong else "as claimed",
        ),
        Check(
            claim=f"{claims.zeros:,} of all {claims.parameters:,} parameters are zero "
            f"({claims.sparsity_all:.4%})",
            holds=total == claims.zeros,
            evidence=f"{total:,}",
        ),
        Check(
            claim=f"the sparsity asked for, {claims.target:.4%}, was reached",
            holds=serialization.load(claims.recipe).budget.reached(claims),
            evidence=f"{claims.sparsity:.4%}",
        ),
    ]


def _reload(
    model: Path, zeros: dict[str, int], *, trust_remote_code: bool
) -> tuple[PreTrainedModel | None, Check]:
    loader = "sentei.shrink.load" if is_shrunk(model) else "plain transformers"
    before = ", with sentei imported," if is_packed(model) else ""
    claim = f"{loader}{before} loads it unchanged"
    try:
        loaded, report = load_named(model, dtype=None, trust_remote_code=trust_remote_code)
    except (ValueError, ModuleNotFoundError) as error:
        return None, Check(claim=claim, holds=False, evidence=str(error))
    problems = [f"{kind}: {listing(sorted(map(str, of)), 3)}" for kind, of in report.items() if of]
    counts = {name: count_zeros(p) for name, p in loaded.named_parameters()}
    moved = [name for name, count in counts.items() if count != zeros.get(name, count)]
    buffers = {name for name, _ in loaded.named_buffers()}
    written = sum(count for name, count in zeros.items() if name not in buffers)
    if not moved and sum(counts.values()) != written:  # under whatever names
        problems.append(f"{written:,} zeros in the file, {sum(counts.values()):,} in the model")
    if moved:
        problems.append(f"zeros changed in {moved[0]}")
    return loaded, Check(
        claim=claim,
        holds=not problems,
        evidence="; ".join(problems) or f"{len(counts)} tensors, the same zeros",
    )
