"""Candidates for words out of transformers' models, and a file of augmented examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForMaskedLM, PreTrainedTokenizerBase

from sentei.distill.augment import Word, augment
from sentei.files import replacing
from sentei.models.beginnings import beginning
from sentei.models.inputs import positions
from sentei.models.loading import is_a, load_pretrained, load_tokenizer, locate_model
from sentei.run.settings import Settings

LM_BATCH = 32
"""Masked texts in a forward pass of the language model."""


class Neighbours:
    """The nearest words of a model's vocabulary, by the cosine of their embeddings.

    A word of several pieces is the mean of theirs. TinyBERT takes GloVe vectors here.
    """

    def __init__(self, name: str, count: int, *, trust_remote_code: bool = False) -> None:
        folder, _ = locate_model(name)
        trust: Any = {"trust_remote_code": trust_remote_code}
        self.tokenizer, self.count = load_tokenizer(folder, **trust), count
        model = _load(AutoModel, folder, "model", **trust)
        matrix = model.get_input_embeddings().weight.detach().float()
        self.matrix = torch.nn.functional.normalize(matrix, dim=-1)
        self.words = whole_words(self.tokenizer)
        self.ids = torch.tensor([i for i in self.words if i < len(matrix)], dtype=torch.long)
        self.vectors = self.matrix[self.ids]
        self._known: dict[str, list[str]] = {}

    def __call__(self, word: str) -> list[str]:
        """The nearest first, without the word itself."""
        key = word.casefold()
        if key not in self._known:
            self._known[key] = self._nearest(key)
        return self._known[key]

    def _nearest(self, word: str) -> list[str]:
        pieces = self.tokenizer(" " + word, add_special_tokens=False)["input_ids"]
        if not pieces or self.tokenizer.unk_token_id in pieces or not len(self.ids):
            return []
        near = self.vectors @ self.matrix[pieces].mean(0)
        most = min(self.count + len(pieces) + 8, len(near))  # other cases of the word drop out
        order = self.ids[near.topk(most).indices].tolist()
        return _others(word, [self.words[i] for i in order if i not in pieces], self.count)


class MaskedLM:
    """What a masked language model puts where a word was.

    It reads the text with the word masked, then the whole text, as in TinyBERT's code.
    """

    def __init__(self, name: str, count: int, *, trust_remote_code: bool = False) -> None:
        folder, _ = locate_model(name, "lm")
        trust: Any = {"trust_remote_code": trust_remote_code}
        self.tokenizer, self.count = load_tokenizer(folder, "lm", **trust), count
        if self.tokenizer.mask_token is None:
            raise ValueError(f"--lm {name}: its tokenizer has no mask token; name a masked LM")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = _load(AutoModelForMaskedLM, folder, "lm", **trust).to(self.device)
        self.limit = min(self.tokenizer.model_max_length, 512, positions(self.model) or 512)
        self.words = whole_words(self.tokenizer)
        vocabulary = self.model.config.vocab_size
        self.allowed = torch.tensor([i in self.words for i in range(vocabulary)])
        self.allowed = self.allowed.to(self.device)
        self._known: dict[str, bool] = {}

    def knows(self, word: str) -> bool:
        """Whether the word is one piece: otherwise one mask does not stand for it."""
        if word not in self._known:
            pieces = self.tokenizer(" " + word, add_special_tokens=False)["input_ids"]
            self._known[word] = len(pieces) == 1 and pieces[0] != self.tokenizer.unk_token_id
        return self._known[word]

    def __call__(self, text: str, words: Sequence[Word]) -> list[list[str]]:
        """For each word, the likeliest others first; empty where the text is too long."""
        mask = str(self.tokenizer.mask_token)
        if mask in text:
            return [[] for _ in words]
        text = beginning(text, self.limit, self.tokenizer)
        seen_words = [word for word in words if word.end <= len(text)]
        candidates = []
        for start in range(0, len(seen_words), LM_BATCH):
            part = seen_words[start : start + LM_BATCH]
            masked = [text[: word.start] + mask + text[word.end :] for word in part]
            scores, whole = self._scores(masked, text)
            best = scores.topk(min(self.count + 1, int(self.allowed.sum()))).indices.tolist()
            for word, order, seen in zip(part, best, whole, strict=True):
                likely = [self.words[i] for i in order] if seen else []
                candidates.append(_others(word.text, likely, self.count))
        return candidates + [list[str]() for _ in words[len(seen_words) :]]

    @torch.no_grad()
    def _scores(self, masked: list[str], text: str) -> tuple[Tensor, list[bool]]:
        """Scores of whole words at each mask, and whether it was not cut off."""
        batch = self.tokenizer(
            masked,
            [text] * len(masked),
            truncation=True,
            max_length=self.limit,
            padding=True,
            return_tensors="pt",
        ).to(self.device)
        at = batch["input_ids"] == self.tokenizer.mask_token_id
        logits = self.model(**batch).logits.float()
        first = at.int().argmax(dim=1)
        scores = logits[torch.arange(len(masked), device=self.device), first]
        blocked = ~self.allowed[: scores.shape[1]]
        return scores.masked_fill(blocked, -torch.inf), at.any(dim=1).tolist()


@dataclass(frozen=True)
class Augmented:
    """What was written: rows in all, and how many of them are originals."""

    path: str
    rows: int
    originals: int
    columns: tuple[str, ...]


def candidates(
    lm: MaskedLM | None, near: Neighbours
) -> Callable[[str, Sequence[Word]], list[list[str]]]:
    """The language model's for words of one piece, nearest neighbours for others."""

    def choose(text: str, words: Sequence[Word]) -> list[list[str]]:
        known = [word for word in words if lm is not None and lm.knows(word.text)]
        likely = dict(zip(known, lm(text, known), strict=True)) if lm and known else {}
        return [likely.get(word) or near(word.text) for word in words]

    return choose


def write(
    settings: Settings,
    out: Path,
    *,
    lm: str | None,
    copies: int,
    replace: float,
    count: int,
    progress: Callable[[int, int], None],
) -> Augmented:
    """Write the training examples and their copies as JSON lines.

    Args:
        settings: Whose data and model, and the seed.
        out: The file; it appears whole or not at all.
        lm: A masked language model; None takes nearest neighbours alone.
        copies: Copies of each example, before duplicates are dropped.
        replace: Probability that a word is replaced.
        count: Candidates of a word.
        progress: Told how many examples of how many are done.

    Raises:
        ValueError: The file exists, or a model or the data cannot be used.
    """
    if out.exists():
        raise ValueError(f"--out {out}: it exists already; name another file, or remove it")
    task = settings.task
    examples = task.load_training()
    columns = task.columns(examples)
    if not columns:
        raise ValueError(f"--kind {task.label}: only labelled texts and pairs are augmented")
    trust: Any = {"trust_remote_code": settings.trust_remote_code}
    near = Neighbours(settings.model, count, **trust)
    choose = candidates(MaskedLM(lm, count, **trust) if lm else None, near)
    pairs = examples.pairs
    rows = list(zip(examples.texts, pairs, strict=True) if pairs else zip(examples.texts))
    seed = settings.training.seed
    copied = augment(rows, choose, copies=copies, replace=replace, seed=seed)
    written = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for done, (label, texts) in enumerate(zip(examples.labels, copied, strict=True), 1):
            names = examples.label_names
            value = names[int(label)] if names else label
            for cells in texts:
                row = dict(zip(columns, [*cells, value], strict=True))
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                written += 1
            progress(done, len(rows))
    return Augmented(str(out), written, len(rows), columns)


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The entries of a vocabulary that are words of letters by themselves, by id."""
    ids = sorted(tokenizer.get_vocab().values())
    texts = [str(tokenizer.decode([i])).strip() for i in ids]
    words = [(i, text) for i, text in zip(ids, texts, strict=True) if text.isalpha()]
    if not words:
        return {}
    again = tokenizer([f" {text}" for _, text in words], add_special_tokens=False)["input_ids"]
    return {i: text for (i, text), ids in zip(words, again, strict=True) if ids == [i]}


def _others(word: str, candidates: Sequence[str], count: int) -> list[str]:
    """The first ``count`` that are another word, each once."""
    other = dict.fromkeys(w for w in candidates if w.casefold() != word.casefold())
    return list(other)[:count]


def _load(model_class: Any, folder: str, option: str, *, trust_remote_code: bool) -> Any:
    model, info = load_pretrained(
        folder, model_class, option=option, trust_remote_code=trust_remote_code
    )
    if option == "lm" and not is_a(model, model_class):
        raise ValueError(
            f"--{option} {folder}: cannot be loaded (a shrunk {type(model).__name__} is no masked "
            "language model)"
        )
    missing = [key for key in info.get("missing_keys", ()) if "pooler" not in key]
    if missing:
        raise ValueError(
            f"--{option} {folder}: not trained for this, it lacks {missing[0]}; "
            + ("name a masked language model" if option == "lm" else "name another model")
        )
    return model.eval()
