"""soap_bubbles: precision against stored references, known classifiers, coverage, attacks, bad input, and the samplers of its noises."""
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.special import betainc, gammainc, gammaincinv, ndtr, ndtri

from robust_smooth.methods import soap_bubbles as sb
from robust_smooth.maths.bounds import binomial_lower
from robust_smooth.core.record import Record
from robust_smooth.core.values import ABSTAIN
from robust_smooth.noise.additive import Gaussian
from robust_smooth.noise.shells import LinfGaussian, MixedNormGaussian, RadialGaussian
from robust_smooth.maths import corners, shell_radii, shell_values, shells

# 1 - p_min of the family l2, by mpmath with 25 to 30 digits: adaptive quadrature of the Gamma and Beta laws, split at the kinks
REFERENCES = [
    (2, 1.0, 0.7, 0.104610498496341482),
    (5, 3.0, 0.5, 0.158416099223065933),
    (16, 8.0, 1.25, 0.0354606535237066829),
    (64, 50.0, 1.5, 0.000620526504243436734),
    (64, 30.0, 0.25, 0.364449123969774037),
    (64, 20.0, 4.5, 5.98565493934871957e-8),
    (784, 700.0, 1.0, 0.00106688414184821144),
    (3072, 500.0, 0.5, 0.292372444434688514),
    (3072, 500.0, 3.0, 0.000522080721832146176),
    (3072, 3000.0, 0.5, 0.000490546473792286908),
    (150_528, 50_000.0, 2.0, 0.00719569938851346751),
]


@pytest.mark.parametrize("d, k, R, tail", REFERENCES)
def test_l2_precision(d, k, R, tail):
    bar = 1e-12 if d <= 3072 else 1e-10
    assert abs(sb.p_min(R, d, k, "l2", complement=True) / tail - 1) < bar
    assert abs(sb.radius(None, d, k, "l2", sigma=0.5, one_minus_p=tail) / (0.5 * R) - 1) < bar


@pytest.mark.parametrize("d", [1, 2, 64, 3072, 150_528])
def test_gaussian_is_a_member(d):
    p = np.array([0.5 + 1e-9, 0.501, 0.9, 0.99993, 1 - 1e-12])
    assert np.allclose(sb.radius(p, d, 0, "l2", 0.25), 0.25 * ndtri(p), rtol=1e-10, atol=0)
    assert np.allclose(sb.radius(p, d, 0, "mixed", 0.25), 0.25 * ndtri(p) / np.sqrt(d), rtol=1e-10, atol=0)
    for R in (0.3, 2.0):  # the quadrature itself, which does not know the closed form
        assert abs(shells.shell_law(R * R / 2, R, d, 0.0, "l2")[1] / ndtr(-R) - 1) < 1e-12
        assert abs(shells.shell_law(R * R / 2, R, d, 1e-12, "l2")[1] / ndtr(-R) - 1) < 1e-9 if d < 100 else True


@pytest.mark.parametrize("d", [64, 3072])
def test_mixed_at_k_zero_without_its_closed_form(d):
    for z in (0.5, 2.0, 3.8):
        below, above = (corners.corner_law(s * z * z / 2, z / np.sqrt(d), d, 0.0)[j] for j, s in enumerate((-1, 1)))
        assert abs(below - 0.5) < 1e-11 and abs(above / ndtr(-z) - 1) < 1e-8


@pytest.mark.parametrize("d, k", [(64, 20.0), (3072, 250.0)])
def test_mixed_is_converged(d, k, monkeypatch):
    "More nodes everywhere change nothing at the eighth digit."
    R = 1.2 / np.sqrt(d)
    t = shell_values.CornerSearch(d, k).value(0.0, R, "fine")[0]
    before = [corners.corner_law(s * t, R, d, k) for s in (1, -1)]
    more = corners.Resolution(22, 17, 22, 4, 0.9)
    monkeypatch.setitem(corners.GRADES, "more", {True: more, False: more})
    after = [corners.corner_law(s * t, R, d, k, "more") for s in (1, -1)]
    assert abs(after[0][0] - before[0][0]) < 1e-9 and abs(after[1][1] / before[1][1] - 1) < 1e-8


def test_published_values():
    for family, tv in dict(l2=0.43079, mixed=0.44227, linf=0.42619).items():
        assert abs(sb.discrepancy(1.0, 0.4 * math.sqrt(2) if family == "l2" else 0.4, 2, 1.0, family) - tv) < 6e-6
    ratio = sb.radius([0.6, 0.99], 3072, 250, "mixed", math.sqrt(3071 / 2821)) * math.sqrt(3072) / ndtri([0.6, 0.99])
    assert np.allclose(ratio, [0.470, 0.646], atol=6e-4)


def test_mixed_against_simulation_in_fourteen_dimensions():
    noise = MixedNormGaussian(sigma=1.0, k=6.0)
    L = sb.sample_ratios(noise, np.full(14, 0.1), 100_000, seed=3)
    def law(t): return corners.corner_law(t, 0.1, 14, 6.0)
    for t in (-0.3, 0.2): assert abs(np.mean(L <= t) - law(t)[0]) < 4 * 0.5 / math.sqrt(len(L))


@pytest.mark.parametrize(
    "family, d, k",
    [
        ("l2", 2, 1.0), ("l2", 5, 4.5), ("linf", 3, 2.0), ("mixed", 3, 2.0), ("mixed", 64, 30.0),
        ("linf", 200, 50.0), ("l2", 200, 150.0),
    ],
)
def test_laws_are_laws(family, d, k):
    R = 0.4 if family == "l2" else 0.4 / math.sqrt(d)
    t = np.linspace(-4, 4, 9)
    G, SF = sb.llr_cdf(t, R, d, k, family), sb.llr_cdf(t, R, d, k, family, complement=True)
    assert np.all(np.diff(G) >= -1e-12) and np.allclose(G + SF, 1, atol=1e-8)
    lam = np.array([0, 0.2, 0.7, 1.0, 1.6, 5.0])
    D = sb.discrepancy(lam, R, d, k, family)
    assert np.all(D <= lam) and np.all(D >= np.maximum(lam - 1, 0)) and D[0] == 0
    assert np.all(np.diff(np.diff(D) / np.diff(lam)) > -1e-7)  # convex
    p = np.array([0, 0.1, 0.6, 0.95, 1.0])
    V = sb.lower_bound(p, R, d, k, family)
    assert np.all(V <= p + 1e-12) and np.all(np.diff(V) > 0) and V[0] == 0 and V[-1] == 1
    for l in lam: assert np.all(sb.dual_bound(l, p, R, d, k, family) <= V + 1e-8)  # weak duality


def test_edges():
    assert sb.p_min(0, 64, 20, "mixed") == 0.5 and sb.lower_bound(0.7, 0, 64, 20, "l2") == 0.7
    assert list(sb.discrepancy([0.5, 2.0], 0, 64, 20, "l2")) == [0, 1]
    assert list(sb.llr_cdf([-0.1, 0.0], 0, 64, 20, "l2")) == [0, 1]
    assert list(sb.radius([0.0, 0.3, 0.5], 64, 20, "l2")) == [0, 0, 0]
    assert sb.radius(None, 64, 20, "linf", one_minus_p=0) == np.inf
    for family in sb.FAMILIES: assert abs(sb.p_min(0.7, 1, 0.6, family) - sb.p_min(0.7, 1, 0.6, "l2")) < 1e-13
    grid = sb.p_min(np.linspace(0, 6, 60), 64, 30, "l2", complement=True)
    assert np.all(np.diff(grid) < 0)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: sb.radius(0.9, 5, 5, "l2"), r"k must be in \[0, d\) = \[0, 5\)"),
        (lambda: sb.radius(0.9, 5, -1, "l2"), "got -1"),
        (lambda: sb.radius(0.9, 5, float("nan"), "l2"), "k must"),
        (lambda: sb.radius(0.9, 5, 1, "l2", sigma=0), "sigma"),
        (lambda: sb.radius(1.2, 5, 1, "l2"), r"p must be in \[0, 1\], got 1.2"),
        (lambda: sb.radius(float("nan"), 5, 1, "l2"), "p must"),
        (lambda: sb.radius(1.0, 5, 1, "l2"), "one_minus_p"),
        (lambda: sb.p_min(-0.1, 5, 1, "l2"), r"R must be in \[0, .*got -0.1"),
        (lambda: sb.p_min(0.1, 5.5, 1, "l2"), "d must"),
        (lambda: sb.p_min(0.1, 5, 1, "l3"), "family must"),
        (lambda: sb.discrepancy(-1, 0.1, 5, 1, "l2"), "lam must"),
        (lambda: sb.certify(record(MixedNormGaussian(sigma=1.0, k=3)), norm="l2"), "linf"),
        (lambda: sb.certify(record(LinfGaussian(sigma=1.0, k=3)), norm="l1"), "linf"),
        (lambda: sb.certify(record(RadialGaussian(sigma=1.0, k=64))), "no integral"),
        (lambda: sb.certify(record(), mode="exact"), "mode"),
        (lambda: sb.certify(record(), alpha=0), "alpha"),
        (lambda: sb.certify(replace(record(), plan=dict(looks=[1]))), "stopped early"),
        (lambda: Record.from_counts([[1, 0]], [[0.5, 0.5]], 1, RadialGaussian(sigma=1.0, k=3), 4), "whole numbers"),
        (lambda: RadialGaussian(sigma=0.0, k=1), "sigma"),
        (lambda: LinfGaussian(sigma=1.0, k=-0.5), "k must"),
        (lambda: MixedNormGaussian.matched(1.0, 5, 5), "k must"),
        (lambda: RadialGaussian.matched(1.0, 4, 5), "k < d - 1"),
        (lambda: RadialGaussian.matched(1.0, 1, 5, how="median"), "how must"),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(ValueError, match=text): call()


def record(noise=RadialGaussian(sigma=0.5, k=20), hits=(10_000, 9990, 9900, 9000, 7000, 5100, 4000), n=10_000, dim=64):
    counts = np.stack([hits, n - np.asarray(hits)], 1)
    return Record.from_counts(np.tile([100, 0], (len(hits), 1)), counts, n, noise, dim)


@pytest.mark.parametrize(
    "noise, norm, dim",
    [
        (RadialGaussian(sigma=0.5, k=20), "l2", 64),
        (RadialGaussian(sigma=0.5, k=500), 4, 3072),
        (RadialGaussian(sigma=0.5, k=2), "l1", 3),
        (MixedNormGaussian(sigma=0.5, k=5), "linf", 64),
        (LinfGaussian(sigma=0.5, k=5), "linf", 64),
        (Gaussian(sigma=0.5), "linf", 64),
    ],
)
def test_certify_check_and_tamper(noise, norm, dim):
    r = record(noise, dim=dim)
    found = sb.certify(r, norm=norm)
    family, k, size = sb.worst_shift(noise, norm, dim)
    exact = (
        sb.radius(None, dim, k, family, noise.sigma, one_minus_p=binomial_lower(r.hits, r.n, 0.001, complement=True))
        / size
    )
    assert (
        np.all(found.radius <= exact)
        and np.all(found.radius >= exact * (1 - 1e-7) - 1e-7)
        and found.label[-1] == ABSTAIN
        and found.radius[-1] == 0
    )
    assert sb.check(found).all() and not sb.check(replace(found, radius=found.radius + 1e-3))[:5].any()
    assert not sb.check(replace(found, witness={**found.witness, "hits": found.witness["hits"] - 50}))[:5].any()
    if norm == "linf" and dim == 64: return
    halves = [sb.certify(r[rows], norm=norm).radius for rows in (slice(0, 3), slice(3, None))]
    assert np.allclose(np.concatenate(halves), found.radius, rtol=1e-8)


def test_table_proposals_are_proved():
    q = np.sort(10.0 ** -np.random.default_rng(0).uniform(0.31, 7, 200))
    for d, k in ((64, 50.0), (784, 300.0), (3072, 500.0)):
        R, lam = sb.verified_radius(q, d, k, "l2")
        exact = sb.radius(None, d, k, "l2", one_minus_p=q)
        assert np.all(R < exact) and np.all(R > exact * (1 - 1e-8) - 1e-10)
        assert np.all(sb.dual_bound(lam, None, R, d, k, "l2", one_minus_p=q) > 0.5)


def test_never_above_the_truth_on_known_classifiers():
    "Half-space and ball: the smoothed probability at every shift is known, so the true radius is."
    for d, k in ((3, 1.0), (64, 30.0)):
        margin = 0.4
        def inside(shift): # P(z_1 <= margin - shift) under the radial noise, sigma = 1
            x = gammaincinv((d - k) / 2, (np.arange(20_000) + 0.5) / 20_000)
            c = np.clip((margin - shift) / np.sqrt(2 * x), -1, 1)
            return betainc((d - 1) / 2, (d - 1) / 2, (1 + c) / 2).mean()
        assert sb.radius(inside(0.0), d, k, "l2") <= margin
        assert abs(inside(margin) - 0.5) < 1e-9
        for R in (0.1, 0.3): assert sb.lower_bound(inside(0.0), R, d, k, "l2") <= inside(R) + 1e-6
    # ball of radius c: probability at shift R by simulation of the exact sampler
    k, d, c = 1.0, 3, 1.5
    z = RadialGaussian(sigma=1.0, k=k).sample(torch.empty(200_000, d), torch.Generator().manual_seed(0)).numpy()
    p = gammainc((d - k) / 2, c * c / 2)
    R = sb.radius(p, d, k, "l2")
    assert R > 0 and np.mean(np.linalg.norm(z + [0.999 * R, 0, 0], axis=1) <= c) > 0.5
    box = MixedNormGaussian(sigma=1.0, k=0.8)                    # box |z|_inf <= 2, attacked at the corner
    z = box.sample(torch.empty(100_000, 2), torch.Generator().manual_seed(1)).numpy()
    R = sb.radius(float(binomial_lower(int((np.abs(z).max(1) <= 2).sum()), len(z), 1e-6)), 2, 0.8, "mixed")
    assert R > 0 and np.mean(np.abs(z + 0.999 * R).max(1) <= 2) > 0.5


def test_coverage_and_attacks_on_votes():
    "The worst-case classifier {L <= t} with p at p_min(R): certified beyond R in at most alpha of the votes; attacks along the worst shift succeed only outside."
    d, k, R, n, alpha = 64, 30.0, 0.5, 500, 0.05
    p = float(sb.p_min(R, d, k, "l2"))
    hits = np.random.default_rng(0).binomial(n, p, 4000)
    values, where = np.unique(hits, return_inverse=True)
    r = sb.certify(record(RadialGaussian(sigma=1.0, k=k), values, n, d), alpha=alpha).radius[where]
    failures = np.mean(r > R)
    assert 0.25 * alpha < failures <= alpha + 3 * math.sqrt(alpha / 4000)
    noise, shift = RadialGaussian(sigma=1.0, k=k), R * np.eye(1, d)[0]
    t = shell_values.values(np.array([ndtri(p)]), np.array([R]), d, k, "l2")[0][0]
    z = noise.sample(torch.empty(40_000, d), torch.Generator().manual_seed(2))
    kept = lambda s: np.mean(
        noise.log_density_ratio(z + torch.as_tensor(s * shift, dtype=torch.float32), torch.as_tensor(shift)).numpy()
        <= t
    )
    assert abs(kept(0.0) - p) < 0.012 and kept(0.9) > 0.5 > kept(1.1)


def test_paper_mode_is_marked_warned_and_never_better_here():
    r = record()
    with pytest.warns(UserWarning, match="Algorithm 2"):
        paper = sb.certify(r, mode="paper", radii=[0.2, 0.4, 0.8], draws=20_000, pilot=2000)
    sound = sb.certify(r)
    assert paper.mode == "paper" and set(paper.radius) <= {0.0, 0.2, 0.4, 0.8} and np.all(paper.radius <= sound.radius)
    with pytest.raises(ValueError, match="no proof"): sb.check(paper)
    noise, rng = RadialGaussian(sigma=0.5, k=20), np.random.default_rng(0)
    vote = lambda n: int(rng.binomial(n, 0.95))
    options = dict(lam=np.exp(np.linspace(-1, 4, 21)), n1=5000, n2=5000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for r, passes in ((0.3, True), (1.2, False)):
            shift = r * np.eye(1, 64)[0]
            assert (
                sb.algorithm1(vote, noise, shift, **options)[0] is passes
                and sb.algorithm2(vote, noise, shift, **options)[0] is passes
            )


def test_monte_carlo_is_sound_and_close():
    r = record()
    radii = np.linspace(0.2, 1.6, 5)
    sampled, sound = sb.certify_monte_carlo(r, radii=radii, draws=20_000), sb.certify(r)
    assert (
        np.all(sampled.radius <= sound.radius) and sampled.radius[1] > 0.5 * sound.radius[1] and sampled.alpha == 0.001
    )
    custom = sb.certify_monte_carlo(r, radii=radii, draws=20_000, shift=lambda r: r * np.eye(1, 64)[0])
    assert np.array_equal(custom.radius, sampled.radius)


def test_bilateral():
    counts = np.array([[4500, 3000, 2500], [9000, 600, 400], [3400, 3300, 3300]])
    r = Record.from_counts(np.tile([10, 0, 0], (3, 1)), counts, 10_000, RadialGaussian(sigma=0.5, k=20), 64)
    both, one = sb.certify(r, bilateral=True), sb.certify(r)
    assert both.label.tolist() == [0, 0, ABSTAIN] and one.label[0] == ABSTAIN and both.radius[1] > one.radius[1] * 0.99
    assert sb.check(both).all() and not sb.check(replace(both, radius=both.radius + 1e-3))[:2].any()


# ---- samplers

KINDS = (RadialGaussian, MixedNormGaussian, LinfGaussian)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d, share", [(1, 0.4), (2, 0.6), (5, 0.6), (64, 0.3), (3072, 0.08)])
def test_sampler_laws(kind, d, share):
    k = share * d
    noise, m = kind(sigma=0.5, k=k), 20_000 if d <= 64 else 1500
    z = noise.sample(torch.empty(m, d), torch.Generator().manual_seed(7)).double()
    size = z.abs().amax(1) if kind is LinfGaussian else z.norm(dim=1)
    x = (size**2 / 2 / 0.25).numpy()
    assert stats.kstest(x, lambda v: gammainc((d - k) / 2, v)).pvalue > 1e-3
    second = 0.25 * ((d - k) * (d + 2) / (3 * d) if kind is LinfGaussian else (d - k) / d)
    assert abs((z**2).mean() / second - 1) < 5 * float((z**2).mean(1).std() / (z**2).mean()) / math.sqrt(m) + 1e-6
    if d > 1:
        first = (z[:, 0] / size).numpy()
        if kind is RadialGaussian:
            assert (
                stats.kstest(first, lambda c: betainc((d - 1) / 2, (d - 1) / 2, np.clip((1 + c) / 2, 0, 1))).pvalue
                > 1e-3
            )
        if kind is LinfGaussian:
            assert stats.kstest(first[np.abs(first) < 1 - 1e-6], stats.uniform(-1, 2).cdf).pvalue > 1e-3
        assert abs(np.corrcoef(np.abs(first), x)[0, 1]) < 4 / math.sqrt(m)  # direction independent of radius
    R = (0.3 if kind is not LinfGaussian or d == 1 else 0.1 / d) * 0.5
    delta = torch.full((d,), R / math.sqrt(d) * (0.5 if d > 2 else 0.1), dtype=torch.float64)
    ratio = noise.log_density_ratio(z, delta).exp().numpy()
    assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / math.sqrt(m) + 1e-9  # E[exp L] = 1


def test_mixed_direction_in_the_plane():
    "d = 2: the angle's density is proportional to |u|_inf^-k."
    k = 1.2
    z = (
        MixedNormGaussian(sigma=1.0, k=k)
        .sample(torch.empty(40_000, 2), torch.Generator().manual_seed(0))
        .double()
        .numpy()
    )
    angle = np.arctan2(np.minimum(abs(z[:, 0]), abs(z[:, 1])), np.maximum(abs(z[:, 0]), abs(z[:, 1])))  # in [0, pi/4]
    whole = quad(lambda a: np.cos(a)**-k, 0, np.pi / 4)[0]
    cdf = np.vectorize(lambda a: quad(lambda u: np.cos(u)**-k, 0, a)[0] / whole)
    assert stats.kstest(angle[:4000], cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_log_ratio_corner_cases(kind):
    noise, delta = kind(sigma=0.3, k=0.7), torch.tensor([0.2, -0.1, 0.0], dtype=torch.float64)
    z = torch.stack([0 * delta, delta, torch.tensor([1.0, 2.5, -2.0], dtype=torch.float64), delta + 1e-7])
    ratio = noise.log_density_ratio(z, delta)
    assert (
        ratio[0] == -math.inf and ratio[1] == math.inf and ratio[2:].isfinite().all() and ratio.dtype == torch.float64
    )
    assert torch.equal(noise.log_density_ratio(z, 0 * delta), torch.zeros(4, dtype=torch.float64))
    flipped = noise.log_density_ratio(delta - z[2:3], delta)
    assert abs(flipped + ratio[2]) < 1e-12 * (1 + abs(ratio[2]))  # the reflection
    for extreme in (1e-150, 1e150):
        assert not noise.log_density_ratio(torch.full((1, 3), extreme, dtype=torch.float64), delta).isnan().any()


def test_tiny_shapes_and_reproducibility():
    for kind in KINDS:
        noise = kind(sigma=1.0, k=2.99)
        a, b = (noise.sample(torch.empty(500, 3), torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(a, b) and a.isfinite().all()
        image = noise.sample(torch.empty(4, 1, 3, 1), torch.Generator().manual_seed(3))
        assert image.shape == (4, 1, 3, 1)


@pytest.mark.parametrize(
    "d, k, q",
    [
        (64, 22.0, 0.005), (499, 174.0, 0.005), (64, 45.0, 0.005), (64, 55.0, 0.005),
        (784, 300.0, 1e-5), (20, 12.0, 0.01), (12, 10.8, 0.3), (16, 14.4, 1e-4), (20, 18.0, 0.3),
        (30, 27.0, 0.3),
    ],
)
def test_mixed_with_a_steep_law_is_never_above_a_finer_quadrature(d, k, q, monkeypatch):
    "k close to d: at the certified radius the worst case, by a much finer quadrature, still has the class above one half."
    record = Record.from_counts(
        [[100, 0]],
        [[int(round((1 - q / 2) * 10**7)), int(round(q / 2 * 10**7))]],
        10**7,
        MixedNormGaussian(sigma=1.0, k=k),
        d,
    )
    table = sb.certify(record, norm="linf")
    assert table.radius[0] > 0 and sb.check(table).all()
    finer = corners.Resolution(24, 18, 22, 4, 0.7)
    monkeypatch.setitem(corners.GRADES, "finer", {True: finer, False: finer})
    def law(t): return corners.corner_law(t, table.radius[0], d, k, "finer")
    t, miss = np.log(table.witness["lam"][0]), sb.binomial_lower(record.hits, record.n, 0.001, complement=True)[0]
    assert law(-t)[1] + np.exp(t) * (law(t)[1] - miss) > 0.5


def test_checks_compare_class_scale_and_bound_with_the_witness():
    record = Record.from_counts([[100, 0]] * 2, [[990, 10], [900, 100]], 1000, RadialGaussian(sigma=0.5, k=3), 64)
    for table in (sb.certify(record, norm="l2"), sb.certify(record, norm="l2", bilateral=True)):
        assert sb.check(table).all()
        bad = [
            replace(table, label=1 - table.label),
            replace(table, radius=table.radius * np.inf),
            replace(table, radius=table.radius * 5, witness=dict(table.witness, sigma=table.witness["sigma"] * np.inf)),
            replace(table, witness=dict(table.witness, sigma=-table.witness["sigma"])),
            replace(table, witness=dict(table.witness, lam=table.witness["lam"] * np.nan)),
        ]
        assert not any(sb.check(one).any() for one in bad)
    assert not sb.check(replace(sb.certify(record, norm="l2"), p_lower=np.full(2, 0.99999))).any()
    with pytest.raises(ValueError, match="bilateral"): sb.certify(record, norm="l2", mode="paper", bilateral=True)
    assert (
        sb.radius([0.5 + 1e-14, 0.5 + 1e-12], 64, 1, "l2").tolist() == [0.0, 0.0]
        and sb.verified_radius(np.array([0.5 - 1e-13]), 5, 2, "l2")[0][0] == 0
    )


@pytest.mark.parametrize("d, k", [(40, 7.9), (64, 12.7), (200, 39.9), (499, 99.0), (500, 59.0), (3072, 367.0)])
def test_mixed_below_the_steep_laws_keeps_its_stated_accuracy(d, k, monkeypatch):
    finer = corners.Resolution(24, 18, 22, 4, 0.7)
    monkeypatch.setitem(corners.GRADES, "finer", {True: finer, False: finer})
    R, lam = sb.verified_radius(np.array([0.005]), d, k, "mixed")
    t = np.log(lam[0])
    fine, finest = ([corners.corner_law(s * t, R[0], d, k, grade)[1] for s in (-1, 1)] for grade in ("fine", "finer"))
    value = lambda tails: tails[0] + np.exp(t) * (tails[1] - 0.005)
    assert abs(value(fine) - value(finest)) < shell_radii.accuracy(d, "mixed")


# ---- laws, where they were inexact

KINKED = [  # 1 - p_min in one dimension, by mpmath with 30 digits: masses of the Gamma law between exact kinks
    (2.31e-8, 0.5, 0.49990029604123771),
    (1e-3, 0.5, 0.47926999180431716277),
    (0.4, 0.5, 0.16672898444144044172),
    (2.0, 0.5, 0.0070201043930529391486),
    (1e-6, 0.9, 0.26745515819614376088),
    (1e-3, 0.9, 0.046004357316811003228),
    (1e-12, 0.9, 0.44158725146713325471),
    (1e-3, 0.1, 0.4991165038474125386),
    (1.0, 0.95, 3.085525990320816621e-8),
    (1e-20, 0.95, 0.40373482200646981497),
    (3.0, 0.3, 0.00069732211539409570715),
]


@pytest.mark.parametrize("R, k, tail", KINKED)
@pytest.mark.parametrize("family", sb.FAMILIES)
def test_one_dimension_to_the_last_digits(R, k, tail, family):
    assert abs(sb.p_min(R, 1, k, family, complement=True) - tail) < 1e-15


@pytest.mark.parametrize(
    "R, d, k, tail",
    [
        (1e-4, 2, 1.5, 0.4890800842330778650),
        (1e-8, 2, 1.5, 0.4998904993507799),
        (0.3, 2, 1.8, 0.00096456405004947995),
        (1e-3, 3, 2.5, 0.45899177010141427),
    ],
)
def test_a_density_with_a_pole_is_integrated_exactly(R, d, k, tail):
    "By mpmath: the density rho^(d - k - 1) has a pole at 0."
    assert abs(sb.p_min(R, d, k, "l2", complement=True) - tail) < 1e-15


@pytest.mark.parametrize("d, k", [(19, 5.0), (3, 1.0), (64, 20.0), (2, 0.3)])
def test_slopes_at_zero(d, k):
    "p_min leaves 1/2 with slope E|dL| / 2; for linf L has a gap around 0, whose edge decides."
    law = stats.chi(d - k)
    mean = law.expect(lambda m: k / m + m)
    angle = math.gamma(d / 2) / math.gamma((d + 1) / 2) / math.sqrt(math.pi) # E|cos|
    for R in (1e-6, 1e-8):
        assert abs((0.5 - sb.p_min(R, d, k, "linf", complement=True)) / R / (mean / 2) - 1) < 2e-4
        if d > 2: assert abs((0.5 - sb.p_min(R, d, k, "l2", complement=True)) / R / (mean / 2 * angle) - 1) < 2e-4


@pytest.mark.parametrize(
    "family, d, k, p",
    [
        ("l2", 1, 0.5, 0.50001), ("l2", 1, 0.5, 0.5001), ("l2", 1, 0.9, 0.55), ("l2", 2, 1.5, 0.501),
        ("linf", 19, 5.0, 0.500001), ("linf", 3, 1.0, 0.500001), ("linf", 2, 1.9, 0.6),
        ("mixed", 2, 0.5, 0.50001), ("mixed", 5, 0.5, 0.50001),
    ],
)
def test_certified_radii_next_to_one_half_need_no_more_than_they_have(family, d, k, p):
    (R,), (lam,) = shell_radii.verified_radius(np.array([1 - p]), d, k, family)
    assert R > 0 and sb.p_min(R, d, k, family) < p
    assert sb.dual_bound(lam, None, R, d, k, family, one_minus_p=1 - p) > 0.5


def test_certificates_next_to_one_half_pass_their_own_check():
    hits = np.array([501_550, 501_545, 501_600, 502_000, 510_000])
    counts = np.stack([hits, 10**6 - hits], 1)
    for noise, norm, dim in (
        (LinfGaussian(sigma=1.0, k=5), "linf", 19),
        (LinfGaussian(sigma=1.0, k=1), "linf", 3),
        (RadialGaussian(sigma=1.0, k=0.5), "l2", 1),
        (RadialGaussian(sigma=1.0, k=1.9), "l2", 2),
    ):
        table = sb.certify(Record.from_counts(np.tile([100, 0], (5, 1)), counts, 10**6, noise, dim), norm=norm)
        assert table.radius[-1] > 0 and sb.check(table).all()
        exact = sb.radius(
            None,
            dim,
            noise.k,
            "linf" if norm == "linf" else "l2",
            one_minus_p=binomial_lower(hits, 10**6, 0.001, complement=True),
        )
        assert np.all(table.radius <= exact)
    found = sb.certify(
        Record.from_counts([[100, 0]], [[501_550, 498_450]], 10**6, LinfGaussian(sigma=1.0, k=5), 19), norm="linf"
    ).radius[0]
    assert 1.70e-6 < found < 1.724e-6 # slope 2.54457, p - 1/2 = 4.385e-6


def test_mixed_in_few_dimensions():
    "References from computations of other kinds: known to ten and to nine digits."
    assert abs(sb.p_min(0.4, 4, 2.0, "mixed", complement=True) - 0.0941096527) < 3e-10
    assert abs(sb.discrepancy(3.0, 0.4, 2, 1.5, "mixed") - 2.41385583) < 1e-8
    q = binomial_lower(9100, 10_000, 0.001, complement=True)
    table = sb.certify(
        Record.from_counts([[100, 0]], [[9100, 900]], 10_000, MixedNormGaussian(sigma=1.0, k=0.5), 2), norm="linf"
    )
    assert (
        sb.check(table).all()
        and sb.lower_bound(1 - q, table.radius[0], 2, 0.5, "mixed") > 0.5
        and table.radius[0] < 0.75663942
    )


@pytest.mark.parametrize(
    "d, k",
    [
        (2, 0.5), (2, 1.5), (3, 1.0), (4, 2.0), (5, 3.0), (7, 2.0), (8, 3.0), (12, 6.0), (24, 10.0),
        (64, 30.0), (784, 300.0),
    ],
)
def test_mixed_is_accurate_in_any_dimension(d, k, monkeypatch):
    "Many more nodes of every kind change no tail by more than a part of the accuracy that certificates count on."
    more = corners.Resolution(24, 16, 22, 4, 0.9)
    monkeypatch.setitem(corners.GRADES, "more", {True: more, False: more})
    R = 1.2 / math.sqrt(d) * math.sqrt((d - k) / d)
    fine, finest = (corners.corner_law(-0.7, R, d, k, grade) for grade in ("fine", "more"))
    assert np.allclose(fine, finest, rtol=0, atol=shell_radii.accuracy(d, "mixed") / 4)
    assert abs(sum(fine) - 1) < 1e-12


@pytest.mark.parametrize(
    "d, k, q",
    [
        (8, 7.2, 0.2), (11, 9.9, 0.2), (12, 10.8, 0.2), (14, 12.6, 0.49), (20, 18.0, 0.2), (64, 38.4, 0.01),
        (64, 57.6, 0.2), (300, 240.0, 0.01), (300, 270.0, 0.01), (784, 705.6, 0.1), (3072, 2457.6, 0.01), (3072, 2764.8, 0.1),
    ],
)
def test_steep_mixed_laws_are_as_exact_as_they_say(d, k, q, monkeypatch):
    "At the median of L, where radii are found: P(L > -t) was off by .002 at d = 784, k = .9 d, and by 4e-7 at d = 8."
    most = corners.Resolution(28, 22, 24, 6, 0.7, cuts=21 if d <= 20 else 13, zooms=14, apart=0.45)
    monkeypatch.setitem(corners.GRADES, "most", {True: most, False: most})
    R = float(sb.radius(None, d, k, "mixed", one_minus_p=q))
    (t,), _ = shell_values.values(np.zeros(1), np.array([R]), d, k, "mixed")
    for s in (t, -t):
        fine, finest = (corners.corner_law(s, R, d, k, grade) for grade in ("fine", "most"))
        assert np.allclose(fine, finest, rtol=0, atol=shell_radii.accuracy(d, "mixed"))


@pytest.mark.parametrize("d, k", [(21, 2.0), (24, 20.0), (32, 10.0), (40, 30.0)])
def test_mixed_by_waves_and_by_cells(d, k, monkeypatch):
    "Two computations of the inner sums: Fourier series and a reflected tail, or piecewise polynomials."
    for z in (0.4, 3.0):
        R, t = z / math.sqrt(d) * math.sqrt((d - k) / d), z * z / 2
        corners.corner_law.cache_clear()
        waves = [corners.corner_law(s * t, R, d, k)[1] for s in (-1, 1)]
        monkeypatch.setattr(corners, "CELLS", d)
        corners.corner_law.cache_clear()
        cells = [corners.corner_law(s * t, R, d, k)[1] for s in (-1, 1)]
        monkeypatch.undo()
        assert np.allclose(waves, cells, rtol=1e-11, atol=0)
    corners.corner_law.cache_clear()


def test_one_pass_over_the_places_proves_a_mixed_radius(monkeypatch):
    "Both tails of a dual bound come from one pass a grade, at a single count or at many."
    passes, places = [], corners.places
    monkeypatch.setattr(corners, "places", lambda *args: passes.append(args) or places(*args))
    for cache in (corners.corner_law, corners._both_sides):
        cache.cache_clear()
    lam, R = np.exp([0.3, 0.5, 0.8]), np.array([0.1, 0.12, 0.15])
    sb.dual_bound(lam, None, R, 64, 5.0, "mixed", one_minus_p=0.1)
    assert len(passes) == 6


@pytest.mark.parametrize("d", [2, 3, 4, 5, 6, 7, 8, 11, 16, 30, 40, 41, 64])
def test_mixed_at_k_zero_in_few_dimensions(d):
    for z in (0.1, 3.0):
        below, above = (
            corners.corner_law(-z * z / 2, z / math.sqrt(d), d, 0.0)[0],
            corners.corner_law(z * z / 2, z / math.sqrt(d), d, 0.0)[1],
        )
        assert abs(below - 0.5) < 1e-11 and abs(above - ndtr(-z)) < 1e-11


def test_far_tails_and_refusals():
    assert abs(sb.radius(None, 3072, 0, "l2", one_minus_p=1e-301) - 37.1) < 0.02
    for d in (64, 3072):
        for z in (8.0, 12.0, 30.0): assert abs(shells.shell_law(z * z / 2, z, d, 0.0, "l2")[1] / ndtr(-z) - 1) < 1e-12
        assert abs(sb.radius(None, d, 1e-9, "l2", one_minus_p=ndtr(-12.0)) / 12 - 1) < 1e-7
    for call, text in (
        (lambda: sb.radius(None, 3072, 500, "l2", one_minus_p=1e-301), "at least 1e-250"),
        (lambda: sb.radius(None, 10, 2, "mixed", one_minus_p=1e-15), "at least 1e-10"),
        (lambda: sb.radius(0.9, 64, 60, "mixed"), "at most 0.9 d"),
        (lambda: sb.radius(None, 5, 1, "l2"), "p must"),
    ):
        with pytest.raises(ValueError, match=text): call()
    few, many = (shell_radii.verified_radius(np.array([q]), 8, 2.0, "mixed")[0][0] for q in (1e-15, 1e-10))
    assert few == many > 0 # a smaller 1 - p certifies no less


def test_laws_of_linf_at_k_zero_add_up():
    for R, t, d in ((0.00274, 0.000685, 3), (0.0892, 0.104, 3), (0.000178, 0.000117, 2)):
        assert abs(sum(shells.shell_law(t, R, d, 0.0, "linf")) - 1) < 1e-14


# ---- claims

@pytest.mark.parametrize("bilateral", [False, True])
def test_a_certificate_with_another_claim_fails(bilateral):
    table = sb.certify(record(), norm="l2", bilateral=bilateral)
    kept = table.label != ABSTAIN
    assert sb.check(table).all()
    sealed = replace(table, noise=dict(name="RadialGaussian", sigma=0.5, k=20), dim=64)
    assert sb.check(sealed).all()
    changes = [
        dict(norm="linf"), dict(norm="l3"), dict(scope="direction"), dict(scope="features"),
        dict(alpha=1e-90), dict(alpha=0.5), dict(alpha_scope="joint"), dict(n=table.n * 2),
        dict(n=np.ones(len(table), int)),
        dict(noise=dict(name="RadialGaussian", sigma=1.0, k=20)),
        dict(noise=dict(name="LinfGaussian", sigma=0.5, k=20)),
        dict(noise=dict(name="Gaussian", sigma=0.5)),
        dict(dim=63),
    ]
    for change in changes: assert not sb.check(replace(sealed, **change))[kept].any(), change


def test_monte_carlo_certificates_are_proved_again_from_counts():
    table = sb.certify_monte_carlo(record(), radii=np.linspace(0.2, 1.6, 5), draws=20_000)
    kept = table.label != ABSTAIN
    assert sb.check_monte_carlo(table).all() and kept.sum() >= 4
    changes = [
        dict(alpha=1e-4), dict(alpha=1e-12), dict(scope="direction"), dict(alpha_scope="joint"),
        dict(radius=table.radius * 1.01),
        dict(n=np.full(len(table), 100)),
        dict(label=1 - table.label),
        dict(p_lower=np.full(len(table), 0.99999)),
    ]
    for change in changes: assert not sb.check_monte_carlo(replace(table, **change))[kept].any(), change
    for name, value in dict(share=0.9, rank=20_000, radii=0, draws=100, above=0).items():
        assert not sb.check_monte_carlo(replace(table, witness={**table.witness, name: np.full(len(table), value)}))[
            kept
        ].any(), name


def test_a_law_that_is_not_resolved_is_refused_with_its_reason(monkeypatch):
    "A flat stretch of the law teaches a secant nothing: no raw error, but a sentence."
    monkeypatch.setattr(shell_values, "corner_law", lambda *args, **more: (0.4, 0.6))
    with pytest.raises(ValueError, match="not resolved at R"):
        sb.radius(0.9, 64, 20, "mixed")


@pytest.mark.parametrize("d, k, p", [(150_528, 50_000, 0.9), (2, 0.2, 0.501)])
def test_where_secants_wander_the_quantile_is_bracketed(d, k, p, monkeypatch):
    "A coarse law too coarse for its slope, and a density that is nearly 0 beside the median."
    finer = corners.Resolution(24, 18, 22, 4, 0.7)
    monkeypatch.setitem(corners.GRADES, "finer", {True: finer, False: finer})
    R = float(sb.radius(p, d, k, "mixed"))
    t = shell_values.quantile(lambda t: corners.corner_law(t, R, d, k, "finer"), 0.0, 0.0, R)
    assert abs(corners.corner_law(-t, R, d, k, "finer")[0] - p) < 1e-9


# ---- work, counted: no call may take a minute

@pytest.mark.parametrize(
    "d, k, q", [(1, 0.995, 1e-9), (1, 0.995, 0.1), (2, 1.98, 0.01), (12, 11.995, 0.1), (784, 783.2, 1e-4)]
)
@pytest.mark.parametrize("family", ["l2", "linf"])
def test_next_to_the_pole_a_radius_takes_hundreds_of_laws_not_thousands(d, k, q, family, monkeypatch):
    laws, law = [], shell_values.shell_law
    monkeypatch.setattr(shell_values, "shell_law", lambda *args: laws.append(args) or law(*args))
    (R,), (lam,) = shell_radii.verified_radius(np.array([q]), d, k, family)
    assert len(laws) <= 1500 # ten thousand before
    exact = sb.radius(None, d, k, family, one_minus_p=q)
    assert R <= exact and (R == 0 or R > 0.9 * exact)
    if R > 0:
        assert sb.dual_bound(lam, None, R, d, k, family, one_minus_p=q) > 0.5
        assert sb.p_min(R * 1.01, d, k, family, complement=True) < q


@pytest.mark.parametrize("d, k", [(20, 5.0), (784, 100.0), (3072, 2000.0)])
def test_many_radii_of_linf_come_from_a_table_and_none_is_solved_alone(d, k, monkeypatch):
    alone, solve = [], shell_radii._solved_and_proved
    monkeypatch.setattr(shell_radii, "_solved_and_proved", lambda *args: alone.append(args) or solve(*args))
    q = np.logspace(-6, np.log10(0.49), 40)
    R, lam = shell_radii.verified_radius(q, d, k, "linf")
    assert not alone # all of them before: a minute for some hundred
    exact = sb.radius(None, d, k, "linf", one_minus_p=q[::8])
    assert np.all(R[::8] < exact) and np.all(R[::8] > exact * (1 - 2e-6))
    assert np.all(sb.dual_bound(lam, None, R, d, k, "linf", one_minus_p=q) > 0.5)


def test_many_mixed_radii_are_as_sharp_as_one():
    "No polynomial follows these laws: a wrong multiplier had cost 4e-5 of the radius."
    q = np.linspace(0.2, 0.3, shell_radii.SOLVED + 2)
    R, _ = shell_radii.verified_radius(q, 16, 8.0, "mixed")
    exact = sb.radius(None, 16, 8.0, "mixed", one_minus_p=q[::4])
    assert np.all(R[::4] < exact) and np.all(R[::4] > exact * (1 - 1e-7))


LAWS = [(3, 2.7, 0.1, 24), (5, 4.5, 1e-4, 24), (16, 14.4, 0.1, 24), (24, 21.6, 0.49, 14), (30, 27.0, 0.49, 14), (784, 235.2, 0.45, 20)]


@pytest.mark.parametrize("d, k, q, most", LAWS)
def test_a_mixed_radius_takes_a_dozen_laws(d, k, q, most, monkeypatch):
    laws, law = [], corners.places
    monkeypatch.setattr(corners, "places", lambda *args: laws.append(args) or law(*args))
    for cache in (corners.corner_law, corners._both_sides):
        cache.cache_clear()
    (R,), _ = shell_radii.verified_radius(np.array([q]), d, k, "mixed")
    assert R > 0 and len(laws) <= most # 37 before for steep laws, 19 to 42 for small losses


@pytest.mark.parametrize(
    "d, k, q", [(2, 1.0, 0.3), (3, 1.5, 0.45), (16, 14.4, 0.49), (30, 27.0, 0.49), (300, 240.0, 0.45)]
)
def test_a_mixed_radius_is_the_root_of_its_law_to_the_stated_accuracy(d, k, q):
    "The class of probability p keeps one half at its radius to 1e-9, at the quantile itself and by the law of certificates."
    R = float(sb.radius(None, d, k, "mixed", one_minus_p=q))
    t = shell_values.quantile(lambda t: corners.corner_law(t, R, d, k), 0.0, 0.0, R)
    kept = corners.corner_law(-t, R, d, k)[1] # V(p) at the worst shift; the mass beyond t is one half
    other = sb.p_min(R, d, k, "mixed", complement=True)
    assert abs(kept - q) < 1e-9 and abs(other - q) < 1e-9


def test_a_quantile_out_of_reach_is_refused_with_its_reason():
    for cdf in (lambda t: (0.4, 0.6), lambda t: (0.1, 0.9)):
        with pytest.raises(ValueError, match="below double precision"):
            shell_values.quantile(cdf, 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="leaves double precision"):
        shells.log_gamma_range(0.01, 1e304)


ASKED = dict(
    radius=lambda f, *law: f(None, *law, one_minus_p=[0.3, 1e-3, 1e-15]),
    p_min=lambda f, *law: f([0.01, 0.7, 3.0], *law),
    bilateral_radius=lambda f, *law: f([0.7, 0.999], [0.15, 5e-4], *law),
    llr_cdf=lambda f, *law: f([-1.0, 0.1, 3.0], 0.5, *law),
    discrepancy=lambda f, *law: f([0.5, 2.0], 0.5, *law),
    lower_bound=lambda f, *law: f([0.6, 0.9], 0.5, *law),
)


@pytest.mark.parametrize(
    "d, k, family",
    [
        (9, 2.0, "mixed"), (5, 0.5, "mixed"), (19, 5.0, "linf"), (3, 1.0, "linf"), (1, 0.5, "linf"),
        (64, 0.9, "l2"), (7, 5.0, "l2"), (1, 0.5, "l2"),
    ],
)
@pytest.mark.parametrize("name", ASKED)
def test_the_mathematics_does_not_depend_on_the_callers_float_setting(name, d, k, family):
    "Every tail that underflowed raised FloatingPointError; bit for bit the same, and the caller's setting stays."
    function = getattr(sb, name, None) or getattr(shell_values, name)

    def asked():
        try: return np.asarray(ASKED[name](function, d, k, family))
        except ValueError as error: return str(error) # refused alike
    want = asked()
    with np.errstate(all="raise"):
        found = asked()
        assert set(np.geterr().values()) == {"raise"}
    assert (found == want) if isinstance(want, str) else np.array_equal(found, want, equal_nan=True)


@pytest.mark.parametrize(
    "family, d, k, R, t, tail",
    [  # by other ways: rays through the faces of the square; mpmath over the norm, cut at every kink
        ("mixed", 2, 0.5, 0.6, 0.1, 0.26625333062668),
        ("mixed", 2, 1.5, 0.4, 0.3, 0.14848842330588),
        ("mixed", 2, 0.0, 1.0, 0.3, 0.17898533632216),
        ("linf", 2, 0.0, 5.192450858772167, -5.192450858772167**2 / 2, 0.279399733603636), # at the kink of rho = 0
        ("linf", 2, 1.0, 0.0033786113893950207, 0.006757445565275801, 0.489999937893647),
        ("linf", 7, 3.5, 0.05375672432395527, 0.20115105651670442, 0.399999879900974),
    ],
)
def test_laws_found_by_other_ways(family, d, k, R, t, tail):
    assert sum(shell_values.law_at(t, R, d, k, family)) == pytest.approx(1, abs=1e-14)
    assert shell_values.law_at(t, R, d, k, family)[1] == pytest.approx(tail, abs=2e-13)


@pytest.mark.parametrize("d, q, R", [
    (2, 1e-20, 8.668484714757533), (4, 1e-100, 19.91903615406644), # by halves of another law
    (2, 1e-80, 18.36588273904), (3, 1e-100, 20.23471443893), (5, 1e-150, 24.48690292993), # by quadrature at 60 digits
])
def test_the_first_guess_of_a_median_is_no_root(d, q, R):
    "Without k a search of the family linf begins at -R^2/2, where half of the law was lost to rounding: 6.54 and 19.94 before."
    assert sb.radius(None, d, 0, "linf", one_minus_p=q) == pytest.approx(R, rel=1e-9)
    assert sb.verified_radius(np.array([q]), d, 0, "linf")[0][0] == pytest.approx(R, rel=1e-8)


@pytest.mark.parametrize(
    "family, d, k, R, w, tail", # by quadrature at 60 digits, from the norms that are reached
    [
        ("l2", 2, 1.98, 0.001, 12.0, 3.28392467222e-13),
        ("l2", 2, 1.5, 2.0, 12.0, 1.67579115772e-12),
        ("l2", 3, 2.95, 0.001, 12.0, 2.7275197369e-18),
        ("linf", 2, 1.98, 0.001, 12.0, 3.28393153243e-13),
        ("linf", 2, 1.5, 2.0, 12.0, 1.67581003464e-12),
        ("linf", 3, 2.95, 0.5, 9.0, 2.66140317647e-14),
    ],
)
def test_rare_levels_beside_the_pole_of_the_shifted_noise(family, d, k, R, w, tail):
    "They count e^t times in a bound; kinks around rho = R were known to 1e-16 R, and tails to a few millionths."
    t = k * w + R * R / 2
    assert shell_values.law_at(t, R, d, k, family)[1] == pytest.approx(tail, rel=2e-11)


def test_no_radius_is_proved_from_a_tail_that_rounding_enlarged():
    "1.5119542e-05 was proved; V there lies 1.2e-7 below 1/2 (incomplete gamma functions at 50 digits)."
    assert sb.radius(None, 1, 0.98, "l2", one_minus_p=1e-12) == pytest.approx(1.5119359033192706e-05, rel=1e-11)
    assert sb.verified_radius(np.array([1e-12]), 1, 0.98, "l2")[0][0] < 1.5119359033192706e-05


@pytest.mark.parametrize(
    "family, d, k, R",
    [("l2", 1, 0.98, 1e-3), ("l2", 2, 1.9, 0.5), ("l2", 20, 7.0, 2.0), ("linf", 2, 0.0, 17.0), ("linf", 3, 2.95, 0.5), ("linf", 300, 50.0, 0.1)],
)
@pytest.mark.parametrize("q", [0.3, 1e-4, 1e-12])
def test_no_multiplier_proves_more_than_there_is(family, d, k, R, q):
    "Weak duality, also at the levels where laws have their kinks, and a hair beside them."
    value = sb.lower_bound(1 - q, R, d, k, family) if q > 1e-9 else shell_values.values(-ndtri([q]), np.array([R]), d, k, family)[1][0]
    nearest = 2 * k / (R + math.sqrt(R * R + 4 * k))
    kink = R * nearest + R * R / 2 + (k * math.log1p(R / nearest) if k else 0)
    levels = np.array([0.0, R * R / 2, kink, kink * (1 - 1e-12), kink * (1 + 1e-12), 5.0, 20.0, 36.0])
    bounds = sb.dual_bound(np.exp(np.concatenate([levels, -levels])), None, R, d, k, family, one_minus_p=q)
    assert bounds.max() < value + 1e-13


@pytest.mark.parametrize("t", [-50.0, 50.0])
def test_levels_far_beyond_a_mixed_law_warn_of_nothing(t, recwarn):
    sb.dual_bound(np.exp(t), None, 1e-30, 3, 2.7, "mixed", one_minus_p=0.3)
    assert not recwarn.list


@pytest.mark.parametrize("q", [0.5 - 1e-8, 0.4, 1e-9])
def test_without_k_mixed_noise_is_gaussian_and_certified_as_such(q):
    "Errors of a law that is integrated were paid for: 100 % of a radius next to 1/2."
    radius = -ndtri(q) / math.sqrt(50)
    assert sb.verified_radius(np.array([q]), 50, 0.0, "mixed")[0][0] == pytest.approx(radius, rel=1e-4)
    assert sb.verified_radius(np.array([q]), 50, 0.0, "mixed")[0][0] < radius


@pytest.mark.parametrize("k, q", [(5.310435048462596e-12, 1.6668780886375524e-12), (1.2877755596185645e-12, 6.696974877881629e-147)])
def test_one_dimension_with_k_next_to_zero_is_almost_gaussian(k, q):
    "Three kinks lie within rounding of R."
    assert sb.radius(None, 1, k, "l2", one_minus_p=q) == pytest.approx(sb.radius(None, 1, 0, "l2", one_minus_p=q), rel=1e-11)


@pytest.mark.parametrize("R, k", [(0.014102944242242007, 1.9692866250888252), (0.4157905474828159, 0.5903327154330977)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_law_rises_where_two_roots_appear(R, k, sign):
    "At d = 2 the integrand bends there as sharply as at the roots; just before, the law was off by up to 4e-7."
    nearest = 2 * k / (R + math.sqrt(R * R + 4 * k))
    t = sign * (k * math.log1p(R / nearest) + R * nearest + R * R / 2)
    steps = np.array([-1e-10, -1e-13, 0.0, 1e-13, 1e-10])
    below = np.array([shell_values.law_at(t + step, R, 2, k, "l2")[0] for step in steps])
    assert np.all(np.diff(below) > -1e-14)


@pytest.mark.parametrize(
    "family, d, k, R, t",
    [
        ("l2", 1, 0.98, 1.5e-5, 23.0), ("l2", 2, 1.98, 0.5, 18.0), ("l2", 50, 20.0, 3.0, 9.0), ("linf", 3, 2.95, 0.5, 26.0),
        ("linf", 3, 0.0, 17.0, 144.4), ("mixed", 2, 0.6, 4.1, 18.4), ("mixed", 3, 2.7, 1.06, 8.5), ("mixed", 5, 1.5, 2.55, 18.2),
        ("mixed", 8, 7.2, 0.57, 8.7), ("mixed", 24, 7.2, 1.1, 18.2),
    ],
)
def test_tails_of_both_sides_belong_to_one_law(family, d, k, R, t):
    "P(L > -t) + e^t P(L > t) has the slope e^t P(L > t): where a shift is undone, L changes its sign."
    def above(s): return shell_values.law_at(s, R, d, k, family)[1]
    def bound(s): return above(-s) + math.exp(s) * above(s)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    grown = 0.05 * sum(w * math.exp(s) * above(s) for w, s in zip(weights, t + 0.05 * (1 + nodes)))
    assert grown > 1e-5 # something to be seen
    assert bound(t + 0.1) - bound(t) == pytest.approx(grown, abs=2e-10 if family == "mixed" else 2e-13)


@pytest.mark.parametrize("d", [2, 3, 17])
@pytest.mark.parametrize("R", [0.5, 4.0, 12.0, 17.0, 18.96])
def test_without_k_the_law_goes_on_at_the_level_that_has_no_kink(d, R):
    "At -R^2/2, a share of 1/2 at small rho was rounded to 0: .5 for .74 at d = 2, R = 17."
    middle = -R * R / 2
    below, here, above = (shell_values.law_at(t, R, d, 0.0, "linf")[0] for t in (middle - 1e-9, middle, middle + 1e-9))
    assert below <= here <= above
    assert above - below < 1e-8


@pytest.mark.parametrize("noise, norm", [(MixedNormGaussian(sigma=0.5, k=1.0), "linf"), (RadialGaussian(sigma=0.5, k=1.0), "l2")])
def test_unanimous_votes_are_certified_from_both_sides(noise, norm):
    "The errors of tails were magnified by multipliers beside which the tails are small: from 100,000 votes on radius 0."
    n = np.array([1000, 100_000, 10**11])
    votes = Record(selection=np.tile([9, 1], (3, 1)), counts=np.stack([n, 0 * n], 1), n=n, noise=noise, dim=3)
    both = sb.certify(votes, norm=norm, bilateral=True, alpha=0.002)
    one = sb.certify(votes, norm=norm, alpha=0.001) # of two classes, half of alpha for each side is all of it
    np.testing.assert_allclose(both.radius, one.radius, rtol=1e-5)
    assert sb.check(both).all() and not sb.check(replace(both, radius=both.radius * (1 + 1e-5))).any()


@pytest.mark.parametrize("family, d, k", [("l2", 3, 1.5), ("l2", 16, 14.5)])
def test_an_image_loses_nothing_among_many(family, d, k):
    "With k near d the table of many rows does not fit: a radius far too small is proved as well, and was taken."
    one_minus_p = np.array([0.45, 0.3, 0.1, 0.01, 1e-3])
    others = np.linspace(0.02, 0.48, 13)
    alone = sb.verified_radius(one_minus_p, d, k, family)[0]
    among = sb.verified_radius(np.concatenate([one_minus_p, others]), d, k, family)[0]
    np.testing.assert_allclose(among[:5], alone, rtol=5e-6)
    assert np.all(np.diff(among[5:]) < 0), "less certain, and no less far"
