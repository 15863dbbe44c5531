"The Gaussian certificate: published logs, simulated coverage, attacks on known classifiers."
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from robust_smooth.maths.bounds import binomial_lower
from robust_smooth.core.record import Record
from robust_smooth.core.values import ABSTAIN
from robust_smooth.methods.gaussian import certify, check, minimum_n, predict, radius
from robust_smooth.noise.additive import Gaussian
from robust_smooth.voting.votes import count_votes, vote


def test_published_counts(shared):
    "All 4,613 correct rows of the published first-order logs: Cohen's radius to their three digits."
    rows = 0
    for path in sorted((shared / "reference_logs" / "JeetMo_HigherOrderCertification").rglob("results_l*.txt")):
        log = pd.read_csv(path, sep="\t")
        log = log[pd.to_numeric(log["correct"], errors="coerce") == 1].astype({"count": float, "radius_cohen": float})
        parts = str(path)
        n = 4_000_000 if path.name == "results_lInf.txt" else 1_250_000 if "imagenet" in parts.lower() else 200_000
        sigma = float(next(p.split("_")[1] for p in reversed(path.parts) if p.startswith(("sigma_", "noise_"))))
        p, q = (binomial_lower(log["count"].astype(int), n, 0.001, complement=c) for c in (False, True))
        ours = np.where(p > 0.5, radius(p, sigma, p_lower_complement=q), 0.0)
        assert all(float(f"{a:.3g}") == b for a, b in zip(ours, log["radius_cohen"])), path.name
        rows += len(log)
    assert rows == 4613


def test_certify_fails_at_most_alpha_of_the_time():
    "20,000 simulated certifications of a half-space with known p: failures within the binomial spread of alpha."
    rng, n, alpha, p = np.random.default_rng(1), 500, 0.05, 0.8
    hits = rng.binomial(n, p, size=20_000)
    counts = np.stack([hits, n - hits], 1)
    record = Record.from_counts(np.tile([100, 0], (len(hits), 1)), counts, n, Gaussian(sigma=0.5), 3)
    failures = (certify(record, alpha=alpha).radius > 0.5 * norm.ppf(p)).mean()
    assert failures <= alpha + 3 * np.sqrt(alpha / len(hits))
    assert failures > alpha / 4  # the bound is not idle


def test_no_attack_succeeds_inside_the_radius(half_space):
    "Moving straight at the plane by 0.999 radius never changes the smoothed class; by the true radius it ties."
    direction = np.ones(6) / np.sqrt(6)
    model = half_space(direction, 0.5)
    images = torch.rand(12, 6, generator=torch.Generator().manual_seed(0))
    record = vote(model, images, Gaussian(sigma=0.4), 4000, num_classes=2, seed=2, progress=False)
    table = certify(record, alpha=0.001)
    margin = images.numpy() @ direction - 0.5
    truth = np.abs(margin)
    kept = table.label != ABSTAIN
    assert kept.sum() >= 6 and (table.label[kept] == (margin > 0)[kept]).all()
    assert (table.radius <= truth + 1e-6).all()
    assert check(table).all()


def test_predict_is_the_smoothed_class(half_space):
    model = half_space(np.array([1.0, 0.0]), 0.5)
    record = vote(
        model,
        torch.tensor([[0.9, 0.5], [0.1, 0.5], [0.5, 0.5]]),
        Gaussian(sigma=0.3), 1000, num_classes=2, seed=0, progress=False,
    )
    assert predict(record, 0.001).tolist() == [1, 0, ABSTAIN]


def test_minimum_n_is_minimal():
    for alpha in (0.1, 0.05, 0.01, 0.001, 1e-6):
        n = minimum_n(alpha)
        assert binomial_lower(n, n, alpha) > 0.5 and (n == 1 or binomial_lower(n - 1, n - 1, alpha) <= 0.5)


def test_too_few_draws_abstain_with_the_reason():
    table = Record.from_counts([[5, 0]], [[9, 0]], 9, Gaussian(sigma=1.0), 4).certify("l2")
    assert table.label[0] == ABSTAIN and "n below 10" in table.reason[0]


def test_limits_are_judged_by_their_tails_and_not_by_their_digits():
    "An older SciPy inverts to 12 digits: safe limits that differ in the 13th are proved, a limit beyond the votes is not."
    record = Record.from_counts([[5, 1]] * 3, [[950, 50], [990, 10], [700, 300]], 1000, Gaussian(sigma=0.5), 64)
    table = certify(record)
    safe = dict(radius=table.radius * (1 - 1e-12), p_lower=table.p_lower - 1e-13, p_upper=table.p_upper + 1e-13)
    def made(**fields): # as a method would have made them
        return replace(table, **fields).sealed()

    assert check(table).all() and check(made(**safe)).all()
    assert check(made(p_upper=table.p_upper + 1e-3)).all() # shown larger than it need be
    assert not check(made(p_upper=table.p_upper * (1 - 1e-6))).any()
    assert not check(made(p_lower=table.p_lower * (1 + 1e-7))).any()
