"Radii from counts against the definition of the promise at 40 digits: the votes were improbable at the edge of the radius, and no more than that is given away."
import mpmath
import numpy as np
import pytest

import robust_smooth as rs
from robust_smooth.core.values import ABSTAIN

DIGITS = 40


def tail(k: int, n: int, p: mpmath.mpf, q: mpmath.mpf) -> mpmath.mpf:
    "Pr[Bin(n, p) >= k], q = 1 - p, by the continued fraction of the incomplete beta function (modified Lentz)."
    if k <= 0 or q <= 0: return mpmath.mpf(1)
    if p * (n + 3) > k + 1: return 1 - tail(n - k + 1, n, q, p)
    a, b = mpmath.mpf(k), mpmath.mpf(n - k + 1)
    front = (
        mpmath.exp(
            a * mpmath.log(p) + b * mpmath.log(q) + mpmath.loggamma(a + b) - mpmath.loggamma(a) - mpmath.loggamma(b)
        )
        / a
    )
    fraction, upper, lower, m = mpmath.mpf(0), mpmath.mpf(1), 1 / (1 - (a + b) * p / (a + 1)), 1
    fraction = lower
    while True:
        for step in (
            m * (b - m) * p / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * p / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            lower, upper = 1 / (1 + step * lower), 1 + step / upper
            fraction *= lower * upper
        if abs(lower * upper - 1) < mpmath.mpf(10) ** (3 - DIGITS): return front * fraction
        m += 1


def questions(count: int):
    "n from a few to 10^7, alpha from 10^-60 to nearly 1, unanimous votes, votes just above one half, and all between."
    rng = np.random.default_rng(8)
    for _ in range(count):
        n = int(10 ** rng.uniform(0.7, 7))
        few, half = n - int(rng.integers(0, 20)), n // 2 + int(rng.integers(0, 8) * n**0.5 / 2) + 1
        k = int(rng.choice([n, max(few, 0), min(half, n), rng.integers(0, n + 1)]))
        yield (
            k,
            n,
            float(rng.choice([10 ** -rng.uniform(0.1, 6), 10 ** -rng.uniform(6, 60), rng.uniform(0.3, 0.99)])),
            float(10 ** rng.uniform(-5, 5)),
        )


def test_gaussian_radii():
    with mpmath.workdps(DIGITS):
        for j, (k, n, alpha, sigma) in enumerate(questions(35)):
            norm, d = ("l2", "l1", "linf")[j % 3], 10 ** (j % 7)
            table = rs.Record.from_counts([[1, 0]], [[k, n - k]], n, rs.Gaussian(sigma=sigma), d).certify(
                norm, method="gaussian", alpha=alpha
            )
            z = mpmath.mpf(float(table.radius[0])) / mpmath.mpf(sigma) * (mpmath.sqrt(d) if norm == "linf" else 1)
            p, q = (mpmath.erfc(sign * z / mpmath.sqrt(2)) / 2 for sign in (-1, 1))
            if table.label[0] == ABSTAIN: p, q = mpmath.mpf(1) / 2, mpmath.mpf(1) / 2
            else: assert tail(k, n, p, q) <= alpha
            wider = q * (1 - mpmath.mpf(10) ** -8)
            assert tail(k, n, 1 - wider, wider) > alpha or k == 0


@pytest.mark.parametrize("adversary", ["quantised", "continuous"])
def test_uniform_radii_and_whole_steps(adversary):
    with mpmath.workdps(DIGITS):
        for j, (k, n, alpha, lam) in enumerate(questions(40)):
            q = (1, 3, 16, 255)[j % 4]
            real, grid = rs.Uniform(lam=lam), rs.RoundedUniform(lam=(1 + j % 5) / (2 * q) if j % 2 else 0.7, q=q)
            votes = [rs.Record.from_counts([[1, 0]], [[k, n - k]], n, noise, 5) for noise in (real, grid)]
            table = votes[0].certify("l1", method="uniform", alpha=alpha)
            p = mpmath.mpf(1) / 2 + mpmath.mpf(float(table.radius[0])) / (2 * mpmath.mpf(lam))
            assert table.label[0] == ABSTAIN or tail(k, n, p, 1 - p) <= alpha
            table = votes[1].certify("l1", method="uniform", alpha=alpha, adversary=adversary)
            if table.label[0] == ABSTAIN: continue
            steps = int(table.steps[0]) if adversary == "quantised" else round(float(table.radius[0]) * 2 * q) - 1
            for moved in (steps, steps + 1): # so many are proved, and one more is not
                p = mpmath.mpf(1) / 2 + mpmath.mpf(moved) / (2 * mpmath.mpf(grid.lam) * q)
                if p < 1: assert (tail(k, n, p, 1 - p) < alpha) == (moved == steps)
