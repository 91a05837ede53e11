"""A model's embeddings: what makes vectors of tokens, positions and patches."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from sentei import families


def embeddings(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The parameters between a model's inputs and its first block, by name.

    Tables of tokens, positions and types, what stands beside them (BERT's layer norm), and the
    projection of an image's patches. Where the head shares the table of tokens, it is the same
    parameter. Tables of relative positions are among them where all blocks share one (DeBERTa,
    MPNet), and not where they are inside blocks (T5).

    Raises:
        ValueError: The model does not say what embeds its inputs.
    """
    tables = {name for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    head = model.get_output_embeddings()
    untied = {id(weight) for weight in head.parameters()} if isinstance(head, nn.Module) else set()
    found = {}
    for name, weight in model.named_parameters():
        named = families.names_embedding(name) and id(weight) not in untied
        in_blocks = any(part.isdigit() for part in name.split("."))
        if (named or name.rpartition(".")[0] in tables) and not in_blocks:
            found[name] = weight
    return found or _inputs(model)


def freeze_embeddings_(model: PreTrainedModel) -> None:
    """Have no optimizer train :func:`embeddings`.

    Raises:
        ValueError: The model does not say what they are.
    """
    for weight in embeddings(model).values():
        weight.requires_grad_(False)


def _inputs(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Of a model that calls nothing so: what it gives itself."""
    try:
        wanted = {id(weight) for weight in model.get_input_embeddings().parameters()}
    except NotImplementedError:
        wanted = set[int]()
    found = {name: weight for name, weight in model.named_parameters() if id(weight) in wanted}
    if not found:
        raise ValueError(f"{type(model).__name__} does not say which weights are its embeddings")
    return found
