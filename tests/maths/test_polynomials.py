"""Bernstein polynomials against exact arithmetic: values, bases, slopes, restrictions, and what they refuse."""
from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from robust_smooth.maths.polynomials import basis, coefficients, evaluate, gradient, restrict, slopes


def random_table(rng, d, n, K):
    return rng.normal(size=(K, *(n + 1,) * d)) + rng.normal(size=(K, *(1,) * d))


def exact_value(table, x):
    "The Bernstein polynomial in rational arithmetic."
    net = np.vectorize(Fraction)(table).astype(object)
    for t in reversed([Fraction(float(v)) for v in x]):
        n = net.shape[-1] - 1
        weights = np.array([math.comb(n, k) * t ** k * (1 - t) ** (n - k) for k in range(n + 1)], dtype=object)
        net = net @ weights
    return net


@pytest.mark.parametrize("d, n", [(1, 1), (1, 7), (1, 60), (2, 13), (3, 5), (5, 2), (6, 1)])
def test_evaluation_against_rationals(d, n):
    rng = np.random.default_rng(d * 100 + n)
    table = rng.normal(size=(2, *(n + 1,) * d)) * 10.0 ** rng.integers(-3, 4)
    inner, near_zero, near_one = rng.uniform(size=d), rng.uniform(size=d) * 1e-9, 1 - rng.uniform(size=d) * 1e-9
    for x in (inner, near_zero, near_one, np.zeros(d), np.ones(d)):
        exact = np.array([float(v) for v in exact_value(table, x)])
        assert np.abs(evaluate(table, x) - exact).max() <= 1e-13 * np.abs(table).max()


def test_degree_2000():
    # B_n of cos(20 x) is the real part of (1 - x + x exp(20 i / n))^n
    table = coefficients(lambda x: np.cos(20 * x), 1, 2000)
    for x in (0.0, 1e-12, 0.001, 0.37, 0.5, 0.999, 1.0):
        with mpmath.workdps(40):
            step = mpmath.expj(mpmath.mpf(20) / 2000)
            exact = float(mpmath.re((1 - mpmath.mpf(x) + mpmath.mpf(x) * step) ** 2000))
        assert abs(evaluate(table, [x])[0] - exact) < 1e-11


@pytest.mark.parametrize(
    "n, k, t",
    [
        (7, 3, 0.3), (60, 20, 0.3), (60, 60, 1e-3), (400, 0, 0.01), (2000, 1000, 0.5),
        (2000, 100, 0.0625), (2000, 1990, 0.999),
    ],
)
def test_basis_against_mpmath(n, k, t):
    with mpmath.workdps(50):
        exact = mpmath.binomial(n, k) * mpmath.mpf(t) ** k * (1 - mpmath.mpf(t)) ** (n - k)
    got = basis(n, t)
    assert abs(got[k] / float(exact) - 1) < 1e-13 * max(1, n / 50)
    assert abs(got.sum() - 1) < 1e-13 * max(1, n / 50)


def test_affine_corners_axes_batches():
    rng = np.random.default_rng(0)
    w, degrees = rng.normal(size=4), (1, 3, 2, 4)
    table = coefficients(lambda x: np.stack([x @ w + 1, x[:, 2]], 1), 4, degrees)
    assert table.shape == (2, 2, 4, 3, 5)
    x = rng.uniform(size=(3, 7, 4))
    got = evaluate(table, x)
    assert got.shape == (3, 7, 2)
    assert np.abs(got[..., 0] - x @ w - 1).max() < 1e-14 and np.abs(got[..., 1] - x[..., 2]).max() < 1e-14
    for corner in np.ndindex(2, 2, 2, 2):
        assert np.array_equal(evaluate(table, np.array(corner)), table[(slice(None), *(-c for c in corner))])
    one_by_one = np.stack([[evaluate(table, p) for p in row] for row in x])
    assert np.abs(one_by_one - got).max() < 1e-13


def test_slopes_bound_the_gradient():
    rng = np.random.default_rng(4)
    for d, n in ((1, 70), (2, 7), (4, 2)):
        table, x = random_table(rng, d, n, 3), rng.uniform(size=(40, d))
        step, middle = 1e-6, np.clip(x, 0.1, 0.9)
        sides = [(evaluate(table, middle + step * e), evaluate(table, middle - step * e)) for e in np.eye(d)]
        numeric = np.stack([(up - down) / (2 * step) for up, down in sides], -1)
        assert np.abs(gradient(table, middle) - numeric).max() < 1e-6 * n * np.abs(table).max()
        assert np.all(np.abs(gradient(table, x)) <= slopes(table))


def test_restriction_and_hull():
    rng = np.random.default_rng(2)
    for d, n in ((1, 100), (2, 7), (4, 2)):
        table = random_table(rng, d, n, 3)
        low, high = rng.uniform(0, 0.4, size=d), rng.uniform(0.5, 1, size=d)
        inner, t = restrict(table, low, high), rng.uniform(size=(50, d))
        values = evaluate(table, low + t * (high - low))
        assert np.abs(evaluate(inner, t) - values).max() < 1e-12
        largest, before = inner.reshape(3, -1).max(1), table.reshape(3, -1).max(1)
        assert np.all(values <= largest + 1e-12) and np.all(largest <= before + 1e-12)


@pytest.mark.parametrize("call, error, words", [
    (lambda: coefficients(lambda x: x, 0, 1), ValueError, "d must"),
    (lambda: coefficients(lambda x: x, 2, 1.5), ValueError, "n must"),
    (lambda: coefficients(lambda x: x, 2, (1, 0)), ValueError, "n must"),
    (lambda: coefficients(lambda x: x, 2, (1, 2, 3)), ValueError, "n must"),
    (lambda: coefficients(lambda x: x[:1], 2, 1), ValueError, "returned shape"),
    (lambda: coefficients(lambda x: x, 30, 1), MemoryError, "1073741824"),
    (lambda: evaluate(np.ones((2, 2)), [1.0001]), ValueError, r"\[0, 1\]"),
    (lambda: evaluate(np.ones((2, 2)), [np.nan]), ValueError, r"\[0, 1\]"),
    (lambda: evaluate(np.ones((2, 2)), [0.1, 0.2]), ValueError, "1 features"),
    (lambda: evaluate(np.full((2, 2), np.nan), [0.1]), ValueError, "finite"),
    (lambda: evaluate(np.ones((2, 1)), [0.1]), ValueError, "shape"),
    (lambda: restrict(np.ones((2, 2)), [0.5], [0.5]), ValueError, "low must be below"),
])
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words): call()


def test_the_mathematics_needs_no_torch():
    rooms = "polynomials nearest boxes quick"
    code = (
        f"import sys, importlib\nfor room in '{rooms}'.split(): importlib.import_module('robust_smooth.maths.' + "
        "room)\n"
    )
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)
