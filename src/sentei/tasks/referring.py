"""What a task asks of another model: what it learns from by itself, or is measured by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sentei.tasks.source import CorpusSource

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

    from sentei.data.features import Features
    from sentei.distill.cache import TeacherCache
    from sentei.recipe import Recipe

    Batch = dict[str, torch.Tensor]


class Referring(CorpusSource):
    """A task that may refer to another model; most do not."""

    refers: ClassVar[bool] = False
    """Whether it learns from, or is measured by, what another model gives for its examples, so that
    its loss is :meth:`loss` and not its model's own."""

    usual_training: ClassVar[Mapping[str, Any]] = {}
    """Settings of training that have another default for it."""

    library: ClassVar[str] = "transformers"
    """What loads its models, as the hub calls it."""

    def lesson(self, examples: Any) -> str:
        """What a model learns of some examples, in words: "to embed 9 texts as {teacher} does"."""
        return ""

    def adapt(self, recipe: Recipe) -> Recipe:
        """A recipe as it is for this task."""
        return recipe

    @property
    def reference_model(self) -> str | None:
        """The model that texts are measured by, where one is named."""
        return None

    def measured_by(self, reference: str) -> Self:
        """The task with a model to measure by, where none is named."""
        return self

    def refers_to(self, examples: Any, *, training: bool) -> bool:
        """Whether some examples need what another model gives for them."""
        return False

    def embed(
        self,
        features: Features,
        model: PreTrainedModel,
        processor: Any,
        batch_size: int,
        cache: TeacherCache | None = None,
    ) -> NDArray[np.float32]:
        """What a model gives for all that some features were made of.

        Args:
            features: They.
            model: The model, which stays where it is.
            processor: Makes its input.
            batch_size: Examples at a time.
            cache: Where it is kept.
        """
        raise NotImplementedError

    def take_targets(self, features: Features, ours: Any, targets: NDArray[np.float32]) -> None:
        """Have features learnt or measured by what another model gives.

        Args:
            features: They.
            ours: The processor of the model that learns.
            targets: Of :meth:`embed`.

        Raises:
            ValueError: The two models do not fit each other.
        """
        raise NotImplementedError

    def loss(self, model: Any, batch: Batch, processor: Any) -> Tensor:
        """The loss of a batch, where it is not the model's own."""
        raise NotImplementedError
