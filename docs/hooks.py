"""What the site adds to the pages in docs/: files of the repository, the command's options.

A page may link to a file outside docs/, as it must on a code host. Such a file becomes a page of
the site, and so does what it links to in turn; the links are turned to these pages.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = PurePosixPath("docs")
OPTIONS = "<!-- every verb and its options -->"

_LINK = re.compile(r"(?P<start>\]\()(?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")
_FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?(?:[\w.]*\.)?(\w+)`")


def _address(path: PurePosixPath) -> str:
    """Where a file of the repository stands in the site's sources."""
    if path.is_relative_to(DOCS):
        return str(path.relative_to(DOCS))
    if path.name == "README.md":
        return f"{path.parent}.md"
    return str(path) if path.suffix == ".md" else f"{path}.md"


def _origin(address: str) -> PurePosixPath:
    """The file of the repository that a page of the site is made from."""
    path = PurePosixPath(address)
    choices = (DOCS / path, path, path.with_suffix(""), path.with_suffix("") / "README.md")
    return next(choice for choice in choices if (ROOT / choice).is_file())


def _target(origin: PurePosixPath, link: str) -> PurePosixPath:
    return PurePosixPath(os.path.normpath(origin.parent / link))


def _text(path: PurePosixPath) -> str:
    """A file as a page: Markdown as it is, anything else as a block of code."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    return f"# {path.name}\n\n```{path.suffix[1:]}\n{text}```\n"


def _linked(origin: PurePosixPath) -> list[PurePosixPath]:
    """The files outside docs/ that a page links to."""
    text = _FENCE.sub("", _text(origin)) if origin.suffix == ".md" else ""
    targets = [_target(origin, link["path"]) for link in _LINK.finditer(text)]
    outside = [target for target in targets if not target.is_relative_to(DOCS)]
    return [target for target in outside if (ROOT / target).is_file()]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that pages link to, and those that these link to."""
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    seen = set(pages)
    for page in pages:
        for target in _linked(page):
            if target not in seen:
                seen.add(target)
                pages.append(target)
                files.append(File.generated(config, _address(target), content=_text(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave docs/ to the pages made for them; write out the command's options."""
    here = page.file.src_uri
    origin = _origin(here)

    def turned(link: re.Match[str]) -> str:
        address = _address(_target(origin, link["path"]))
        relative = os.path.relpath(address, PurePosixPath(here).parent)
        return f"{link['start']}{relative}{link['anchor'] or ''})"

    parts = re.split(f"({_FENCE.pattern})", markdown, flags=_FENCE.flags)
    parts[::2] = [_LINK.sub(turned, part) for part in parts[::2]]
    markdown = "".join(parts)
    return markdown.replace(OPTIONS, _options()) if OPTIONS in markdown else markdown


def _options() -> str:
    """Every verb with its options, from what ``--help`` shows."""
    import typer
    from typer.cli import get_docs_for_click

    from sentei.cli import app

    group = typer.main.get_command(app)
    text = get_docs_for_click(obj=group, ctx=typer.Context(group), name="sentei")
    verbs = text[text.index("\n## ") :]
    return verbs.replace("\n* `--help`: Show this message and exit.", "")


class Markup(griffe.Extension):
    """What docstrings write for other tools, as Markdown: references as code, examples to run."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = text.replace("\nExample:\n", "\nExamples:\n")


class Fields(griffe.Extension):
    """Of a final part only its settings: what its methods do stands at the abstract part."""

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Leave out methods and properties of a class with a ``kind``, and of settings."""
        if "kind" in cls.members or cls.path.startswith(("sentei.tasks.", "sentei.run.")):
            for name, member in list(cls.members.items()):
                if member.is_function or "property" in member.labels:
                    cls.del_member(name)
