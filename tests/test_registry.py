"""One table of properties for every registered certificate, whatever method it comes from.

A new method takes part by registering itself; a new smoothing distribution needs one line in NOISES."""
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from robust_smooth import noise as noises
from robust_smooth.methods import sequential
from robust_smooth.core.record import Record
from robust_smooth.core.registry import load_methods
from robust_smooth.core.values import ABSTAIN
from robust_smooth.smoothed import check, Smoothed

D, N = 16, 4000
IMAGES, SLOW = 9, {"MixedNormGaussian": 2} # images behind each property; fewer where a radius takes a second
NOISES = {  # class name -> the distribution at scale s, on images of D inputs
    "Gaussian": lambda s: noises.Gaussian(sigma=s),
    "RoundedGaussian": lambda s: noises.RoundedGaussian(sigma=s, q=50),
    "Uniform": lambda s: noises.Uniform(lam=2 * s),
    "IndependentSplitting": lambda s: noises.IndependentSplitting(n_splits=int(round(100 * s)), q=50),
    "ContinuousSplitting": lambda s: noises.ContinuousSplitting(lam=2 * s),
    "Splitting": lambda s: noises.Splitting(n_splits=int(round(100 * s)), q=50),
    "RadialGaussian": lambda s: noises.RadialGaussian(sigma=s, k=3),
    "MixedNormGaussian": lambda s: noises.MixedNormGaussian(sigma=s, k=3),
    "LinfGaussian": lambda s: noises.LinfGaussian(sigma=s, k=3),
}
CASES = [(m.name, n, p) for m in load_methods().values() for n in m.noises for p in m.norms]
SAMPLED = [case for case in CASES if not load_methods()[case[0]].deterministic]
PLAIN = [case for case in SAMPLED if not load_methods()[case[0]].needs and not load_methods()[case[0]].sequential]  # pure functions of counts
SYMMETRIC = [case for case in SAMPLED if "Splitting" not in case[1] and "Rounded" not in case[1]]  # additive and symmetric: a half-space's boundary stays where it is


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def certify(method, record, norm, **options): return load_methods()[method].certify(record, norm=norm, **{"alpha": 0.01, **options})


def record_of(counts, noise, selection=None):
    counts = np.atleast_2d(counts)
    chosen = np.eye(counts.shape[1], dtype=int)[counts.argmax(1)]
    return Record.from_counts(chosen if selection is None else selection, counts, counts.sum(1), noise, D)


_votes = {}


def few(noise, rows): # a spread of at most IMAGES rows, fewer where a radius takes seconds
    return rows[np.unique(np.linspace(0, len(rows) - 1, SLOW.get(noise, IMAGES)).astype(int))]


_tables = {}


def half_space_table(method, noise, norm):
    "The certificates of `half_space_votes`, kept."
    if (method, noise, norm) not in _tables:
        images, record = half_space_votes(load_methods()[method], NOISES[noise](0.4))
        _tables[method, noise, norm] = images, record, certify(method, record, norm)
    return _tables[method, noise, norm]


def half_space_votes(method, noise):
    "Votes of the half-space x_1 > 1/2 on a grid of distances; kept, since several properties look at them."
    stop = sequential.plan([0, 0.1, 0.2, 0.4], 0.4, 0.01, n_max=N) if method.sequential and not method.deterministic else None
    size = SLOW.get(type(noise).__name__, IMAGES)
    key = (noise, bool(method.needs), stop is not None, size)
    if key not in _votes:
        images = torch.full((size, D), 0.5)
        images[:, 0] = torch.round(torch.linspace(0.02, 1, size) * 50) / 50
        model = lambda x: torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5], 1)
        _votes[key] = images, Smoothed(model, noise).vote(images, n=N, moments=bool(method.needs), stop=stop, seed=3, batch_size=1000, progress=False)
    return _votes[key]


@pytest.mark.parametrize("method, noise, norm", CASES)
def test_batch_equals_loop(method, noise, norm):
    _, record, whole = half_space_table(method, noise, norm)
    for i in {len(record) // 3, len(record) - 1} if noise not in SLOW else {len(record) - 1}:
        one = certify(method, record[[i]], norm)
        assert one.label[0] == whole.label[i]
        np.testing.assert_allclose(one.radius[0], whole.radius[i], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method, noise, norm", SYMMETRIC)
def test_never_above_the_truth_on_a_half_space(method, noise, norm):
    "The distance to an axis-parallel plane is the same in every norm."
    images, _, table = half_space_table(method, noise, norm)
    truth = np.abs(images[:, 0].numpy() - 0.5)
    kept = table.label != ABSTAIN
    assert kept.any()
    assert (table.label[kept] == (images[:, 0].numpy() > 0.5)[kept]).all()
    assert (table.radius[kept] <= truth[kept] + 1e-6).all()


@pytest.mark.parametrize("method, noise, norm", [case for case in CASES if load_methods()[case[0]].check])
def test_check_accepts_and_rejects(method, noise, norm):
    *_, table = half_space_table(method, noise, norm)
    assert check(table).all()
    kept = (table.label != ABSTAIN) & (table.radius > 0) & np.isfinite(table.radius)
    assert kept.any()
    larger = replace(table, radius=table.radius * 1.2 + 1.0, steps=None if table.steps is None else table.steps + table.levels)
    assert not check(larger)[kept].any()


@pytest.mark.parametrize("method, noise, norm", PLAIN)
def test_monotone_in_the_votes(method, noise, norm):
    hits = few(noise, np.arange(0, N + 1, 80))
    table = certify(method, record_of(np.stack([hits, N - hits], 1), NOISES[noise](0.4), np.tile([1, 0], (len(hits), 1))), norm)
    assert (np.diff(table.radius) >= -1e-12).all() and table.radius[-1] > 0


@pytest.mark.parametrize("method, noise, norm", PLAIN)
def test_zero_at_the_threshold(method, noise, norm):
    table = certify(method, record_of([[N // 2, N // 2], [N // 2 + 5, N // 2 - 5], [0, N]], NOISES[noise](0.4), [[1, 0]] * 3), norm)
    assert (table.label == ABSTAIN).all() and (table.radius == 0).all() and all(table.reason)


@pytest.mark.parametrize("method, noise, norm", [case for case in PLAIN if "IndependentSplitting" not in case[1]])
def test_homogeneous_in_the_scale(method, noise, norm):
    counts = few(noise, np.array([[int(0.8 * N), int(0.2 * N)], [N - 30, 30], [N, 0]]))[1:]
    one, two = (certify(method, record_of(counts, NOISES[noise](s)), norm).radius for s in (0.4, 0.8))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-7)


@pytest.mark.parametrize("method, noise, norm", PLAIN)
def test_smaller_alpha_never_certifies_more(method, noise, norm):
    record = record_of(few(noise, np.array([[N, 0], [int(0.7 * N), int(0.3 * N)], [N - 10, 10]]))[1:], NOISES[noise](0.4))
    radii = np.stack([certify(method, record, norm, alpha=alpha).radius for alpha in (0.1, 1e-4)])
    assert (np.diff(radii, axis=0) <= 1e-12).all()


@pytest.mark.parametrize("method, noise, norm", SAMPLED)
def test_alpha_is_checked(method, noise, norm):
    _, record = half_space_votes(load_methods()[method], NOISES[noise](0.4))
    for alpha in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError): certify(method, record, norm, alpha=alpha)


@pytest.mark.parametrize("name", sorted(m.name for m in load_methods().values() if m.minimum_n))
def test_minimum_n_is_where_certification_begins(name):
    method = load_methods()[name]
    if method.needs or method.sequential: pytest.skip("minimum_n of this method speaks of votes with moments or of a plan")
    n = method.minimum_n(0.01)
    noise, norm = NOISES[method.noises[0]](0.4), method.norms[0]
    radius = lambda m: method.certify(record_of([[m, 0]], noise), norm=norm, alpha=0.01).radius[0]
    assert radius(n) > 0 and (n == 1 or radius(n - 1) == 0)


@pytest.mark.parametrize("method, noise", [("gaussian", "RadialGaussian"), ("tcertify", "RadialGaussian"), ("uniform", "Splitting"), ("uniform", "Gaussian"),
                                           ("splitting", "Gaussian"), ("splitting", "Uniform")])
def test_votes_under_another_noise_are_refused(method, noise):
    with pytest.raises(ValueError, match="record must hold votes under"): certify(method, record_of([[99, 1]], NOISES[noise](0.4)), load_methods()[method].norms[0])
