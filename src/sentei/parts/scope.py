"""Which weights are pruned: patterns of parameter names, or what the model's family says.

Without patterns the scope is the weight matrices of the repeated encoder blocks: attention
projections and feed-forward layers. Embeddings, layer norms, the pooler and the classifier are
never in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from sentei import families
from sentei.families import Family, Structure
from sentei.messages import nearest
from sentei.modules import WRAPPERS, plain_name
from sentei.parts.part import Part
from sentei.parts.site import Site
from sentei.sharded import is_sharded, local, why_unlike


@dataclass(frozen=True)
class Skipped:
    """A parameter that is not pruned, and why."""

    name: str
    shape: tuple[int, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class Selection:
    """What a scope chose in one model.

    Sites and skipped parameters are in model order; ``rule`` is a sentence saying what chose them,
    ``note`` what users should know about this family (or empty). A tied parameter has a line in
    ``skipped`` for each further name, so count with :attr:`parameters`.
    """

    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]
    rule: str
    note: str
    parameters: int
    """Number of all weights of the model, tied ones counted once."""

    @property
    def prunable(self) -> int:
        """Number of weights in scope."""
        return sum(site.parameter.numel() for site in self.sites)

    def without(self, places: Collection[int], reason: str) -> Selection:
        """The same selection with some sites skipped, for a reason."""
        left = tuple(site for place, site in enumerate(self.sites) if place not in places)
        out = tuple(
            Skipped(site.name, tuple(site.parameter.shape), reason)
            for place, site in enumerate(self.sites)
            if place in places
        )
        return replace(self, sites=left, skipped=(*self.skipped, *out))


class Scope(Part):
    """The prunable weights of a model, chosen by name."""

    include: tuple[str, ...] = ()
    """Glob patterns of parameter names (``*.attention.*.weight``) to prune, biases and layer norms
    too if they match. Empty means automatic: the weight matrices of the encoder blocks."""

    exclude: tuple[str, ...] = ()
    """Glob patterns of parameter names to leave out of whatever is included."""

    biases: bool = False
    """Whether the ``.bias`` beside every chosen ``.weight`` is pruned too, as in PLATON's code."""

    def resolve(self, model: nn.Module) -> Selection:
        """Choose the sites of a model.

        Args:
            model: Any module, wrapped by DDP or ``torch.compile`` or not. Without ``include``, a
                ``config.model_type`` selects the family preset; models of no known family are
                pruned in every ``nn.Linear`` weight inside an ``nn.ModuleList``.

        Returns:
            The sites, and every other parameter with the reason why it is not one.

        Raises:
            ValueError: The scope or one of its patterns matches nothing; the model lacks weights
                that its family has; or a chosen parameter cannot be pruned because it is tied to
                another one in scope, frozen, sharded, on the meta device, empty, 0-d, not
                floating-point or not contiguous.
        """
        _check_whole(model, ())
        tree = _Tree(model)
        model_type = _model_type(model)
        family = families.find(model_type) if model_type else None

        if not tree.names:
            raise ValueError("scope matched no weight: the model has no parameters")
        if not self.include:
            _check_no_adapter(model, tree.names)
        self._check_patterns(tree)
        chosen, rule = self._choose(tree, model_type, family)
        included = [entry for entry in tree.names.values() if entry.name in chosen]
        entries = [entry for entry in included if not _first_match(entry.name, self.exclude)]
        if not entries:
            raise ValueError(
                f"scope.exclude={self.exclude!r} leaves nothing to prune. Exclude fewer of "
                f"{_listed([entry.name for entry in included])}."
            )
        _check_no_adapter(model, [entry.name for entry in entries])
        _check_whole(model, entries)
        _check_prunable(entries)
        sites = tuple(
            Site(
                entry.name,
                entry.parameter,
                *block_and_role(entry.name, family, tree.lists),
                transposed=_is_transposed(entry, family),
            )
            for entry in entries
        )
        return Selection(
            sites=sites,
            skipped=tuple(self._skipped(tree, family, sites)),
            rule=rule,
            note=family.note if family else "",
            parameters=sum(parameter.numel() for parameter in model.parameters()),
        )

    def _choose(
        self, tree: _Tree, model_type: str | None, family: Family | None
    ) -> tuple[set[str], str]:
        """The names of what is included, and what chose them."""
        if self.include:
            rule = "include patterns " + ", ".join(map(repr, self.include))
            chosen = {name for name in tree.names if _first_match(name, self.include)}
        elif family:
            rule = f"family preset {family.name}"
            chosen = _preset(tree, family)
        else:
            known = f"no preset for model type {model_type}" if model_type else "no model type"
            rule = f"{known}: every nn.Linear weight inside repeated blocks (nn.ModuleList)"
            chosen = set(tree.linear_weights)
            if not chosen:
                raise ValueError(
                    f"scope matched no weight: {known}, and no nn.Linear inside an nn.ModuleList. "
                    f"Name the weights in scope.include. {tree.first_candidates}"
                )
        if self.biases:
            rule += ", and their biases"
            beside = {f"{name.removesuffix('.weight')}.bias" for name in chosen}
            chosen |= beside & tree.names.keys()
        return chosen, rule

    def _check_patterns(self, tree: _Tree) -> None:
        for field, patterns, what in (
            ("include", self.include, "weight"),
            ("exclude", self.exclude, "parameter"),
        ):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in tree.names):
                    which = f": {pattern!r}" if len(patterns) > 1 else ""
                    raise ValueError(
                        f"scope.{field}={patterns!r}{which} matched no {what}. "
                        f"{tree.first_candidates}{_did_you_mean(pattern, tree.names)}"
                    )

    def _skipped(
        self, tree: _Tree, family: Family | None, sites: Sequence[Site]
    ) -> Iterator[Skipped]:
        by_tensor = {id(site.parameter): site.name for site in sites}
        names = set(by_tensor.values())
        for entry in tree.names.values():
            if entry.name in names:
                continue
            if twin := by_tensor.get(id(entry.parameter)):
                reason = f"the same tensor as {twin}, which is pruned"
            elif pattern := _first_match(entry.name, self.exclude):
                reason = f"excluded by {pattern!r}"
            else:
                reason = self._reason(entry, family, tree)
            yield Skipped(entry.name, tuple(entry.parameter.shape), reason)

    def _reason(self, entry: _Entry, family: Family | None, tree: _Tree) -> str:
        if self.include:
            return "matched by no include pattern"
        if "Norm" in type(entry.owner).__name__:
            return "layer norm"
        if families.names_embedding(entry.name) or isinstance(entry.owner, nn.Embedding):
            return "embedding"
        if family and family.locate(entry.module) is None:
            return "outside the encoder blocks (pooler, head)"
        if not family and _number_in_list(entry.name, tree.lists) is None:
            return "outside the repeated blocks"
        if entry.leaf == "bias" or entry.leaf.endswith("_bias"):
            return "bias"
        return f"no role in family {family.name}" if family else "not the weight of an nn.Linear"


def block_and_role(
    name: str, family: Family | None, lists: Collection[str] = ()
) -> tuple[int | None, str]:
    """Find the number of a parameter's block and its role, as :class:`Site` has them.

    Args:
        name: Plain name of the parameter.
        family: The family of its model, None if unknown.
        lists: Plain names of the model's ``nn.ModuleList``s, which number what no family does.
    """
    module, _, leaf = name.rpartition(".")
    place = family.locate(module) if family else None
    layer = place.layer if place else _number_in_list(name, lists)
    role = (place and place.role) or module.rpartition(".")[2]
    return layer, role if role and leaf == "weight" else f"{role}.{leaf}".lstrip(".")


def _is_transposed(entry: _Entry, family: Family | None) -> bool:
    """Whether a matrix is stored (in, out): by its family, or as Transformers' Conv1D's are."""
    if family and family.transposed and family.locate(entry.module):
        return True
    return type(entry.owner).__name__ == "Conv1D"


@dataclass(frozen=True, eq=False)
class _Entry:
    """A parameter under one of its names, and the module that owns it."""

    name: str
    owner: nn.Module
    parameter: nn.Parameter

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]


class _Tree:
    """A model's parameters by plain name, tied ones under each of their names, in model order."""

    def __init__(self, model: nn.Module) -> None:
        self.names: dict[str, _Entry] = {}
        self.lists: set[str] = set()
        for prefix, owner in model.named_modules(remove_duplicate=False):
            if isinstance(owner, nn.ModuleList):
                self.lists.add(plain_name(prefix))
            for leaf, parameter in owner.named_parameters(recurse=False, remove_duplicate=False):
                name = plain_name(f"{prefix}.{leaf}".lstrip("."))
                if name in self.names:
                    raise ValueError(
                        f"scope: two parameters are called {name} once the wrappers' names "
                        f"({', '.join(sorted(WRAPPERS))}) are dropped. Rename that submodule."
                    )
                self.names[name] = _Entry(name, owner, parameter)

    @property
    def linear_weights(self) -> list[str]:
        """The ``nn.Linear`` weights inside repeated blocks."""
        return [
            entry.name
            for entry in self.names.values()
            if isinstance(entry.owner, nn.Linear)
            and entry.leaf == "weight"
            and _number_in_list(entry.name, self.lists) is not None
        ]

    @property
    def candidates(self) -> list[str]:
        """What a user most likely wants to name: the matrices inside blocks, else anything."""
        return self.linear_weights or [*self.names]

    @property
    def first_candidates(self) -> str:
        return f"First candidates: {_listed(self.candidates)}."


def coupled_structures(model: nn.Module) -> tuple[Structure, ...]:
    """The heads and neurons of a model, as its family describes them.

    Raises:
        ValueError: The model is of no known family, or the family describes none.
    """
    config = _config(model)
    family = families.find(config.model_type) if config is not None else None
    if config is None or family is None:
        known = f"model type {config.model_type}" if config is not None else "a model without one"
        raise ValueError(
            f"heads and neurons are known by model family, and {known} is of none: prune rows, "
            "columns or blocks, or describe the family"
        )
    shapes = {plain_name(name): tuple(p.shape) for name, p in model.named_parameters()}
    return families.structures(family, config.to_dict(), shapes)


def _model_type(model: nn.Module) -> str | None:
    config = _config(model)
    return config.model_type if config is not None else None


def _config(model: nn.Module) -> Any:
    # DDP does not forward attributes, so the config is looked for below every wrapper.
    for name, module in model.named_modules():
        if plain_name(name):
            continue
        config = getattr(module, "config", None)
        model_type = getattr(config, "model_type", None)
        if isinstance(model_type, str) and model_type:
            return config
    return None


def _preset(tree: _Tree, family: Family) -> set[str]:
    blocks: dict[str, set[str]] = {}
    chosen: set[str] = set()
    for entry in tree.names.values():
        if place := family.locate(entry.module):
            roles = blocks.setdefault(place.block, set())
            if place.role and entry.leaf == "weight":
                roles.add(place.role)
                chosen.add(entry.name)
    missing = [
        f"{block}.{module}.weight"
        for block, roles in blocks.items()
        for role, module in family.roles.items()
        if role not in roles
    ]
    if missing or not blocks:
        reason = f"it has no {_listed(missing)}" if blocks else f"it has no {family.block}"
        raise ValueError(
            f"scope: the family preset {family.name} does not fit this model: {reason}. "
            f"Name the weights in scope.include. {tree.first_candidates}"
        )
    return chosen


def _check_no_adapter(model: nn.Module, names: Iterable[str]) -> None:
    """Refuse weights that lie under an adapter of peft, which calls them ``base_layer``."""
    under = next((name for name in names if "base_layer" in name.split(".")), None)
    if under and any(type(part).__module__.startswith("peft.") for part in model.modules()):
        raise ValueError(
            f"scope: {under} lies under an adapter of peft: it is frozen, and what the adapter "
            "adds would fill its zeros. Either prune the model first and give the sparse one to "
            "peft; sentei.merge_adapter then merges the adapter and keeps the zeros. Or merge the "
            "adapter first, with merge_and_unload(), and prune what it returns"
        )


def _check_whole(model: nn.Module, entries: Sequence[_Entry]) -> None:
    """Refuse a model that several processes share out among them, but in blocks that are known."""
    if any(type(part).__name__ == "FullyShardedDataParallel" for part in model.modules()):
        raise ValueError(
            "scope: the model is wrapped by FullyShardedDataParallel (FSDP1), which flattens its "
            "weights and leaves no matrix to prune: use FSDP2, torch.distributed.fsdp.fully_shard "
            "(with Accelerate fsdp_version: 2), or DDP"
        )
    if problem := why_unlike((entry.name, entry.parameter) for entry in entries):
        raise ValueError(
            f"scope: {problem}: weights are pruned whole (DDP), or sharded over the same processes "
            "in blocks, as torch.distributed.fsdp.fully_shard(model) and tensor parallelism "
            "(tp_plan) leave them. Shard all prunable weights so, or leave the others out with "
            "scope.exclude"
        )
    size = max((getattr(part, "_tp_size", None) or 1 for part in model.modules()), default=1)
    if size > 1 and entries and not is_sharded(entries[0].parameter):
        raise ValueError(
            f"scope: the model is tensor parallel over {size} processes, and {entries[0].name} is "
            "a plain tensor, of which each may hold another part: only DTensors say which. Leave "
            "such weights out with scope.exclude, or load the model whole"
        )


def _check_prunable(entries: Sequence[_Entry]) -> None:
    first: dict[int, str] = {}
    for entry in entries:
        twin = first.setdefault(id(entry.parameter), entry.name)
        if twin != entry.name:
            raise ValueError(
                f"scope: {twin} and {entry.name} are the same tensor (tied weights), and it can "
                f"be pruned only once. Exclude one of them: scope.exclude=({entry.name!r},)."
            )
    for problem, fix, bad in _UNPRUNABLE:
        names = [entry.name for entry in entries if bad(entry.parameter)]
        if names:
            raise ValueError(
                f"scope: {_listed(names)} {'is' if len(names) == 1 else 'are'} {problem}. "
                f"{fix}: scope.exclude=({names[0]!r},)."
            )


_UNPRUNABLE: tuple[tuple[str, str, Callable[[nn.Parameter], bool]], ...] = (
    (
        "on the meta device, without values",
        "Load the weights first, or leave out what has none",
        lambda p: p.is_meta,
    ),
    (
        "not floating-point",
        "Load the model unquantised, or leave it out",
        lambda p: not p.is_floating_point(),
    ),
    (
        "frozen (requires_grad=False)",
        "Unfreeze with requires_grad_(True), or leave out what is frozen",
        lambda p: not p.requires_grad,
    ),
    ("a single number (0-d)", "Leave it out", lambda p: p.ndim == 0),
    ("empty (0 elements)", "Leave it out", lambda p: p.numel() == 0),
    (
        "not contiguous in memory",
        "Set parameter.data = parameter.data.contiguous(), or leave it out",
        lambda p: not local(p).is_contiguous(),
    ),
)


def _number_in_list(name: str, lists: Collection[str]) -> int | None:
    """The number of the outermost ``nn.ModuleList`` element that holds a parameter."""
    parts = name.split(".")
    for end in range(len(parts) - 1):
        if ".".join(parts[:end]) in lists and parts[end].isdigit():
            return int(parts[end])
    return None


def _first_match(name: str, patterns: Sequence[str]) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def _did_you_mean(pattern: str, names: Collection[str]) -> str:
    words = {word for name in names for word in name.split(".")}

    def spelled(literal: re.Match[str]) -> str:
        word = literal[0]
        return word if word in words else nearest(word, words) or word

    corrected = re.sub(r"[^.*?\[\]]+", spelled, pattern)
    for near in (corrected, f"*.{corrected}", f"{corrected}.*", f"*.{corrected}.*"):
        if any(fnmatchcase(name, near) for name in names):
            return f" Did you mean {near!r}?"
    return ""


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more
