"""A matrix by what is not zero: what kernels are packed from, whether it was dense or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Nonzeros:
    """The nonzeros of a matrix, row by row; arrays of (n,), columns rising within a row."""

    shape: tuple[int, int]
    rows: Array
    columns: Array
    values: Array
    """fp32."""

    @staticmethod
    def of(weight: Array) -> Nonzeros:
        """Of a dense matrix, fp32 (out, in)."""
        outputs, inputs = weight.shape
        kept = weight != 0
        rows = np.repeat(np.arange(outputs, dtype=np.int32), kept.sum(axis=1))
        columns = np.flatnonzero(kept).astype(np.int32) - rows * np.int32(inputs)
        return Nonzeros((outputs, inputs), rows, columns, weight[kept])

    @staticmethod
    def at(shape: tuple[int, int], places: Array, values: Array) -> Nonzeros:
        """Of values at places in the flattened matrix, which rise; zeros among them are left out.

        Args:
            shape: Of the matrix.
            places: (n,) integers.
            values: (n,) fp32.
        """
        kept = values != 0
        if not kept.all():
            places, values = places[kept], values[kept]
        rows, columns = np.divmod(places, max(shape[1], 1))
        return Nonzeros(shape, rows, columns, values)

    def times(self, factor: float) -> Nonzeros:
        """The matrix multiplied; what becomes zero is left out."""
        if factor == 1:
            return self
        values = self.values * np.float32(factor)
        kept = values != 0
        if kept.all():
            return Nonzeros(self.shape, self.rows, self.columns, values)
        return Nonzeros(self.shape, self.rows[kept], self.columns[kept], values[kept])

    def counts(self) -> Array:
        """(out,): nonzeros of each row."""
        return np.bincount(self.rows, minlength=self.shape[0])


class Sparse(Protocol):
    """A matrix that lies somewhere as its nonzeros, which are read when they are needed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)"""

    def nonzeros(self) -> Nonzeros:
        """What is not zero.

        Raises:
            Unsupported: A weight is not finite.
        """
