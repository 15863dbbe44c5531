"Noise on a grid: what is promised after rounding, what before it, and a network that tells them apart."
import numpy as np
import pytest
import torch

import robust_smooth as rs
from robust_smooth.core.record import Record
from robust_smooth.core.registry import find_methods

NOISES = {"l2": rs.RoundedGaussian(sigma=0.5, q=16), "l1": rs.RoundedUniform(lam=0.5, q=16)}
COUNTS = np.array([[9990, 10], [7000, 3000], [5200, 4800], [3, 9997]])


def record(noise) -> Record:
    return Record.from_counts(COUNTS // 100, COUNTS, 10_000, noise, 100)


PAIRS = [
    ("l2", "gaussian"), ("l2", "tcertify"), ("l2", "exact"), ("l1", "gaussian"), ("linf", "gaussian"),
    ("l1", "uniform"), ("l1", "exact"),
]


@pytest.mark.parametrize("norm, method", PAIRS)
def test_half_the_radius_holds_against_real_perturbations(norm, method):
    in_steps = (norm, method) in (("l1", "uniform"), ("l1", "exact"))
    noise = NOISES["l1" if in_steps else "l2"]
    plain = record(noise).certify(norm, method=method)
    real = record(noise).certify(norm, method=method, adversary="continuous")
    assert (plain.adversary, real.adversary, plain.levels, real.levels) == ("quantised", "continuous", 16, 16)
    assert np.array_equal(plain.label, real.label) and (plain.radius > 0).sum() >= 3
    if in_steps:
        assert (
            np.array_equal(real.radius, np.where(real.label >= 0, (plain.steps + 1) / 32, 0.0)) and real.steps is None
        )
    else:
        assert np.array_equal(real.radius, plain.radius / 2)
    assert rs.check(plain).all() and rs.check(real).all()


@pytest.mark.parametrize("change", [dict(adversary="quantised"), dict(levels=255), dict(adversary=None)])
def test_a_relabelled_adversary_is_refused(change):
    from dataclasses import replace
    real = record(NOISES["l2"]).certify("l2", method="gaussian", adversary="continuous")
    assert not rs.check(replace(real, **change)).any()


@pytest.mark.parametrize("noise", [rs.Gaussian(sigma=0.5), rs.Uniform(lam=0.5), rs.RadialGaussian(sigma=0.5, k=3)])
def test_noise_without_a_grid_knows_no_adversary(noise):
    norm = "l1" if isinstance(noise, rs.Uniform) else "l2"
    for method in find_methods(type(noise).__name__, norm):
        if not method.needs and not method.sequential:
            with pytest.raises(ValueError, match="adversary|on a grid"):
                record(noise).certify(norm, method=method.name, adversary="continuous")


def test_the_fault_that_asked_for_this():
    "A real change of l2 norm .3126 flips a point certified to more, once it is rounded; against real changes the point is certified to less."
    d, q, changed = 100, 16, 0.3126
    noise, x = rs.RoundedGaussian(sigma=0.5, q=q), torch.full((1, d), 8 / q)
    shifted = ((x + changed / d**0.5) * q).round() / q  # each entry a half step and a bit: rounded to a whole one
    away = float((shifted - x).norm())
    assert changed < away < 2 * changed
    middle = float((shifted + x).sum()) / 2
    def network(v): return torch.stack([middle - v.sum(1), v.sum(1) - middle], 1) * 10
    smooth = rs.Smoothed(network, noise)
    first, second = (smooth.vote(point, n=20_000, n0=100, progress=False) for point in (x, shifted))
    assert first.selected != second.selected
    plain, real = first.certify("l2"), first.certify("l2", adversary="continuous")
    assert (
        plain.radius[0] <= away / 2 and real.radius[0] <= changed / 2 + 1e-9 and real.radius[0] == plain.radius[0] / 2
    )


def test_rounding_carries_no_further_than_twice():
    "Real perturbations of every size, ties included: after rounding the distance is at most doubled, in every norm."
    q, rng = 16, np.random.default_rng(0)
    x = rng.integers(0, q + 1, 50) / q
    for scale in (0.01, 0.5 / q, 1 / q, 0.3):
        for delta in (rng.normal(0, scale, 50), np.full(50, scale), rng.choice([-0.5 / q, 0.5 / q, 0.0], 50)):
            rounded = np.rint(np.clip(x + delta, 0, 1) * q) / q - x
            for order in (1, 2, np.inf):
                assert np.linalg.norm(rounded, order) <= 2 * np.linalg.norm(delta, order) * (1 + 1e-12)


def test_rounded_uniform_votes_are_certified_in_l1():
    "A network that looks at one pixel: the exact probability is a ratio of lengths."
    q, lam = 16, 0.5
    noise, images = rs.RoundedUniform(lam=lam, q=q), torch.tensor([[k / q, 0.5] for k in range(17)])
    record = rs.Smoothed(lambda v: torch.stack([0.47 - v[:, 0], v[:, 0] - 0.47], 1), noise).vote(
        images, n=20_000, progress=False
    )
    table = record.certify("l1")
    level = np.arange(17)
    # steps that certainly do not cross the boundary between 7 and 8
    steps_away = np.where(level >= 8, level - 7, 8 - level) - 1
    kept = table.label >= 0
    assert table.method == "exact" and kept.sum() >= 14 and rs.check(table).all()
    assert (table.steps[kept] <= steps_away[kept]).all() and (table.label[kept] == (level >= 8)[kept]).all()
    assert (table.steps[kept] >= steps_away[kept] - 1).mean() > 0.8


def _law_at(noise, point, low, high) -> np.ndarray:
    "Probabilities of all noisy levels of a point, flat."
    weights = np.array([float(weight) for weight in noise.law()]) / 2.0**120
    reach, law = len(weights) // 2, np.ones(1)
    for level in point:
        line = np.zeros(high - low + 1)
        line[level - reach - low:level + reach - low + 1] = weights
        law = np.multiply.outer(law, line)
    return law.ravel()


def _extreme(here: np.ndarray, there: np.ndarray, p: float, most: bool) -> float:
    "The least, or most, that a classifier of probability p here may have there: Neyman and Pearson, atom by atom."
    met = here + there > 0
    here, there = here[met], there[met]
    ratio = np.divide(there, here, out=np.full(len(here), np.inf), where=here > 0)
    order = np.argsort(-ratio if most else ratio, kind="stable")
    here, there = here[order], there[order]
    before = np.cumsum(here) - here
    return float(
        (there * np.clip(np.divide(p - before, here, out=np.ones(len(here)), where=here > 0), 0, 1))[
            (here > 0) | most
        ].sum()
    )


@pytest.mark.parametrize("adversary", ["quantised", "continuous"])
@pytest.mark.parametrize(
    "norm, method", [*PAIRS, ("l2", "sequential"), ("l1", "exact of a Gaussian"), ("linf", "exact")]
)
def test_no_classifier_on_a_tiny_grid_changes_within_the_radius(norm, method, adversary):
    "Every pair of points of 3 x 3 levels, and the worst of all classifiers whose probabilities the votes allow."
    q, order = 2, {"l1": 1, "l2": 2, "linf": np.inf}[norm]
    in_steps = (norm, method) in (("l1", "uniform"), ("l1", "exact"))
    tried = 0
    for width in (0.5, 0.9):
        noise = rs.RoundedUniform(lam=1.3 * width, q=q) if in_steps else rs.RoundedGaussian(sigma=width, q=q)
        reach = len(noise.law()) // 2
        points = [(a, b) for a in range(q + 1) for b in range(q + 1)]
        laws = {point: _law_at(noise, point, -reach, q + reach) for point in points}
        for counts in ([980, 15, 5], [850, 150, 0], [640, 180, 180]):
            table = Record.from_counts([[1, 0, 0]], [counts], 1000, noise, 2).certify(
                norm, method=method.split()[0], alpha=0.2, adversary=adversary
            )
            if method.startswith("exact"): # two classes at the distance that was proved
                s = float(table.witness["s"][0])
                p = (1 + s) / 2 if in_steps else float(torch.special.ndtr(torch.tensor(s / 2, dtype=torch.float64)))
            else: p = float(table.p_lower[0])
            rival = float(table.p_upper[0]) if method == "tcertify" else 1 - p
            for x in points:
                for y in (y for y in points if y != x):
                    moved = np.abs(np.subtract(x, y))
                    # of a real change that is rounded to this one
                    shortest = moved if adversary == "quantised" else moved - 0.5
                    if table.steps is not None: inside = moved.sum() <= table.steps[0]
                    else: inside = np.linalg.norm(np.maximum(shortest, 0), order) / q < table.radius[0] * (1 - 1e-12)
                    if inside and table.label[0] == 0:
                        tried += 1
                        assert _extreme(laws[x], laws[y], p, False) > _extreme(laws[x], laws[y], rival, True), (
                            noise, counts, x, y,
                        )
    assert tried >= 8
