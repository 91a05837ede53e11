"""Vectors of texts, learnt from those that another model gives, with labels beside them or without.

The model is an encoder alone, of transformers or in a folder of sentence-transformers, whose
pooling, normalization and prompts are kept. What it is taught is in losses.py, how it is measured
in scores.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from sentei.parts.distillation import Distillation
from sentei.tasks.catalogue import DEMO_SENTENCES
from sentei.tasks.embeddings.rows import (
    BY_ANSWERS,
    BY_REFERENCE,
    BY_SCORES,
    BY_TWO_SCORES,
    Columns,
    TextRows,
    two_valued,
)
from sentei.tasks.options import ModelName, Option
from sentei.tasks.task import Prediction
from sentei.tasks.text import TextColumn

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from sentei.data.features import Features
    from sentei.data.table import Table
    from sentei.distill.cache import TeacherCache
    from sentei.recipe import Recipe
    from sentei.tasks.embeddings.features import Vectors
    from sentei.tasks.embeddings.processor import SentenceProcessor
    from sentei.tasks.task import Batch, Collator

TERMS: Final = ("cosine_weight", "mse_weight", "similarity_weight")
"""Weights of what is learnt from another model."""


class Embeddings(TextColumn[TextRows]):
    """Vectors of texts."""

    kind: Literal["embeddings"] = "embeddings"

    pair_column: str | None = None
    """Column of the second text, for pairs."""

    negative_column: str | None = None
    """Column of a passage that does not answer the query of its row."""

    label_column: str | None = None
    """Column of the label [default: label]."""

    cosine_weight: Annotated[float, Option(training=True)] = Field(1.0, ge=0)
    """Weight of the cosines between a text's embedding and the teacher's."""

    mse_weight: Annotated[float, Option(training=True)] = Field(1.0, ge=0)
    """Weight of the squared error of embeddings, by the teacher's squares."""

    similarity_weight: Annotated[float, Option(training=True)] = Field(1.0, ge=0)
    """Weight of the squared error of the cosines between the texts of a batch, by their spread."""

    label_weight: Annotated[float, Option(training=True)] = Field(1.0, ge=0)
    """Weight of scores, or of queries and passages, where the training data have them."""

    reference: ModelName | None = None
    """Model whose embeddings a model of texts alone is compared with [default: its teacher]."""

    title = "sentence embeddings"
    auto_class = "AutoModel"
    pipeline_tag = "sentence-similarity"
    pads = True
    caches = True
    any_order = True
    one_pass = True
    refers = True
    library = "sentence-transformers"
    usual_training = {"learning_rate": 2e-4}  # noqa: RUF012

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if not any(getattr(self, name) for name in (*TERMS, "label_weight")):
            raise ValueError("--cosine-weight 0: all weights are 0, and nothing would be learnt")
        if self.negative_column and not self.pair_column:
            raise ValueError("--negative-column needs --text-column and --pair-column beside it.")
        if self.pair_column and not self.text_column:
            raise ValueError("--pair-column needs --text-column beside it.")
        return self

    @property
    def metric_choices(self) -> tuple[str, ...]:
        """Of pairs, of queries, and of agreement with another model."""
        return (*BY_SCORES, BY_TWO_SCORES, *BY_ANSWERS, *BY_REFERENCE)

    @property
    def usual_metrics(self) -> tuple[str, ...]:
        """Of pairs with scores."""
        return BY_SCORES

    def measured(self, examples: TextRows) -> tuple[str, ...]:
        """By what the evaluation data have: scores, queries with passages, or texts alone."""
        if examples.scores is not None:
            names = (*BY_SCORES, *([BY_TWO_SCORES] if two_valued(examples.scores) else []))
        else:
            names = BY_ANSWERS if examples.answers else BY_REFERENCE
        if self.metric and self.metric not in names:
            raise ValueError(
                f"--metric {self.metric}: {examples.source} can be measured by {', '.join(names)}"
            )
        return tuple(dict.fromkeys([self.metric, *names])) if self.metric else names

    # ------------------------------------------------------------------------------ data

    def load_parts(self) -> tuple[TextRows, TextRows | None]:
        """Training examples, and those to evaluate on where they are apart; the demo's too.

        Raises:
            ValueError: No source or an unusable one.
        """
        if self.train or not self.known or self.known.name != DEMO_SENTENCES:
            return super().load_parts()
        from sentei.tasks.embeddings.demo import load_demo_sentences

        return load_demo_sentences()

    def from_table(self, table: Table) -> TextRows:
        """The rows of a table.

        Raises:
            ValueError: They cannot be used; the message names the place and the fix.
        """
        columns = Columns(
            self.text_column, self.pair_column, self.negative_column, self.label_column
        )
        return columns.read(table)

    def check_training(self, examples: TextRows) -> None:
        """Refuse texts of which nothing would be learnt.

        Raises:
            ValueError: There is neither a weight for their teacher nor a label.
        """
        labelled = self.label_weight and examples.places > 1
        if not labelled and not any(getattr(self, name) for name in TERMS):
            raise ValueError(
                f"{examples.source}: texts alone are learnt from a teacher, and --cosine-weight, "
                "--mse-weight and --similarity-weight are all 0"
            )

    # ----------------------------------------------------------------------------- model

    def lesson(self, examples: TextRows) -> str:
        """Its teacher's embeddings, and the labels of rows."""
        count = len({text for row in examples.rows for text in row})
        parts = []
        if self.refers_to(examples, training=True):
            parts.append(f"to embed {count:,} texts as {{teacher}} does")
        if examples.places > 1 and self.label_weight:
            rows = f"{len(examples):,} rows"
            scores = f"how alike the texts of {rows} are, by their scores"
            answers = f"which passages answer which queries, in {rows}"
            parts.append(scores if examples.scores is not None else answers)
        return ", and ".join(parts)

    def adapt(self, recipe: Recipe) -> Recipe:
        """A recipe whose teacher is asked for hidden states and attention alone.

        The task's own loss, of embeddings, stands for its terms of labels and logits.
        """
        distill = recipe.distill
        if distill is None:
            return recipe
        changes: dict[str, Any] = {"labels": 0.0, "logits": 0.0, "regression": "teacher"}
        looks = distill.hidden or distill.attention
        inside = Distillation(**{**dict(distill), **changes}) if looks else None
        return recipe.model_copy(update={"distill": inside})

    def load_processor(self, folder: str, *, trust_remote_code: bool = False) -> Any:
        """The tokenizer, and what sentence-transformers' files say; the mean where there are none.

        Raises:
            OSError, ValueError, KeyError, ImportError: It cannot be loaded, or the files ask for
                what is not built here.
        """
        from sentei.models.pooling import read_sentence_files, sentence_folder
        from sentei.models.pretrained import load_config
        from sentei.tasks.embeddings.processor import SentenceProcessor

        trust: Any = {"trust_remote_code": trust_remote_code}
        tokenizer = super().load_processor(folder, **trust)
        pooling, files = read_sentence_files(sentence_folder(folder))
        tokenizer(pooling.ready(_ANY_TEXT))  # damage may show only there
        width = int(load_config(folder, **trust).hidden_size)
        return SentenceProcessor(tokenizer, pooling, files, width)

    def same_input(self, ours: SentenceProcessor, theirs: SentenceProcessor) -> bool:
        """Whether two tokenizers know the same tokens."""
        return super().same_input(ours.tokenizer, theirs.tokenizer)

    def length(self, tokenizer: SentenceProcessor) -> int:
        """Tokens of a text at most; by default no more than the model's files say."""
        limit = tokenizer.pooling.longest or self.usual_length
        usual = min(self.usual_length, limit, tokenizer.tokenizer.model_max_length)
        return self.max_length or usual

    def check_model(self, model: PreTrainedModel, features: Features) -> None:
        """Refuse a model that is no encoder alone, or too short for the texts.

        Raises:
            ValueError: It is.
        """
        if model.config.is_encoder_decoder:
            raise ValueError(
                f"--model: a {model.config.model_type} model writes, and --kind embeddings takes "
                "an encoder alone, such as BERT"
            )
        super().check_model(model, features)

    # -------------------------------------------------------------------------- features

    def features(
        self, examples: TextRows, processor: SentenceProcessor, *, seed: int | None = None
    ) -> Features:
        """Rows to learn from; without a seed every text once."""
        from sentei.tasks.embeddings.features import Rows, Sentences

        sentences = Sentences(examples, processor, self.length(processor))
        return sentences if seed is None else Rows(sentences, examples.scores)

    def collator(self, processor: SentenceProcessor) -> Collator:
        """Padding to the longest of a batch."""
        from sentei.tasks.embeddings.features import collator

        return collator(processor)

    @property
    def reference_model(self) -> str | None:
        """As it was named."""
        return self.reference

    def measured_by(self, reference: str) -> Self:
        """The task with a model to measure by, where none is named."""
        return self if self.reference else self.model_copy(update={"reference": reference})

    def refers_to(self, examples: TextRows, *, training: bool) -> bool:
        """Whether some examples need what another model gives for them."""
        if training:
            return any(getattr(self, name) for name in TERMS)
        return examples.places == 1

    def take_targets(self, features: Any, ours: SentenceProcessor, targets: Vectors) -> None:
        """Have features learnt or measured by another model's embeddings of their texts.

        Raises:
            ValueError: They are of another width, and are to be compared number by number.
        """
        sentences = getattr(features, "sentences", features)
        width = targets.shape[1]
        if sentences is not features and width != ours.width:
            named = [name for name in TERMS[:2] if getattr(self, name)]
            if named:
                raise ValueError(
                    f"--teacher: its embeddings have {width} numbers and the model's {ours.width}, "
                    "so that only similarities can be learnt: add --cosine-weight 0 --mse-weight 0"
                )
        sentences.targets = targets

    def embed(
        self,
        features: Any,
        model: PreTrainedModel,
        processor: SentenceProcessor,
        batch_size: int,
        cache: TeacherCache | None = None,
    ) -> Vectors:
        """A model's embeddings of all texts of some features."""
        from sentei.tasks.embeddings.targets import embed

        sentences = getattr(features, "sentences", features)
        return embed(sentences.parts, model, processor, self.length(processor), batch_size, cache)

    # --------------------------------------------------------------------------- metrics

    def loss(self, model: Any, batch: Batch, processor: SentenceProcessor) -> Tensor:
        """The loss of a batch: by another model's embeddings, by labels, and by what hooks add."""
        from sentei.tasks.embeddings import losses

        output = model(**processor.inputs(batch, model))
        ours = processor.vectors(output, batch)
        inside = output.get("loss")  # of hidden states, where a recipe's teacher is asked for them
        terms = [] if inside is None else [inside.float()]
        if (theirs := batch.get("targets")) is not None:
            measures = (losses.cosine_loss, losses.squared_loss, losses.similarity_loss)
            for name, measure in zip(TERMS, measures, strict=True):
                if weight := getattr(self, name):
                    terms.append(weight * measure(ours, theirs))
        numbers = batch["labels"]
        if len(numbers) > 1 and self.label_weight:
            first, others = ours[: numbers.shape[1]], ours[numbers.shape[1] :]
            if (scores := batch.get("scores")) is not None:
                own = losses.score_loss(first, others, scores)
            else:
                own = losses.answer_loss(first, others, numbers[1:].flatten())
            terms.append(self.label_weight * own)
        total: Tensor = sum(terms[1:], terms[0])
        return total

    def predict(
        self, model: PreTrainedModel, batch: Batch, processor: SentenceProcessor
    ) -> Prediction:
        """Vectors beside the numbers of their texts; the loss is the teacher's cosines."""
        from sentei.tasks.embeddings.losses import cosine_loss

        vectors = processor.vectors(model(**processor.inputs(batch, model)), batch)
        theirs, loss, count = batch.get("targets"), 0.0, 0
        if theirs is not None and theirs.shape == vectors.shape:
            # Of equal vectors rounding makes it a little less than 0.
            loss, count = max(float(cosine_loss(vectors, theirs)), 0.0), len(vectors)
        numbers = batch["labels"].flatten().cpu().numpy()
        return Prediction(loss, count, (numbers, vectors.float().cpu().numpy()))

    def metrics(
        self, predictions: Sequence[Prediction], examples: TextRows, features: Any
    ) -> dict[str, float]:
        """By what the examples have.

        Raises:
            ValueError: The model's output is not finite, or texts alone have nothing to be
                compared with.
        """
        import numpy as np

        from sentei.tasks.embeddings import scores
        from sentei.tasks.metrics import check_finite

        numbers, parts = zip(*(one.values for one in predictions), strict=True)
        vectors = np.concatenate(parts)[np.argsort(np.concatenate(numbers))]
        check_finite(vectors)
        names = self.measured(examples)
        if examples.scores is not None:
            binary = two_valued(examples.scores)
            values = scores.pair_scores(vectors, features.rows, examples.scores, binary=binary)
        elif examples.answers:
            values = scores.answer_scores(vectors, features.rows)
        else:
            rows = features.rows[:, 0]
            values = scores.agreement(vectors[rows], features.targets[rows])
        if names[0] not in values:
            raise ValueError(
                f"--metric {names[0]}: the two models' embeddings have different widths; leave the "
                "option out"
            )
        return {name: values[name] for name in names if name in values}


_ANY_TEXT: Final = "One text, 1 \u0378"
"""With a character that no script has, for which a tokenizer needs its unknown token."""
