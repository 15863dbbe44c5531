"Noises rounded to the grid: their laws by enumeration, the tables that draw them, and draws against the laws."
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from robust_smooth.noise.rounded import (FAST_BITS, LAW_BITS, RoundedGaussian, RoundedUniform, _cut_rests, _draw_steps,
                                         _make_tables, rounded_law, shares, uniform_law)

UNIT = Fraction(1, 2**LAW_BITS)
LAWS = {
    "normal, narrow": lambda: rounded_law(0.003, 3),
    "normal, digits": lambda: rounded_law(0.25, 16),
    "normal, images": lambda: rounded_law(1.0, 255),
    "normal, wide": lambda: rounded_law(4.0, 400),
    "uniform, half a step": lambda: uniform_law(0.5, 1),
    "uniform, digits": lambda: uniform_law(0.3, 16),
    "uniform, images": lambda: uniform_law(1 / 3, 255),
    "uniform, whole steps": lambda: uniform_law(0.25, 16),
    "uniform, wide": lambda: uniform_law(4.0, 1000),
}


def joined(wanted: np.ndarray, least: float = 50) -> list[int]:
    "Where groups of neighbouring cells begin, so that each expects at least so many draws."
    starts, held = [0], 0.0
    for cell, expected in enumerate(wanted):
        if held >= least and wanted[cell:].sum() >= least:
            starts.append(cell)
            held = 0.0
        held += expected
    return starts


def test_rounded_law_is_within_its_bound_of_the_normal_law():
    "Total variation by 60-digit arithmetic, tails and dropped digits included."
    for sigma, q in ((0.25, 16), (0.02, 255), (0.5, 255)):
        weights = rounded_law(sigma, q)
        reach = len(weights) // 2
        with mpmath.workdps(60):
            scale = mpmath.mpf(sigma) * q
            cut = [mpmath.ncdf((mpmath.mpf(2 * j) - 1) / 2 / scale) for j in range(-reach, reach + 2)]
            truth = [b - a for a, b in zip(cut, cut[1:])]
            apart = sum(abs(mpmath.mpf(w) / 2**LAW_BITS - p) for w, p in zip(weights, truth)) + 1 - sum(truth)
            assert apart / 2 < mpmath.mpf(2) ** -91


@pytest.mark.parametrize("lam, q", [(0.5, 16), (0.3, 10), (0.01, 16), (1 / 3, 255), (2.0, 1), (0.25, 16), (16.0, 255)])
def test_uniform_law_is_the_length_of_each_cell(lam, q):
    law = uniform_law(lam, q)
    edge, middle = Fraction(lam) * q, len(law) // 2
    assert sum(law) == 2**LAW_BITS and law == law[::-1]
    for j, weight in enumerate(law):
        low, high = Fraction(2 * (j - middle) - 1, 2), Fraction(2 * (j - middle) + 1, 2)
        truth = max(Fraction(0), min(edge, high) - max(-edge, low)) / (2 * edge)
        assert abs(weight * UNIT - truth) <= (len(law) if j == middle else 1) * UNIT
    assert law[0] > 0 or len(law) == 1


@pytest.mark.parametrize("lam, q", [(0.3, 10), (0.25, 16), (0.11, 16)])
def test_shifted_uniform_laws_differ_by_no_more_than_the_certificate_says(lam, q):
    "In one dimension: for every set of levels, |P(x + Z in A) - P(y + Z in A)| <= |x - y| / 2 lam."
    law = [weight * UNIT for weight in uniform_law(lam, q)]
    for t in range(1, 12):
        shifted, plain = [Fraction(0)] * t + law, law + [Fraction(0)] * t
        moved = sum(max(a - b, Fraction(0)) for a, b in zip(plain, shifted))
        assert moved <= min(Fraction(1), Fraction(t, q) / (2 * Fraction(lam))) + 2 * len(law) * UNIT


@pytest.mark.parametrize("bits", [0, FAST_BITS])
@pytest.mark.parametrize("name", LAWS)
def test_the_tables_hold_the_law_unit_by_unit(name, bits):
    law = LAWS[name]()
    whole, rests = shares(law, bits)
    digits, missing = LAW_BITS - bits, 2**bits - int(whole.sum())
    held = [int(count) << digits for count in whole]
    if missing:
        table = _cut_rests(rests, missing, digits)
        capacity, middle = 1 << digits - table.bits, len(law) // 2
        assert len(table.high) == missing << table.bits
        for cell, (high, low) in enumerate(zip(table.high.tolist(), table.low.tolist())):
            share = (high << table.low_digits) + low
            assert 0 <= share < capacity and 0 <= low < 1 << table.low_digits
            held[int(table.outcomes[2 * cell]) + middle] += share
            held[int(table.outcomes[2 * cell + 1]) + middle] += capacity - share
    assert held == law


@pytest.mark.parametrize("bits", [0, FAST_BITS])
@pytest.mark.parametrize("name", LAWS)
def test_draws_follow_the_law(name, bits):
    law, draws = LAWS[name](), torch.empty(300_001)
    _draw_steps(_make_tables(law, bits, "cpu"), draws, torch.Generator().manual_seed(11))
    assert torch.equal(draws, draws.round()) and draws.abs().max() <= len(law) // 2
    wanted = np.array(law, dtype=float) / 2.0**LAW_BITS * len(draws)
    seen = np.bincount(draws.long().numpy() + len(law) // 2, minlength=len(law))
    starts = joined(wanted)
    if len(starts) > 1:
        seen, wanted = np.add.reduceat(seen, starts), np.add.reduceat(wanted, starts)
        assert chisquare(seen, wanted / wanted.sum() * seen.sum()).pvalue > 1e-3


def test_neighbours_in_a_word_are_independent():
    "Four numbers come from one 64-bit word: their joint law is the product."
    noise = RoundedUniform(lam=1.0, q=1)  # -1, 0, 1 with 1/4, 1/2, 1/4
    draws = noise.perturb(torch.zeros(4), torch.Generator().manual_seed(3), torch.empty(100_000, 4)).long() + 1
    seen = np.bincount((draws @ torch.tensor([27, 9, 3, 1])).numpy(), minlength=81)
    one = np.array([0.25, 0.5, 0.25])
    wanted = np.einsum("a,b,c,d->abcd", one, one, one, one).ravel() * 100_000
    assert chisquare(seen, wanted).pvalue > 1e-3


@pytest.mark.parametrize("noise", [RoundedGaussian(sigma=0.3, q=255), RoundedUniform(lam=0.3, q=255)])
def test_draws_depend_on_the_generator_alone(noise):
    levels = torch.randint(256, (3, 9, 9), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    def draw(out): return noise.perturb(levels, torch.Generator().manual_seed(4), out)
    plain = draw(torch.empty(7, 3, 9, 9))
    assert torch.equal(draw(torch.empty(7, 3, 9, 9).contiguous(memory_format=torch.channels_last)), plain)
    image = (levels / 255).float()
    assert torch.equal(noise.perturb(image, torch.Generator().manual_seed(4), torch.empty(7, 3, 9, 9)), plain)
    before, state = torch.get_default_dtype(), torch.get_rng_state()
    try:
        torch.set_default_dtype(torch.float64)
        assert torch.equal(draw(torch.empty(7, 3, 9, 9, dtype=torch.float32)), plain)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_the_classifier_sees_is_a_function_of_the_noisy_level():
    noise, seen = RoundedUniform(lam=0.4, q=255), {}
    for seed in range(3):
        levels = torch.randint(256, (500,), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
        views = noise.perturb(levels, torch.Generator().manual_seed(100 + seed), torch.empty(50, 500)).flatten()
        noisy = (views.double() * 255).round().long().tolist()
        for level, bits in zip(noisy, views.view(torch.int32).tolist()):
            assert seen.setdefault(level, bits) == bits
    assert len(seen) > 400


@pytest.mark.parametrize("kind, settings, match", [
    (RoundedUniform, dict(lam=0.0), "lam"),
    (RoundedUniform, dict(lam=1.0, q=0), "q must"),
    (RoundedUniform, dict(lam=1.0, q=5000), "coarser"),
    (RoundedGaussian, dict(sigma=-1.0), "sigma"),
    (RoundedGaussian, dict(sigma=float("nan")), "sigma"),
    (RoundedGaussian, dict(sigma=1.0, q=5000), "coarser"),
])
def test_what_is_no_noise_is_refused(kind, settings, match):
    with pytest.raises(ValueError, match=match):
        kind(**settings)


def test_uniform_of_a_standard_deviation():
    noise = RoundedUniform.from_sigma(0.5, q=16)
    assert noise.sigma == pytest.approx(0.5, rel=1e-15) and noise.q == 16
    assert repr(RoundedUniform(lam=0.5)) == "RoundedUniform(lam=0.5, q=255)"
