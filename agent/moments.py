"""Second moments E[x·xᵀ] of wide vectors, seen once and kept small: the leading directions and the mean of the rest.

A layer of a larger model has second moments of gigabytes; a sketch of a hundred columns keeps what matters of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

SPARE = 2  # columns of a sketch for each direction that is kept: the last ones of a sketch are poor
SHIFT = 1e-6  # of the sketch's norm: about what float32 sums are wrong by


@dataclass(frozen=True, slots=True)
class Stretch:
    """The symmetric matrix rest·I + V·diag(extra)·Vᵀ, never written out; V is `vectors` (width, rank)."""

    vectors: torch.Tensor
    extra: torch.Tensor
    rest: float

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Times the matrix: (rows, width) → (rows, width), in the rows' precision."""
        vectors = self.vectors.to(rows)
        return self.rest * rows + ((rows @ vectors) * self.extra.to(rows)) @ vectors.T

    def columns(self, matrix: torch.Tensor) -> torch.Tensor:
        """The matrix times the columns: (width, n) → (width, n)."""
        vectors = self.vectors.to(matrix)
        return self.rest * matrix + vectors @ (self.extra.to(matrix)[:, None] * (vectors.T @ matrix))


@dataclass(frozen=True, slots=True)
class Moment:
    """`vectors` (width, rank) orthonormal, their `values` (rank,), float32, largest first; `rest` is the mean value of
    all directions besides.
    """

    vectors: torch.Tensor
    values: torch.Tensor
    rest: float

    @property
    def mean(self) -> float:
        """Mean energy of a coordinate."""
        width, rank = self.vectors.shape
        mean: float = (float(self.values.sum()) + self.rest * (width - rank)) / width
        return mean

    def power(self, exponent: float, floor: float) -> Stretch:
        """(M / mean(M) + floor·I)^exponent; the identity for a moment of nothing."""
        mean = self.mean
        if not mean > 0:
            return Stretch(self.vectors, torch.zeros_like(self.values), 1.0)
        rest = float((max(self.rest, 0.0) / mean + floor) ** exponent)
        return Stretch(self.vectors, (self.values.clamp_min(0) / mean + floor) ** exponent - rest, rest)


class Sketch:
    """Adds up M·Ω for a random Ω of `SPARE`·rank columns, and gives M back about (the Nyström approximation from
    streaming data: Tropp, Yurtsever, Udell and Cevher 2017). Sums are float32: bfloat16 sums are not positive.
    """

    def __init__(self, width: int, rank: int, generator: torch.Generator, device: torch.device) -> None:
        self._rank = min(rank, width)
        random = torch.randn(width, min(width, SPARE * rank), generator=generator, dtype=torch.float64)
        self._test = torch.linalg.qr(random).Q.float().to(device)
        self._sum = torch.zeros_like(self._test)
        self._trace = torch.zeros((), device=device)

    def add(self, rows: torch.Tensor) -> None:
        """Rows (n, width) of any float type."""
        x = rows.float()
        self._sum.addmm_(x.T, x @ self._test)
        self._trace += x.square().sum()

    def moment(self, num_rows: int) -> Moment:
        """The mean over so many rows of x·xᵀ."""
        test, total = self._test.cpu().double(), self._sum.cpu().double() / num_rows
        trace = float(self._trace) / num_rows
        shift = SHIFT * float(torch.linalg.matrix_norm(total, 2)) if trace > 0 else 0.0
        if shift == 0:
            return Moment(test[:, : self._rank].float(), torch.zeros(self._rank), 0.0)
        shifted = total + shift * test
        inner = test.T @ shifted
        sizes, turns = torch.linalg.eigh((inner + inner.T) / 2)
        factor = shifted @ (turns * sizes.clamp_min(shift).rsqrt())
        vectors, roots, _ = torch.linalg.svd(factor, full_matrices=False)
        values = (roots.square() - shift).clamp_min(0)[: self._rank]
        others = len(test) - self._rank
        rest = max(trace - float(values.sum()), 0.0) / others if others else 0.0
        return Moment(vectors[:, : self._rank].float().contiguous(), values.float(), rest)


class Sketches:
    """A sketch for each name, begun when its first rows come."""

    def __init__(self, rank: int, seed: int) -> None:
        self._rank = rank
        self._generator = torch.Generator().manual_seed(seed)
        self._of: dict[str, Sketch] = {}

    def add(self, name: str, rows: torch.Tensor) -> None:
        """Rows (..., width) of one name; every call for a name has the same width."""
        rows = rows.flatten(0, -2)
        if name not in self._of:
            self._of[name] = Sketch(rows.shape[-1], self._rank, self._generator, rows.device)
        self._of[name].add(rows)

    def moments(self, num_rows: int, tell: Callable[[], None] = lambda: None) -> dict[str, Moment]:
        found = {}
        for name, sketch in self._of.items():
            found[name] = sketch.moment(num_rows)
            tell()
        return found
