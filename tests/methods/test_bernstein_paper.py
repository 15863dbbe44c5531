"""The printed radius: what it answers on exact witnesses, how often it is too large, and its solvers."""
from __future__ import annotations

import numpy as np
import pytest

from robust_smooth.maths.boxes import sound_radius
from robust_smooth.maths.polynomials import coefficients
from robust_smooth.methods.bernstein_paper import root_radius, root_system


def random_head(rng, d, K=10, hidden=32):
    "A ReLU network with random weights: several decision regions in the cube."
    sizes, gains = (d, hidden, hidden, K), (3.5, 2.1, 2.1)
    shapes = zip(sizes, sizes[1:], gains)
    layers = [(rng.normal(size=(a, b)) * gain / np.sqrt(a), 0.7 * rng.normal(size=b)) for a, b, gain in shapes]
    (first, one), (second, two), (third, three) = layers

    def head(x):
        x = np.maximum((x - 0.5) @ first + one, 0)
        return np.maximum(x @ second + two, 0) @ third + three

    return head


FIRST = np.array([[-18 / 125, 52 / 125, 107 / 750, 9 / 250], [0] * 4])
SECOND = np.array([[-9 / 25, 28 / 75, 161 / 25, -54 / 25], [0] * 4])


@pytest.mark.parametrize(
    "table, x0, printed, true", [(FIRST, 0.5, 0.5, 0.4), (FIRST, 0.8, 0.2, 0.7), (SECOND, 0.54, 0.44, 0.36)]
)
def test_exact_witnesses(table, x0, printed, true):
    assert abs(root_radius(table, [x0]) - printed) < 1e-5
    result = sound_radius(table, [x0], rtol=1e-8)
    assert result.lower <= true * (1 + 1e-15) and abs(result.upper - true) < 1e-7


def test_what_a_root_says_of_itself():
    root = root_radius(FIRST, [0.5])
    assert isinstance(root, float) and root.mode == "paper" and root.left_cube
    assert len(root_system(FIRST, [0.5])(np.array([0.5]))) == 2


def test_mostly_too_large_and_the_floor_holds():
    over, floor = 0, []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        table, x0 = coefficients(random_head(rng, 3), 3, 3), rng.uniform(size=3)
        root, sound = root_radius(table, x0), sound_radius(table, x0)
        over += bool(root > sound.upper * 1.001)
        span = table.max() - table.min()
        with np.errstate(over="ignore"):
            floor.append(root.residual >= (3 - 2) / (2 * (1 + 9 * np.exp(span)) ** 2))
        assert sound.lower <= sound.upper
    assert over >= 25 and all(floor)


def test_constant_and_solvers():
    rng = np.random.default_rng(0)
    table, x0 = coefficients(random_head(rng, 2), 2, 3), rng.uniform(size=2)
    for C in (1, 2, 100, np.inf):
        assert 0 <= root_radius(table, x0, "l2", C=C) <= np.sqrt(2)
    for solver in ("lm", "dogbox", "trf"):
        assert root_radius(table, x0, "linf", solver=solver) <= 1
    half, whole = (root_system(table, x0, C)(x0)[0] for C in (2, np.inf))
    assert abs(half - whole / 2) < 1e-12
    with pytest.raises(ValueError, match="C must"): root_radius(table, x0, C=0.5)
    with pytest.raises(ValueError, match="solver"): root_radius(table, x0, solver="newton")
    with pytest.raises(ValueError, match="d <= K"): root_radius(np.ones((2, 2, 2, 2)), np.full(3, 0.5))
