"""Apply: what the modules hold. Sparse weights, but in the optimizer's step, and for samples."""

from __future__ import annotations

from sentei.parts.progress import Progress
from sentei.pruning.state import PruningState


class Weights:
    """The weights in the modules, and where they come from.

    A latent mask keeps the dense weights aside. The modules hold them in the optimizer's step only,
    a random sample in the forward passes of training where the mask is stochastic, and otherwise
    the sparse weights, which are what is saved.

    Args:
        state: Of the pruning.
    """

    def __init__(self, state: PruningState) -> None:
        self._state = state
        self._swapped = False
        self._sampled = False
        self._versions: list[int] = []
        self.sampled_forward = False
        """Whether the gradients of the step under way come from a sample."""

    def attach(self) -> None:
        """Know the weights again from here on: whoever writes to them now is not the optimizer."""
        if not self._versions:
            self._remember()

    def swap(self) -> None:
        """Exchange sparse and dense weights, where the mask keeps the dense ones aside."""
        if self._state.recipe.mask.latent:
            self._swapped = not self._swapped
            for site_state in self._state.sites.values():
                site_state.swap()

    def write(self, progress: Progress, *, updated: bool) -> None:
        """Make the modules' weights sparse; ``updated`` says that a decision has just been made."""
        state, mask = self._state, self._state.recipe.mask
        if not (updated or mask.holds(progress)):
            return
        for site_state in state.sites.values():
            for piece in state.pieces(site_state):
                weight = piece.of(site_state.weight)
                if progress.step:
                    mask.write_(weight, piece.dense, piece.keep, piece.memory)
                else:  # nothing has been decided yet
                    weight.copy_(piece.dense)
        self._sampled = False
        state.draw(progress.step)

    def sample(self) -> None:
        """Write a sample of the weights, for a forward pass in training."""
        state, mask = self._state, self._state.recipe.mask
        if self._sampled or not mask.samples(state.settled):
            return
        for site_state in state.sites.values():
            for piece in state.pieces(site_state):
                mask.sample_(piece.of(site_state.weight), piece.dense, piece.keep, piece.memory)
        self._sampled = self.sampled_forward = True

    def restore(self, progress: Progress) -> None:
        """Give the modules their sparse weights after a step of the optimizer that broke off."""
        if self._swapped:
            self.swap()
            self.write(progress, updated=False)
            self._remember()

    def rest(self, progress: Progress) -> None:
        """Leave the deterministic sparse weights in the modules, whatever was broken off."""
        self.restore(progress)
        if self._sampled:
            self.write(progress, updated=False)

    def step_done(self) -> None:
        """The weights of a step are written: no sample is under way."""
        self.sampled_forward = False
        self._remember()

    def forget(self) -> None:
        """Other weights are loaded, with their state."""
        self._versions, self._sampled, self.sampled_forward = [], False, False

    def check_untouched(self) -> None:
        """Refuse weights that moved to another device, or that somebody wrote to.

        Raises:
            ValueError: Names the first.
        """
        for site, site_state in self._state.sites.items():
            if site_state.keep.device != site_state.weight.device:
                raise ValueError(
                    f"{site.name} is on {site_state.weight.device}, and was on "
                    f"{site_state.keep.device} when the pruner was attached: move the model "
                    "first, then attach"
                )
        for site, version in zip(self._state.selected, self._versions, strict=False):
            if site.parameter._version != version:
                raise ValueError(
                    f"{site.name} was written to between two steps of the optimizer, and this "
                    "recipe would undo it, because it keeps the dense weights aside: load weights "
                    "before pruner.attach, or with pruner.load_state_dict"
                )

    def _remember(self) -> None:
        if self._state.recipe.mask.latent:
            self._versions = [site.parameter._version for site in self._state.selected]
