"""Packed models in transformers' own ``from_pretrained``, through its registry of quantisers.

What it gives is a plain model: the numbers of the files, dense, with nothing left that says where
they came from. So it trains, moves, casts and is saved as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from sentei.models.contents import PACKED
from sentei.models.pretrained import check_numbers
from sentei.pack.files import File
from sentei.pack.format import check_version


def register() -> None:
    """Have transformers load packed models."""
    register_quantization_config(PACKED)(PackedConfig)
    register_quantizer(PACKED)(PackedQuantizer)


class PackedConfig(QuantizationConfigMixin):
    """What ``config.json`` says of a packed model.

    Args:
        version: Of the format.
        others: What the numbers are written as; each tensor says that of itself too.

    Raises:
        ValueError: It is of another version.
    """

    dequantize = True
    """Once loaded, a model is none of this quantiser: transformers forgets it."""

    def __init__(self, version: Any = None, **others: Any) -> None:
        check_version("the model", version)
        del others
        self.quant_method: Any = PACKED
        self.version = version


class PackedQuantizer(HfQuantizer):
    """Lets packed tensors be decoded, one by one, where transformers puts weights in their place.

    Args:
        quantization_config: The model's.
        kwargs: As of :class:`HfQuantizer`.

    Raises:
        ValueError: The model is not packed.
    """

    def __init__(self, quantization_config: PackedConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._paths: tuple[str, ...] = ()
        self.offloads = False
        """Whether parameters of the model that is loaded stay on disk."""
        if not self.pre_quantized:
            raise ValueError(
                "transformers packs no models: write this one with save_pretrained, and give its "
                "folder to sentei.pack.pack or sentei pack"
            )

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """See where parameters will be: a map of devices comes here when it is complete."""
        del args, kwargs
        self.offloads = isinstance(device_map, dict) and "disk" in device_map.values()

    def get_new_dtype(self, converter: Any, param: Any, dtype: Any) -> Any:
        """What transformers casts a tensor of a file to: None where it is decoded first."""
        from sentei.pack.loading import casts

        return None if casts(converter, dtype) else super().get_new_dtype(converter, param, dtype)

    def update_weight_conversions(self, weight_conversions: Any, model: PreTrainedModel) -> Any:
        """What stands between the tensors of the files and the model's."""
        from sentei.pack.loading import unpacking  # transformers' loading imports quantisers

        if not self._paths:  # weights that are given, and no files
            return weight_conversions
        files = [File(Path(path)) for path in self._paths]
        tensors = (*model.parameters(), *model.buffers())
        check_numbers(
            sum(tensor.numel() for tensor in tensors), sum(file.numbers() for file in files)
        )
        owners = {name: file for file in files for name in file.names}
        return unpacking(weight_conversions, owners, model)

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        del kwargs
        if getattr(model.config, "distributed_config", None) is not None:
            raise ValueError(
                "a packed model is not loaded in shards of several processes: unpack it with "
                "sentei unpack, and load that"
            )
        self._paths = tuple(checkpoint_files or ())

    def _process_model_after_weight_loading(
        self, model: PreTrainedModel, **kwargs: Any
    ) -> PreTrainedModel:
        from sentei.pack.loading import as_before

        del kwargs
        # Saving turns conversions back: decoding is none of them.
        loaded: Any = model
        loaded._weight_conversions = as_before(loaded._weight_conversions)
        return model

    def is_serializable(self) -> bool:
        """Whether a loaded model can be saved: it is plain, and is saved as such."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether a loaded model can be trained."""
        return True
