"""A model's card: the README.md of its folder, whose first lines the hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from huggingface_hub import ModelCard, ModelCardData

from sentei.files import write_text
from sentei.models.folder import is_shrunk
from sentei.models.pooling import MODULES
from sentei.untrusted import read_text, reading

CARD: Final = "README.md"
"""The file that the hub shows."""

PROCESSORS: Final = {
    "tokenizer_config.json": "AutoTokenizer",
    "preprocessor_config.json": "AutoImageProcessor",
}
"""Files of what makes a model's input, and the class of transformers that reads each."""

LOADING: Final = "Loading"
"""Title of the section that says how the model is loaded."""

PACKED: Final = "Packed"
"""Title of the section that says what the numbers of a packed model are written as."""

_SENTENCES = """sentence-transformers loads it, and embeds texts:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("NAME")  # on the hub, or the folder of this file
vectors = model.encode(["A text."])
```"""
_IMPORT = "import sentei  # reads packed weights"


def write_card(folder: Path, data: ModelCardData, sections: Iterable[str]) -> None:
    """Write the card of a model, whole or not at all.

    Args:
        folder: The model's.
        data: What the hub reads.
        sections: What people read, in Markdown.
    """
    body = "\n\n".join(sections)
    write_text(folder / CARD, str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")))


def read_card(folder: str | Path) -> ModelCard | None:
    """The card of a model's folder, if it has one that can be read.

    What is damaged in its metadata is left out: no work is lost for prose of others.
    """
    path = Path(folder, CARD)
    try:
        with reading(path):
            return ModelCard(read_text(path), ignore_metadata_errors=True)
    except ValueError:
        return None


def mark_shrunk(folder: Path, account: str) -> None:
    """Say in a card, if there is one, that the model is shrunk, and how it is loaded now.

    Args:
        folder: The model's, with the card of the model that it was made of.
        account: What was removed, in Markdown.
    """
    mark_unpacked(folder)  # a shrunk model is written plain
    card = read_card(folder)
    if card is None:
        return
    card.data["tags"] = [*dict.fromkeys([*_tags(card), "sentei", "shrunk"])]
    if is_shrunk(folder):
        card.text = _section(LOADING).sub(lambda _: f"{loading(folder)}\n\n", card.text)
    card.text = f"{card.text.rstrip()}\n\n## Shrunk\n\n{account}\n"
    write_text(folder / CARD, str(card))


def mark_packed(folder: Path, account: str) -> None:
    """Say in a card, if there is one, that the model is packed, and what it needs to be loaded.

    Args:
        folder: The model's, with the card of the model that it was made of.
        account: What its numbers are written as, in Markdown.
    """
    card = read_card(folder)
    if card is None:
        return
    card.data["tags"] = [*dict.fromkeys([*_tags(card), "sentei", "packed"])]
    code = f"```python\n{_IMPORT}\n"
    how = _section(LOADING)
    card.text = how.sub(lambda one: one[0].replace("```python\n", code, 1), card.text)
    card.text = f"{card.text.rstrip()}\n\n## {PACKED}\n\n{account}\n"
    write_text(folder / CARD, str(card))


def mark_unpacked(folder: Path) -> None:
    """Take out of a card, if there is one, what :func:`mark_packed` has said.

    Args:
        folder: The model's, with the card of the packed model.
    """
    card = read_card(folder)
    if card is None or "packed" not in _tags(card):
        return
    card.data["tags"] = [tag for tag in _tags(card) if tag != "packed"]
    how = _section(LOADING)
    card.text = how.sub(lambda one: one[0].replace(f"{_IMPORT}\n", "", 1), card.text)
    card.text = f"{_section(PACKED).sub('', card.text).rstrip()}\n"
    write_text(folder / CARD, str(card))


def _tags(card: ModelCard) -> list[str]:
    tags = card.data.get("tags")
    return [str(tag) for tag in tags] if isinstance(tags, list) else []


def _section(title: str) -> re.Pattern[str]:
    return re.compile(rf"^## {title}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def mark_exported(folder: Path, format_: str, precision: str, files: Sequence[str]) -> None:
    """Say in a card, if there is one, which files hold the model now.

    Args:
        folder: The model's, with the card of the model that it was made of.
        format_: What it was exported as.
        precision: In which it computes.
        files: The names of the files.
    """
    mark_unpacked(folder)
    card = read_card(folder)
    if card is None:
        return
    card.data["tags"] = [*dict.fromkeys([*_tags(card), "sentei", format_])]
    names = ", ".join(f"`{name}`" for name in files)
    how = (
        f"## {LOADING}\n\nThe model is in {names}, as {format_} in {precision}. What is said here "
        "of its quality is of the model that it was exported from.\n\n"
    )
    card.text = f"{_section(LOADING).sub(lambda _: how, card.text).rstrip()}\n"
    write_text(folder / CARD, str(card))


def loading(folder: Path, model_class: str = "AutoModel") -> str:
    """The section that says how a model is loaded.

    Args:
        folder: The model's.
        model_class: The class of transformers for it, unless it is shrunk.
    """
    trust = ", trust_remote_code=True" if any(folder.glob("*.py")) else ""
    processors = [name for file, name in PROCESSORS.items() if (folder / file).is_file()]
    if is_shrunk(folder):
        intro = "`sentei.shrink.load` loads it: no config can say its shapes."
        imports = ["from huggingface_hub import snapshot_download", "from sentei import shrink"]
        where = 'folder = snapshot_download("NAME")  # or the folder of this file'
        load, classes = "shrink.load(folder)", processors
    else:
        intro = "Plain transformers load it."
        imports, where = [], 'folder = "NAME"  # on the hub, or the folder of this file'
        load, classes = f"{model_class}.from_pretrained(folder{trust})", [model_class, *processors]
    if classes:
        imports.append(f"from transformers import {', '.join(classes)}")
    inputs = [
        f"{name.removeprefix('Auto').lower()} = {name}.from_pretrained(folder{trust})"
        for name in processors
    ]
    code = "\n".join([*imports, "", where, f"model = {load}", *inputs])
    plain = f"{intro}\n\n```python\n{code}\n```"
    if (folder / MODULES).is_file() and not is_shrunk(folder):
        plain = f"{_SENTENCES}\n\n{intro} Pooling is then yours.\n\n```python\n{code}\n```"
    return f"## {LOADING}\n\n{plain}"
