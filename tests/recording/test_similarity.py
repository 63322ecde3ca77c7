"""Cosines of hidden states: in [-1, 1], blind to scale, and exact enough in every precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays

from vlm_analysis.recording.similarity import group_means, token_cosine, units_and_norms

EPSILON = 1e-6
numbers = st.floats(-1e3, 1e3, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
vectors = arrays.arrays(np.float32, (3, 8), elements=numbers).filter(lambda x: bool((np.abs(x).max(1) > 0).all()))


def cosines(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return token_cosine(units_and_norms(one.float())[0], units_and_norms(other.float())[0])


def exact(one: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    x, y = one.double().numpy(), other.double().numpy()
    return (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)


@given(vectors, vectors)
def test_a_cosine_lies_between_minus_one_and_one_and_is_that_of_float64(one: np.ndarray, other: np.ndarray) -> None:
    x, y = torch.from_numpy(one), torch.from_numpy(other)
    found = cosines(x, y)
    assert found.dtype == torch.float32
    assert found.abs().max() <= 1 + EPSILON
    np.testing.assert_allclose(found.numpy(), exact(x, y), atol=EPSILON)


@given(vectors)
def test_identical_gives_one_and_opposite_minus_one(one: np.ndarray) -> None:
    x = torch.from_numpy(one)
    np.testing.assert_allclose(cosines(x, x).numpy(), 1, atol=EPSILON)
    np.testing.assert_allclose(cosines(x, -x).numpy(), -1, atol=EPSILON)


@given(vectors, vectors, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_scale_does_not_matter(one: np.ndarray, other: np.ndarray, first: float, second: float) -> None:
    x, y = torch.from_numpy(one), torch.from_numpy(other)
    np.testing.assert_allclose(cosines(x * first, y * second).numpy(), cosines(x, y).numpy(), atol=2 * EPSILON)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float16, 60_000.0), (torch.bfloat16, 3e38), (torch.float32, 3e38)])
def test_a_huge_norm_does_not_overflow(dtype: torch.dtype, size: float) -> None:
    x = torch.full((2, 64), size, dtype=dtype)
    y = x.clone()
    y[:, ::2] *= -1
    assert cosines(x, x).tolist() == pytest.approx([1, 1], abs=EPSILON)
    assert cosines(x, y).tolist() == pytest.approx([0, 0], abs=EPSILON)


@pytest.mark.parametrize("size", [1e-30, 1e-38])
def test_a_tiny_norm_does_not_vanish(size: float) -> None:
    x = torch.full((1, 4), size)
    assert cosines(x, x).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_before_the_product(dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(32, 256, generator=rng).to(dtype)
    y = (x.float() + 0.03 * torch.randn(32, 256, generator=rng)).to(dtype)  # cosines of about 0.9995
    np.testing.assert_allclose(cosines(x, y).numpy(), exact(x, y), atol=EPSILON)
    narrow = torch.nn.functional.cosine_similarity(x, y, dim=-1).double().numpy()
    assert np.abs(narrow - exact(x, y)).max() > 50 * EPSILON  # what the widening is for


def test_a_zero_vector_has_cosine_zero_and_nan_stays_nan() -> None:
    x = torch.tensor([[0.0, 0.0], [torch.nan, 1.0], [torch.inf, 1.0]])
    found = cosines(x, torch.ones(3, 2))
    assert found[0] == 0
    assert found[1:].isnan().all()


def test_norms_are_float64_and_do_not_overflow() -> None:
    states = torch.full((2, 64), 3e38)
    found = units_and_norms(states)[1]
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), 3e38 * 8, rtol=1e-6)


@given(arrays.arrays(np.float32, (3, 6), elements=numbers), arrays.arrays(np.bool_, (4, 6)))
def test_group_means_are_those_of_numpy_and_nan_for_an_empty_group(values: np.ndarray, groups: np.ndarray) -> None:
    found = group_means(values.astype(np.float64), groups)
    assert found.shape == (3, 4)
    for column, members in zip(found.T, groups, strict=True):
        wanted = values[:, members].astype(np.float64).mean(1) if members.any() else np.full(3, np.nan)
        np.testing.assert_allclose(column, wanted, rtol=1e-12, atol=1e-12)


def test_a_value_that_is_no_number_spoils_its_own_group_only() -> None:
    values = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, np.inf]])
    found = group_means(values, np.array([[True, False, True], [False, True, False], [True, False, False]]))
    np.testing.assert_array_equal(found, [[2, np.nan, 1], [np.inf, 5, 4]])
