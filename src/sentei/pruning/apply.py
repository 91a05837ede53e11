"""Apply: what the modules hold. Sparse weights, but in the optimizer's step and for training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sentei.parts.progress import Progress
from sentei.parts.site import Site
from sentei.pruning.buffers import Buffer
from sentei.pruning.hooks import Hook
from sentei.pruning.ownership import Places
from sentei.pruning.sites import SiteState
from sentei.pruning.state import PruningState
from sentei.sharded import like, version
from sentei.tensors import copy_kept_, cut_up


class Weights:
    """The weights in the modules, and where they come from.

    A latent mask keeps the dense weights aside. The modules hold them in the optimizer's step only,
    and otherwise the sparse weights, which are what is saved. The forward passes of training see
    others in two cases: a random sample where the mask is stochastic; and the dense weights of a
    site whose units have their gates on another, that what reads a pruned unit may learn whether
    it is missed.

    Args:
        state: Of the pruning.
        places: Where the model holds them.
    """

    def __init__(self, state: PruningState, places: Places) -> None:
        self._state = state
        self._places = places
        self._swapped = False
        self._training = False
        self._versions: list[int] = []
        self.sampled_forward = False
        """Whether the gradients of the step under way come from a random sample."""

    @property
    def varies(self) -> bool:
        """Whether forward passes in training see other weights than are saved."""
        sites = self._state.sites.values()
        return self._state.recipe.mask.stochastic or not all(site.gated for site in sites)

    def attach(self) -> list[RemovableHandle]:
        """Know the weights again from here on: whoever writes to them now is not the optimizer.

        Return the hooks by which modules save, and are loaded into, at rest.
        """
        if not self._versions:
            self._remember()
        handles = []
        for owner, leaf, site in self._places.owners if self._state.recipe.mask.latent else ():
            saving = Hook(_Saving(self, leaf, site))
            loading = Hook(lambda *args: self.rest())
            handles.append(owner.register_state_dict_post_hook(saving))
            handles.append(owner.register_load_state_dict_pre_hook(loading))
        return handles

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
        for buffer in state.buffers:
            self._write_buffer(buffer, progress)
        for site_state in () if state.buffers else state.sites.values():
            self._write(site_state, site_state.weight, progress)
        self._training = False
        state.draw(progress.step)

    def _write(self, site_state: SiteState, out: Tensor, progress: Progress) -> None:
        """Write the deterministic weights of a site into ``out``."""
        for piece, weight in zip(self._state.pieces(site_state), cut_up(out), strict=True):
            dense = piece.of(site_state.weight) if self._swapped else piece.dense
            if progress.step and not piece.gated:
                copy_kept_(weight, dense, piece.keep)
            elif progress.step:
                self._state.recipe.mask.write_(weight, dense, piece.keep, piece.memory)
            else:  # nothing has been decided yet
                weight.copy_(dense)

    def _write_buffer(self, buffer: Buffer, progress: Progress, sampled: bool = False) -> None:
        """Write the weights of a buffer's sites: the deterministic ones, or a sample."""
        state, mask, dense = self._state, self._state.recipe.mask, buffer.dense
        out = dense if buffer.latent is None else torch.empty_like(dense)
        memory = state.memory_in(buffer)
        if sampled and buffer.gated:
            mask.sample_(out, dense, buffer.keep, memory)
        elif sampled or not progress.step:  # or nothing has been decided yet
            out = dense
        elif buffer.gated:
            mask.write_(out, dense, buffer.keep, memory)
        else:
            copy_kept_(out, dense, buffer.keep)
        buffer.scatter_(out, buffer.weights)

    def train(self) -> None:
        """Write the weights that a forward pass in training sees, where they are others."""
        state, mask = self._state, self._state.recipe.mask
        sampled = mask.samples(state.settled)
        others = [one for one in state.sites.values() if sampled or not one.gated]
        if self._training or not others:
            return
        for buffer in state.buffers:
            if sampled or not buffer.gated:
                self._write_buffer(buffer, self._now, sampled=True)
        for site_state in () if state.buffers else others:
            pieces = zip(state.pieces(site_state), cut_up(site_state.weight), strict=True)
            for piece, weight in pieces:
                if piece.gated:
                    mask.sample_(weight, piece.dense, piece.keep, piece.memory)
                else:
                    weight.copy_(piece.dense)
        self._training, self.sampled_forward = True, sampled
        if sampled:  # what is dense before a shut gate sends no gradient on: a backward may read it
            self._invalidate()

    def restore(self) -> None:
        """Give the modules their sparse weights after a step of the optimizer that broke off."""
        if self._swapped:
            self.swap()
            self.write(self._now, updated=False)
            self._remember()

    @torch.no_grad()
    def rest(self) -> None:
        """Leave the deterministic sparse weights in the modules, whatever was broken off.

        What somebody else has written over those of training stays.
        """
        self.restore()
        if self._training and not self.written_to:
            self.write(self._now, updated=False)
            if self.sampled_forward:
                self._invalidate()
        self._training = False

    @torch.no_grad()
    def at_rest(self, site: Any) -> Tensor | None:
        """The deterministic weights of a site, as a copy; None where the module holds them."""
        site_state = self._state.sites.get(site)
        if site_state is None or site_state.latent is None:
            return None
        if not self._swapped and (not self._training or self.written_to):
            return None
        out = torch.empty_like(site_state.weight)
        self._write(site_state, out, self._now)
        return out

    def as_held(self, site: Site, weight: Tensor) -> Tensor:
        """What is held here of a site's weights, as the model holds it."""
        return like(site.parameter, weight)

    @property
    def as_written(self) -> bool:
        """Whether the modules hold, bit for bit, what a latent mask makes of the dense weights."""
        same = True
        for site_state in self._state.sites.values():
            if site_state.latent is not None:
                out = torch.empty_like(site_state.weight)
                self._write(site_state, out, self._now)
                if not torch.equal(out, site_state.weight):
                    same = False
        return not self._state.ranks.anywhere(not same)

    def step_done(self) -> None:
        """The weights of a step are written: none of training's are under way."""
        self.sampled_forward = False
        self._remember()

    def forget(self) -> None:
        """Other weights are loaded, with their state."""
        self._versions, self._training, self.sampled_forward = [], False, False

    def check_form(self) -> None:
        """Refuse weights of another device, precision or shape than the masks were made for.

        Raises:
            ValueError: Names the first.
        """
        for site, site_state in self._state.sites.items():
            weight, keep = site_state.weight, site_state.keep
            for was, now, change in (
                (keep.device, weight.device, "move"),
                (site_state.dtype, weight.dtype, "cast"),
                (tuple(keep.shape), tuple(weight.shape), "resize"),
            ):
                if was != now:
                    raise ValueError(
                        f"{site.name} is {_on(now)}, and was {_on(was)} when the pruner was "
                        f"attached: {change} the model first, then attach; or after finish()"
                    )
            if not weight.is_contiguous():
                raise ValueError(
                    f"{site.name} is no longer contiguous in memory, as it was when the pruner was "
                    "attached: set parameter.data = parameter.data.contiguous()"
                )

    def check_untouched(self) -> None:
        """Refuse weights that somebody wrote to while the dense ones are kept aside.

        Raises:
            ValueError: Names the first.
        """
        if self._state.recipe.mask.latent and (name := self.written_to):
            raise ValueError(
                f"{name} was written to between two steps of the optimizer, and this recipe would "
                "undo it, because it keeps the dense weights aside: load weights before "
                "pruner.attach, or with pruner.load_state_dict; write averages into a copy of the "
                "model, and mask that with pruner.mask_"
            )

    @property
    def written_to(self) -> str | None:
        """The first site that somebody else has written to since the last step, as torch counts
        it: not through ``parameter.data``.
        """
        for site, before in zip(self._state.selected, self._versions, strict=False):
            if version(site.parameter) != before:
                return site.name
        return None

    @property
    def _now(self) -> Progress:
        return self._state.progress(self._state.step)

    def _invalidate(self) -> None:
        """Tell autograd that weights have changed which a backward pass may still have to read."""
        torch.autograd.graph.increment_version(site.parameter for site in self._state.sites)
        self._remember()

    def _remember(self) -> None:
        self._versions = [version(site.parameter) for site in self._state.selected]


class _Saving:
    """Puts the weights at rest into a state dict, where the module holds others.

    It does not write to the module: a backward pass may still have to read what that holds.
    """

    def __init__(self, weights: Weights, leaf: str, site: Any) -> None:
        self._weights, self._leaf, self._site = weights, leaf, site

    def __call__(self, module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        weight, key = self._weights.at_rest(self._site), prefix + self._leaf
        if weight is not None and key in state:
            state[key] = self._weights.as_held(self._site, weight)


def _on(what: object) -> str:
    return f"on {what}" if isinstance(what, torch.device) else str(what)
