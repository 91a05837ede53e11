"""A vocabulary of only what some texts use: fewer rows in embeddings and output heads."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from sentei.models.tokenizer import described, same_tokenizer
from sentei.records import Record
from sentei.shrink.vocabulary.rows import find_tables, named_ids, take_rows_
from sentei.shrink.vocabulary.tokens import (
    Description,
    Text,
    check_known,
    cut,
    encode,
    find_used,
)


class VocabularyReport(Record):
    """What was removed from a vocabulary, for the sake of which texts.

    ``rows_*`` count the rows of the input embedding, which may be more than the tokens. ``changed``
    is the number of ``texts`` that are now split otherwise, none unless ``least`` is above 1.
    """

    texts: int
    least: int
    changed: int
    tokens_before: int
    tokens_after: int
    rows_before: int
    rows_after: int
    parameters_before: int
    parameters_after: int

    @property
    def removed(self) -> int:
        """Number of rows that were removed."""
        return self.rows_before - self.rows_after


def shrink_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[Text],
    *,
    least: int = 1,
) -> tuple[PreTrainedModel, TokenizersBackend, VocabularyReport]:
    """Remove the tokens that no text uses, from a tokenizer and from its model.

    What stays keeps its order, so that ids only become smaller; what that is, for each kind of
    tokenizer, says :mod:`sentei.shrink.vocabulary.tokens`. With ``least=1`` each of the texts is
    split into the same tokens, which is checked here; with more it is not promised, and ``changed``
    counts. The model gets the same rows for them and gives the same, except that an output head
    says nothing of tokens that are gone: its probabilities are shared among the others.

    Rows that belong to no token go, unless a config names them. A token without a row stays
    without one. Tokens that are gone are taken out of the generation config's ``suppress_tokens``,
    ``begin_suppress_tokens`` and ``bad_words_ids``, where they have nothing to forbid any more.

    Args:
        model: A Transformers model; is not changed. There must be room for a copy of it.
        tokenizer: Its tokenizer; is not changed.
        texts: The texts, or pairs of them.
        least: How often a token must occur.

    Returns:
        The smaller model and tokenizer, each of its class (the very same two if nothing can go),
        and what was removed. ``save(model, folder, tokenizer=tokenizer)`` writes both.

    Raises:
        ValueError: There are no texts; the tokenizer is not one of the library ``tokenizers`` or
            of no known kind; the model has no plain table of embeddings; or what comes out does
            not split a text as before.
    """
    texts = list(texts)
    whole = _check(tokenizer, texts, least)
    description = json.loads(whole.backend_tokenizer.to_str())
    check_known(description)
    tables = find_tables(model)
    used = find_used(whole.backend_tokenizer, description, texts, least)
    new = {old: number for number, old in enumerate(sorted(used | named_ids(model)))}
    smaller, fewer, changed = model, whole, 0
    if len(new) < max(model.config.vocab_size, len(whole)):
        fewer = _without(whole, description, new)
        changed = _changed(whole, fewer, texts, exact=least == 1)
        fewer = _renewed(fewer)
        smaller = copy.deepcopy(model)
        take_rows_(smaller, tables, new)
    report = VocabularyReport(
        texts=len(texts),
        least=least,
        changed=changed,
        tokens_before=len(whole),
        tokens_after=len(fewer),
        rows_before=model.config.vocab_size,
        rows_after=smaller.config.vocab_size,
        parameters_before=sum(parameter.numel() for parameter in model.parameters()),
        parameters_after=sum(parameter.numel() for parameter in smaller.parameters()),
    )
    return smaller, fewer, report


def _check(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], least: int
) -> TokenizersBackend:
    """The tokenizer, if it is one that can be cut for these texts."""
    if not texts:
        raise ValueError("no texts: a vocabulary is cut to what some texts use")
    if least < 1:
        raise ValueError(f"least is {least}: a token must occur once or more to stay")
    if not isinstance(tokenizer, TokenizersBackend):
        raise ValueError(
            f"{described(tokenizer)} is not made by the library tokenizers, so that nothing says "
            "how it splits texts; a folder with a tokenizer.json gives one that is"
        )
    return tokenizer


def _without(
    tokenizer: TokenizersBackend, description: Description, new: Mapping[int, int]
) -> TokenizersBackend:
    """A tokenizer of some tokens alone, under their new ids."""
    cut(description, new)
    fewer = copy.deepcopy(tokenizer)
    fewer._tokenizer = Tokenizer.from_str(json.dumps(description))
    _check_ids(tokenizer.backend_tokenizer, fewer.backend_tokenizer, new)
    return fewer


def _renewed(tokenizer: TokenizersBackend) -> TokenizersBackend:
    """The tokenizer as its class reads it from files: some keep ids, such as mBART of languages.

    Where another comes back it is left as it is, and ``write_tokenizer`` refuses it.
    """
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        loaded = type(tokenizer).from_pretrained(folder)
    loaded.name_or_path = tokenizer.name_or_path
    return loaded if same_tokenizer(loaded, tokenizer) else tokenizer


def _check_ids(before: Tokenizer, after: Tokenizer, new: Mapping[int, int]) -> None:
    """Refuse a tokenizer that numbers its tokens in its own way."""
    places = {name: new[old] for name, old in before.get_vocab().items() if old in new}
    ids = after.get_vocab()
    if ids != places:
        name = next(name for name in {**places, **ids} if places.get(name) != ids.get(name))
        raise ValueError(
            f"the tokenizer cannot be cut: its token {name!r} would have the id {ids.get(name)} "
            f"where {places.get(name)} is its place"
        )


def _changed(
    before: TokenizersBackend, after: TokenizersBackend, texts: Sequence[Text], *, exact: bool
) -> int:
    """How many texts two tokenizers split otherwise; an error if it must be none."""
    changed = 0
    old, new = encode(before.backend_tokenizer, texts), encode(after.backend_tokenizer, texts)
    for text, whole, fewer in zip(texts, old, new, strict=True):
        if whole.tokens != fewer.tokens:
            if exact:
                raise ValueError(
                    f"the tokenizer cannot be cut: with fewer tokens it splits {text!r:.80} "
                    "otherwise"
                )
            changed += 1
    return changed
