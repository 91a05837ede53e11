"""Checks what a folder claims, on the file itself and through what loads it."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedModel

from sentei import serialization
from sentei.models.folder import is_shrunk
from sentei.models.loading import load_pretrained
from sentei.records import PruningReport, Record
from sentei.tensors import count_zeros


class Check(Record):
    """One claim: what it says, whether it holds, and what the files have."""

    claim: str
    holds: bool
    evidence: str


def verify(
    folder: Path, claims: PruningReport | None, sparsity: float | None = None
) -> tuple[Check, ...]:
    """Check a run's folder, or a model's.

    Args:
        folder: A run's folder (with ``model/``) or a model's folder.
        claims: The report that makes the claims, if there is one.
        sparsity: Least sparsity to find, over the report's sites, or over all matrices where there
            is no report.

    Raises:
        ValueError: There is no model to check.
    """
    model = folder / "model" if (folder / "model").is_dir() else folder
    zeros, sizes, broken = _count(model)
    loaded, reloads = _reload(model, zeros)
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
    total, in_files = sum(zeros.values()), list(sizes)
    if loaded is not None:  # a file may hold weights under older names than the model's
        named = dict(loaded.named_parameters())
        zeros = {name: count_zeros(p) for name, p in named.items()} | zeros
        sizes = {name: p.numel() for name, p in named.items()} | sizes
    if claims is not None:
        checks += _claims(claims, zeros, sizes, total)
    if sparsity is not None:
        scope = [site.name for site in claims.sites] if claims else in_files
        share = sum(zeros[n] for n in scope if n in zeros) / sum(sizes.get(n, 0) for n in scope)
        over = "the scope" if claims else "all parameters"
        checks.append(
            Check(
                claim=f"at least {sparsity:.2%} of {over} is zero",
                holds=share >= sparsity - 1e-12,
                evidence=f"{share:.4%}",
            )
        )
    return (*checks, reloads)


def _count(model: Path) -> tuple[dict[str, int], dict[str, int], list[str]]:
    files = sorted(model.glob("*.safetensors"))
    files = [file for file in files if file.name.startswith("model")]
    if not files:
        raise ValueError(f"{model}: holds no model.safetensors to verify")
    zeros, sizes, broken = {}, {}, []
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():
                    tensor = tensors.get_tensor(name)
                    zeros[name], sizes[name] = count_zeros(tensor), tensor.numel()
                    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                        broken.append(name)
        except SafetensorError as error:
            raise ValueError(f"{file}: damaged, cannot be read ({error})") from error
    return zeros, sizes, broken


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
            evidence=f"{pruned:,} ({pruned / claims.prunable:.4%})",
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


def _reload(model: Path, zeros: dict[str, int]) -> tuple[PreTrainedModel | None, Check]:
    loader = "sentei.shrink.load" if is_shrunk(model) else "plain transformers"
    claim = f"{loader} loads it unchanged"
    try:
        [architecture] = AutoConfig.from_pretrained(model).architectures
        loaded, report = load_pretrained(model, getattr(transformers, architecture))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        return None, Check(claim=claim, holds=False, evidence=reason)
    problems = [f"{kind}: {keys}" for kind, keys in report.items() if keys]
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
