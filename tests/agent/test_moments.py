"""Second moments kept small: what a sketch gives back of them, and matrices that are never written out."""

import pytest
import torch

from agent.moments import Moment, Sketch, Sketches

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sketched(rows: torch.Tensor, rank: int) -> Moment:
    sketch = Sketch(rows.shape[1], rank, generator(), CPU)
    for part in rows.split(7):
        sketch.add(part)
    return sketch.moment(len(rows))


def matrix(moment: Moment, floor: float = 0.0, exponent: float = 1.0) -> torch.Tensor:
    return moment.power(exponent, floor)(torch.eye(len(moment.vectors)))


def test_a_moment_of_few_directions_comes_back_whole() -> None:
    rows = torch.randn(40, 3, generator=generator(1)) @ torch.randn(3, 24, generator=generator(2))
    moment = sketched(rows, rank=5)
    wanted = rows.T @ rows / 40
    assert moment.mean == pytest.approx(float(wanted.diagonal().mean()), rel=1e-4)
    assert torch.allclose(moment.mean * matrix(moment), wanted, atol=1e-3 * float(wanted.abs().max()))
    assert moment.rest == pytest.approx(0.0, abs=1e-4)


def test_leading_directions_come_first_and_the_rest_keeps_its_mean() -> None:
    scale = torch.tensor([10.0, 5.0] + [1.0] * 30)
    rows = torch.randn(4000, 32, generator=generator(1)) * scale
    moment = sketched(rows, rank=4)
    assert torch.allclose(moment.values[:2], torch.tensor([100.0, 25.0]), rtol=0.1)
    assert int(moment.vectors[:, 0].abs().argmax()) == 0
    assert moment.mean == pytest.approx(float(rows.square().mean()), rel=1e-3)
    assert 0.8 < moment.rest < 1.3  # what a short sketch misses of the first counts here


def test_directions_are_orthonormal_and_values_fall() -> None:
    moment = sketched(torch.randn(100, 20, generator=generator(1)), rank=6)
    assert torch.allclose(moment.vectors.T @ moment.vectors, torch.eye(6), atol=1e-5)
    assert bool((moment.values.diff() <= 0).all())


def test_bfloat16_rows_and_repeated_rows_give_no_negative_energy() -> None:
    rows = torch.randn(3, 64, generator=generator(1)).bfloat16().repeat(200, 1)
    moment = sketched(rows, rank=8)
    assert bool((moment.values >= 0).all())
    assert moment.rest >= 0
    assert bool(torch.isfinite(matrix(moment, floor=0.1, exponent=-0.5)).all())


def test_nothing_has_a_moment_of_nothing_and_stretches_nothing() -> None:
    moment = sketched(torch.zeros(5, 8), rank=2)
    assert moment.mean == 0
    assert torch.equal(matrix(moment, floor=0.1, exponent=-0.5), torch.eye(8))


@pytest.mark.parametrize("exponent", [-0.5, 0.5, 1.0])
def test_a_power_is_that_of_the_moment_over_its_mean_with_the_floor(exponent: float) -> None:
    vectors = torch.linalg.qr(torch.randn(6, 2, generator=generator(3))).Q
    moment = Moment(vectors, torch.tensor([8.0, 2.0]), 0.5)
    whole = (vectors * moment.values) @ vectors.T + 0.5 * (torch.eye(6) - vectors @ vectors.T)
    values, turns = torch.linalg.eigh(whole / whole.diagonal().mean() + 0.1 * torch.eye(6))
    wanted = (turns * values**exponent) @ turns.T
    stretch = moment.power(exponent, 0.1)
    assert torch.allclose(stretch(torch.eye(6)), wanted, atol=1e-5)
    assert torch.allclose(stretch.columns(torch.eye(6)), wanted, atol=1e-5)


def test_sketches_of_one_seed_are_the_same_and_keep_names_apart() -> None:
    def made(seed: int) -> dict[str, Moment]:
        sketches = Sketches(2, seed)
        sketches.add("a", torch.ones(1, 3, 8))
        sketches.add("b", torch.randn(2, 4, generator=generator(1)))
        return sketches.moments(3)

    first, again = made(1), made(1)
    assert set(first) == {"a", "b"}
    assert all(torch.equal(first[name].vectors, again[name].vectors) for name in first)
    assert first["a"].values[0] == pytest.approx(8.0, rel=1e-3)
