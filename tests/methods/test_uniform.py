"Uniform and randomised splitting noise: precision, coverage, known classifiers, bad input."
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from robust_smooth.methods import uniform
from robust_smooth.maths.bounds import binomial_lower
from robust_smooth.core.record import Record
from robust_smooth.core.registry import find_methods, noise_from_spec, noise_spec
from robust_smooth.core.values import ABSTAIN
from robust_smooth.noise.additive import Uniform
from robust_smooth.noise.grid import (
    ContinuousSplitting, IndependentSplitting, split_levels, Splitting,
)
from robust_smooth.voting.votes import vote

# k, n, alpha, one-sided Clopper-Pearson limit and radius at lam = 1.5, from the binomial sum at 60 digits
REFERENCE = [
    (990, 1000, 0.001, 0.97603618715531137319, 1.4281085614659341196),
    (1000, 1000, 0.001, 0.99311604842093377158, 1.4793481452628013147),
    (550, 1000, 0.001, 0.50067596009255776156, 0.0020278802776732846793),
    (600, 1000, 0.05, 0.57382341333530854608, 0.22147024000592563823),
    (99, 100, 0.001, 0.91137311129604242868, 1.234119333888127286),
    (51000, 100000, 0.001, 0.50510934924405594449, 0.01532804773216783346),
    (99990, 100000, 0.001, 0.99975867734359116249, 1.4992760320307734875),
    (100000, 100000, 0.0005, 0.99992399386401730181, 1.4997719815920519054),
    (75000, 100000, 0.001, 0.74574684213556671313, 0.73724052640670013939),
    (10, 10, 0.001, 0.501187233627272285, 0.0035617008818168550047),
    (50500, 100000, 0.001, 0.50010895173958784012, 0.00032685521876352034945),
]

def _record(hits, n, noise, selected=0, **more):
    hits = np.atleast_1d(hits)
    counts = np.stack([hits, n - hits], 1) if selected == 0 else np.stack([n - hits, hits], 1)
    return Record(
        selection=np.tile([10, 0] if selected == 0 else [0, 10], (len(hits), 1)),
        counts=counts, n=n, noise=noise, dim=8, index=None, **more,
    )

@pytest.mark.parametrize("hits, n, alpha, lower, reach", REFERENCE)
def test_precision(hits, n, alpha, lower, reach):
    table = _record(hits, n, Uniform(lam=1.5)).certify("l1", method="uniform", alpha=alpha)
    assert table.p_lower[0] == pytest.approx(lower, rel=2e-14) and table.p_lower[0] <= lower
    assert table.radius[0] == pytest.approx(reach, rel=1e-10, abs=1e-12) and table.radius[0] <= reach
    assert uniform.radius(lower, 1.5) == pytest.approx(reach, rel=1e-10, abs=1e-15)

def test_radius_function():
    assert uniform.radius(1.0, 0.25) == 0.25 and uniform.radius(0.5, 3) == 0 and uniform.radius(0.1, 3) == 0
    assert uniform.radius([0.75, 1.0], [2.0, 4.0]).tolist() == [1.0, 4.0]
    p = np.linspace(0.5, 1, 1001)
    assert (np.diff(uniform.radius(p, 0.7)) >= 0).all()                                     # monotone
    assert np.allclose(uniform.radius(p, 1.4), 2 * uniform.radius(p, 0.7), rtol=1e-15)      # homogeneous
    for bad in (-0.1, 1.2, np.nan):
        with pytest.raises(ValueError, match="p_lower"): uniform.radius(bad, 1.0)
    for bad in (0, -1, np.inf, np.nan):
        with pytest.raises(ValueError, match="lam"): uniform.radius(0.9, bad)

def test_edges_of_the_confidence_bound():
    table = _record([0, 100], 100, Uniform(lam=1.0)).certify("l1", method="uniform")
    assert (
        table.label.tolist() == [ABSTAIN, 0]
        and table.radius[0] == 0
        and table.radius[1] == pytest.approx(2 * (0.001**0.01 - 0.5), rel=1e-12)
        and table.radius[1] < 2 * (0.001**0.01 - 0.5)
    )
    assert "1/2" in table.reason[0] and table.reason[1] == ""
    assert uniform.minimum_n(0.001) == 10 and uniform.minimum_n(0.6) == 1
    for alpha in (0.3, 0.01, 1e-6):
        n = uniform.minimum_n(alpha)
        assert binomial_lower(n, n, alpha) > 0.5 and (n == 1 or binomial_lower(n - 1, n - 1, alpha) <= 0.5)

@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_coverage_is_exact(alpha):
    "Over all outcomes, weighted exactly: the radius exceeds the true one with probability at most alpha."
    n, lam, q = 120, 0.5, 16
    for noise, options in (
        (Uniform(lam=lam), {}),
        (Uniform(lam=lam), dict(levels=q)),
        (IndependentSplitting(n_splits=16, q=q), {}),
        (ContinuousSplitting(lam=lam), {}),
    ):
        table = _record(np.arange(n + 1), n, noise).certify("l1", method="uniform", alpha=alpha, **options)
        for p in np.linspace(0.502, 0.998, 60):
            # whole steps strictly inside 2 lam (p - 1/2)
            true_steps = int(np.ceil(2 * lam * q * (p - 0.5) - 1e-9)) - 1
            wrong = table.steps > true_steps if table.steps is not None else table.radius > 2 * lam * (p - 0.5)
            assert binom.pmf(np.arange(n + 1), n, p)[wrong & (table.label != ABSTAIN)].sum() <= alpha

def test_whole_steps():
    table = _record(REFERENCE[0][0], 1000, IndependentSplitting(n_splits=441, q=255)).certify("l1", method="uniform")
    assert (
        table.steps[0] == int(np.ceil(441 * (table.p_lower[0] - 0.5))) - 1
        and table.levels == 255
        and table.radius[0] == table.steps[0] / 255
    )
    same = _record(REFERENCE[0][0], 1000, Uniform(lam=441 / 510)).certify("l1", method="uniform", levels=255)
    assert same.steps[0] == table.steps[0]
    rounded = _record(REFERENCE[0][0], 1000, IndependentSplitting(n_splits=441, q=255)).certify(
        "l1", method="uniform", adversary="continuous"
    )
    assert rounded.radius[0] == (table.steps[0] + 1) / 510 and rounded.steps is None

def test_paper_mode_is_marked_and_warns():
    record = _record(100_000, 100_000, Uniform(lam=1.0))
    with pytest.warns(UserWarning, match="float32"): table = record.certify("l1", method="uniform", mode="paper")
    assert table.mode == "paper" and table.p_lower[0] == np.float64(np.float32(0.999924004)) > 0.0005**1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert record.certify("l1", method="uniform").radius[0] > 0

def test_registry_and_check():
    assert [find_methods(name, "l1")[0].name for name in ("IndependentSplitting", "ContinuousSplitting")] == [
        "uniform"
    ] * 2
    assert "uniform" in [method.name for method in find_methods("Uniform", "l1")]
    for noise in (Uniform(lam=2.0), IndependentSplitting(n_splits=55, q=16), ContinuousSplitting(lam=0.3)):
        assert noise_from_spec(noise_spec(noise)) == noise
        record = _record([100, 400, 700, 990, 1000], 1000, noise, selected=1)
        for options in ({}, dict(adversary="continuous")) if hasattr(noise, "q") else ({},):
            table = record.certify("l1", method="uniform", **options)
            assert uniform.check(table).all() and table.label.tolist() == [ABSTAIN, ABSTAIN, 1, 1, 1]
            kept = table.label != ABSTAIN
            assert not uniform.check(replace(table, radius=table.radius + 0.2, steps=None, levels=None))[kept].any()
            assert not uniform.check(replace(table, p_lower=np.minimum(table.p_lower + 0.01, 1)))[kept].any()
            assert not uniform.check(replace(table, alpha=table.alpha / 10))[kept].any()
        unanimous = record[[4]].certify("l1", method="uniform", mode="sound")
        assert unanimous.radius[0] <= uniform.largest_radius(noise, 1000, 0.001)

def test_bad_records():
    record = _record(900, 1000, Uniform(lam=1.0))
    with pytest.raises(ValueError, match="l1"): uniform.certify(record, norm="l2")
    with pytest.raises(ValueError, match="alpha"): uniform.certify(record, alpha=1.5)
    with pytest.raises(ValueError, match="mode"): uniform.certify(record, mode="exact")
    with pytest.raises(ValueError, match="rounding"): uniform.certify(record, adversary="continuous")
    with pytest.raises(ValueError, match="grid of the noise"):
        uniform.certify(_record(900, 1000, IndependentSplitting(n_splits=9, q=16)), levels=255)
    with pytest.raises(ValueError, match="stopped early"):
        uniform.certify(_record(900, 1000, Uniform(lam=1.0), plan=dict(kind="x")))

class Threshold(nn.Module):
    "Class 1 where the first feature is above the threshold."
    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold
    def forward(self, x):
        score = x.flatten(1)[:, 0] - self.threshold
        return torch.stack([-score, score], 1)

def test_known_classifier_through_the_engine():
    "One feature against a threshold: the true probabilities of the four noises are known, and so is the true radius."
    x, n = torch.tensor([[[3 / 16, 0.5]], [[12 / 16, 0.0]]]), 4000
    level = np.array([3, 12])
    lam, q, count = 0.75, 16, 24
    grid = split_levels(level[:, None], np.arange(count), count, q) / (4 * q)
    cases = [
        (Uniform(lam=lam), 0.45, (level / q + lam - 0.45) / (2 * lam)),
        (IndependentSplitting(n_splits=count, q=q), 0.45, (grid > 0.45).mean(1)),
        (ContinuousSplitting(lam=lam), 0.45, 1 - np.maximum(0.9 - level / q, 0) / (2 * lam)),
        (Splitting(n_splits=count, q=q), 0.45, (grid > 0.45).mean(1)),
    ]
    for noise, threshold, share in cases:
        record = vote(Threshold(threshold).eval(), x, noise, n, num_classes=2, n0=50, batch_size=500, progress=False)
        draws = count if noise.deterministic else n
        assert (
            np.abs(record.counts[:, 1] / draws - share) <= (0 if noise.deterministic else 4.5 * np.sqrt(0.25 / n))
        ).all(), noise
        again = vote(Threshold(threshold).eval(), x, noise, n, num_classes=2, n0=50, batch_size=177, progress=False)
        assert np.array_equal(record.counts, again.counts)                                  # whatever the batch size
        table = record.certify("l1")
        truth = 2 * getattr(noise, "lam") * np.abs(share - 0.5)
        assert (
            (table.radius <= truth + 1e-12).all()
            and (table.radius[table.label != ABSTAIN] >= 0).all()
            and (table.label != ABSTAIN).any()
        )

def test_noise_of_training():
    generator = torch.Generator().manual_seed(0)
    images = torch.full((4000, 1, 1, 2), 0.25)
    for noise in (IndependentSplitting(n_splits=12, q=8), ContinuousSplitting(lam=0.75)):
        noisy = noise.augment(images, generator).flatten(1)
        assert (
            torch.allclose(noisy.mean(0), torch.tensor(0.5 - 0.25 / 3), atol=0.01)
            and abs(np.corrcoef(noisy.T.numpy())[0, 1]) < 0.06
        )
    with pytest.raises(ValueError, match="0, 1"):
        ContinuousSplitting(lam=1.0).check_images(torch.tensor([[0.2, float("nan")]]))
    with pytest.raises(ValueError, match="lam"): ContinuousSplitting(lam=-1)

def test_one_ceiling_only():
    "Erratum E2: computing ceil(z) and ceil(z - 1) separately leaves the set of cell centres."
    noise, x = ContinuousSplitting(lam=0.1), torch.tensor([0.05000000000000001], dtype=torch.float64)
    value = noise._cut(x, torch.tensor([0.05 / 0.2], dtype=torch.float64))
    assert value.item() == pytest.approx(0.15, abs=1e-15) or value.item() == pytest.approx(0.025, abs=1e-15)
