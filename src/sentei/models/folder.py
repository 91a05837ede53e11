"""Folders of shrunk models, and the file that says what their config cannot."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import transformers
from transformers import PreTrainedModel
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from sentei._version import VERSION
from sentei.families import Family
from sentei.files import check_place, expanded, replacing
from sentei.messages import listing
from sentei.models.pretrained import check_size, class_named, load_config, opening
from sentei.models.stock import is_stock
from sentei.models.structures import divide, family_of, keep_, make_stock
from sentei.models.tokenizer import write_tokenizer
from sentei.records import Record
from sentei.untrusted import read_json, read_text, reading

MANIFEST = "shrink.json"
"""Name of the file beside weights whose shapes the config cannot say."""

_WEIGHTS = (
    *("*.safetensors*", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt*", "*.h5*"),
    *("*.msgpack*", "*.ot", "*.onnx*", "*.gguf", "*.tflite", "openvino_*.xml"),
)
_OF_VOCABULARY = (
    *("vocab.*", "merges.txt", "*.model", "*.tiktoken", "tekken.json", "added_tokens.json"),
    *("tokenizer*.json", "special_tokens_map.json", "generation_config.json"),
)
"""Files that name tokens or their ids."""


class Remaining(Record):
    """What is left of one structure of the model that ``config.json`` describes.

    ``columns`` of a table that its blocks share are those of its heads, where there is one.
    """

    unit: str
    name: str
    units: int
    columns: tuple[int, ...] | None = None


class Manifest(Record):
    """The shapes of a shrunk model: the stock model of ``config.json``, with fewer units.

    ``model`` is the name of its class in Transformers.
    """

    format: Literal[2] = 2
    sentei: str
    model: str
    structures: tuple[Remaining, ...]


def save(
    model: PreTrainedModel,
    folder: str | Path,
    *,
    family: Family | None = None,
    files: str | Path | None = None,
    tokenizer: TokenizersBackend | None = None,
) -> None:
    """Write a model to a folder, shrunk or not.

    Weights, config and generation config are written by ``save_pretrained``; beside them goes
    ``shrink.json`` if the config cannot say what the model is. A new folder appears whole or not at
    all.

    Args:
        model: The model.
        folder: A new or empty folder.
        family: What its architecture calls its parts, where that is not known.
        files: A model's folder, from which tokenizer and all other files but weights and config are
            copied; of subfolders those that sentence-transformers' ``modules.json`` names.
        tokenizer: What is written instead of the tokenizer of ``files``, such as a smaller one.

    Raises:
        ValueError: The folder is not empty; neither the config nor ``shrink.json`` can say what the
            model is, so that nothing would load it; or the tokenizer does not load as it was
            written.
    """
    folder = expanded(folder)
    check_free(folder)
    folder = folder.resolve()  # "." has no name to put another beside
    family = family or family_of(model)
    manifest = None if is_stock(model, family) else describe(model, family)
    if manifest is not None:
        _check_loads(model, family, manifest, folder)
    with replacing(folder) as unfinished:
        model.save_pretrained(unfinished)
        if manifest is not None:
            text = manifest.model_dump_json(indent=2, exclude_none=True)
            (unfinished / MANIFEST).write_text(text + "\n", encoding="utf-8")
        if tokenizer is not None:
            write_tokenizer(tokenizer, unfinished)
        if files is not None:
            _copy(expanded(files), unfinished, _WEIGHTS + (_OF_VOCABULARY if tokenizer else ()))


def load(
    folder: str | Path,
    *,
    family: Family | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> PreTrainedModel:
    """Load a model that :func:`save` wrote, or any other from a folder.

    The stock model of ``config.json`` is built without weights, its heads and neurons are cut to
    what ``shrink.json`` says, and the weights are loaded into that, each into its place and none
    left over.

    Args:
        folder: The model's folder.
        family: What its architecture calls its parts, where that is not known.
        trust_remote_code: Whether code that comes with the model may be run.
        options: For ``from_pretrained``: ``dtype``, ``device_map``, ``attn_implementation``, ...

    Returns:
        The model, of its class in Transformers, in evaluation.

    Raises:
        ValueError: The folder holds no model, or its files do not fit together.
    """
    path = expanded(folder)
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder; name a model's folder")
    with opening(path, "model"):
        manifest = read_manifest(path)
        config = load_config(path, trust_remote_code=trust_remote_code)
        names = [manifest.model] if manifest else [*(config.architectures or ("none",))]
        trust: Any = {"trust_remote_code": trust_remote_code}
        architecture = class_named(path, config, names[0], **trust)
        if issubclass(architecture, PreTrainedModel):
            return _load(path, architecture, manifest, family, options)
        own: PreTrainedModel = architecture.from_pretrained(path, **trust, **options)
        return own  # of a class of its own, which one of AutoModel... finds


def _load(
    path: Path,
    architecture: type[PreTrainedModel],
    manifest: Manifest | None,
    family: Family | None,
    options: dict[str, Any],
) -> PreTrainedModel:
    class Shrunk(architecture):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any, *arguments: Any, **keywords: Any) -> None:
            super().__init__(config, *arguments, **keywords)
            if manifest is not None:
                _cut_(self, family or family_of(self), manifest, path)
            check_size(self, path)

    # Transformers looks classes up by name: to it this one is the architecture itself.
    for attribute in ("__name__", "__qualname__", "__module__"):
        setattr(Shrunk, attribute, getattr(architecture, attribute))
    options.setdefault("attn_implementation", None)
    try:
        model, info = Shrunk.from_pretrained(path, output_loading_info=True, **options)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: its weights do not fit its config ({reason})") from error
    misfits = {reason: sorted(map(str, names)) for reason, names in info.items() if names}
    if manifest is None:
        misfits.pop("unexpected_keys", None)  # as from_pretrained has it: old files hold buffers
    if misfits:
        reason, names = next(iter(misfits.items()))
        raise ValueError(
            f"{path}: its weights do not fit its config"
            + (f" and {MANIFEST}" if manifest else "")
            + f": {reason.replace('_', ' ')}: {listing(names, 3)}"
        )
    model.__class__ = architecture
    shrunk: PreTrainedModel = model
    return shrunk


def describe(model: PreTrainedModel, family: Family) -> Manifest:
    """What the config of a shrunk model cannot say."""
    uses: dict[str, list[int] | None] = {}
    structures = [at.structure for at in divide(model, family)]
    if any(heads.table for heads in family.heads):
        from sentei.models.shared_bias import columns  # loads two architectures

        names = (structure.name for structure in structures)
        uses = {name: columns(model.get_submodule(name)) for name in names}
    return Manifest(
        sentei=VERSION,
        model=type(model).__name__,
        structures=tuple(
            Remaining(
                unit=structure.unit,
                name=structure.name,
                units=structure.units,
                columns=tuple(used) if (used := uses.get(structure.name)) is not None else None,
            )
            for structure in structures
        ),
    )


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, if there is one.

    Raises:
        ValueError: It is damaged, or of another version.
    """
    file = folder / MANIFEST
    if not file.is_file():
        return None
    with reading(file, "it is damaged or of another version of Sentei"):
        return Manifest.model_validate_json(read_text(file))


def is_shrunk(folder: str | Path) -> bool:
    """Whether only :func:`load` loads a model: its config cannot say its shapes."""
    return Path(folder, MANIFEST).is_file()


def copy_manifest(source: str | Path, target: str | Path) -> None:
    """Put what the config of a shrunk model cannot say beside its weights in another folder."""
    if is_shrunk(source):
        shutil.copyfile(Path(source, MANIFEST), Path(target, MANIFEST))


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something, or cannot hold a model.

    Raises:
        ValueError: It does, or cannot be made.
    """
    check_place(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name a new or empty folder")


def _check_loads(model: PreTrainedModel, family: Family, manifest: Manifest, folder: Path) -> None:
    """Refuse a model of which :func:`load` would make another."""
    if getattr(transformers, manifest.model, None) is not type(model):
        raise ValueError(
            f"a {manifest.model} is not a class of transformers, and its config cannot say its "
            f"shapes, so that nothing would load it from {folder}: shrink it with stock=True, or "
            "shrink a model of the class of transformers that it extends"
        )
    stock = make_stock(model, copy.deepcopy(model.config))
    _cut_(stock, family, manifest, folder)
    here, there = (
        {name: list(tensor.shape) for name, tensor in one.named_parameters(remove_duplicate=False)}
        for one in (model, stock)
    )
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            raise ValueError(
                f"{name} is {here.get(name, 'absent')} here and {there.get(name, 'absent')} by the "
                f"model's config, so that nothing would load it from {folder}: make the config say "
                "what the model is (for a new classifier config.num_labels)"
            )


def _cut_(model: PreTrainedModel, family: Family, manifest: Manifest, folder: Path) -> None:
    remaining = {(entry.unit, entry.name): entry for entry in manifest.structures}
    for at in divide(model, family):
        structure = at.structure
        kept = _kept(remaining.pop((structure.unit, structure.name), None))
        if not kept or max(kept) >= structure.units:
            raise ValueError(
                f"{folder / MANIFEST}: it does not say what is left of the {structure.units} "
                f"{structure.unit}s of {structure.name} in config.json's model"
            )
        if list(kept) != list(range(structure.units)):
            keep_(model, family, at, kept)
    if remaining:
        _, name = next(iter(remaining))
        raise ValueError(f"{folder / MANIFEST}: config.json's model has no {name}")


def _kept(entry: Remaining | None) -> Sequence[int]:
    """The units, numbered as in the stock model, that are left of a structure."""
    if entry is None:
        return ()
    return range(entry.units) if entry.columns is None else entry.columns


def copy_around(source: Path, target: Path) -> None:
    """Copy what lies around a model in a folder of sentence-transformers, but not the model."""
    _copy(source, target, _WEIGHTS)


def _copy(source: Path, target: Path, except_: tuple[str, ...]) -> None:
    """Copy what is not there yet: tokenizer, model card, whatever else but some patterns."""
    written = {path.name for path in target.iterdir()} | {MANIFEST}
    modules = _module_folders(source)
    for path in sorted(source.iterdir()):
        if path.name in written:
            continue
        if path.is_dir() and path.name in modules:
            shutil.copytree(path, target / path.name)
        elif path.is_file():
            if not any(path.match(pattern) for pattern in except_):
                shutil.copy2(path, target / path.name)


def transformer_folder(folder: Path) -> Path:
    """Where a folder of sentence-transformers has its model: older ones have it in 0_Transformer.

    Raises:
        ValueError: Its modules are not listed as they should be.
    """
    if (folder / "config.json").is_file() or not (folder / "modules.json").is_file():
        return folder
    return folder / next((path for path in _modules(folder) if _holds_config(folder, path)), "")


def _holds_config(folder: Path, path: str) -> bool:
    file = folder / path / "config.json"
    inside = ".." not in Path(path).parts and not Path(path).is_absolute()
    return inside and file.is_file() and "model_type" in read_json(file)


def _module_folders(folder: Path) -> set[str]:
    """Folders of what follows the model in sentence-transformers, such as 1_Pooling."""
    return {path.partition("/")[0] for path in _modules(folder)}


def _modules(folder: Path) -> list[str]:
    """The paths of a folder's modules of sentence-transformers; none where it lists none."""
    file = folder / "modules.json"
    if not file.is_file():
        return []
    modules = read_json(file)
    with reading(
        file, "mend it or take it away", "it lists no modules of sentence-transformers with paths"
    ):
        return [str(module["path"]) for module in modules]
