"T-CERTIFY: precision against 40-digit references, exact coverage, edge cases, bad input, certificates that can be checked."
import math
import warnings
from types import SimpleNamespace
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr

from robust_smooth.maths import bounds
from robust_smooth.methods import gaussian, tcertify
from robust_smooth.core.record import Record
from robust_smooth.core.values import ABSTAIN
from robust_smooth.noise.additive import Gaussian, Uniform

# counts (class 0 claimed), n, alpha, radii at sigma = 1 by mpmath with 40 digits: tails summed term by term, roots by the secant method
REFERENCES = [
    (
        [450, 150, 200, 200],
        1000,
        0.001,
        dict(sound=0.21731658157813669, verified=0.22574050422850109, cohen=0.0, paper=0.0, paper_no_cap=0.0),
    ),
    (
        [700, 200, 60, 40],
        1000,
        0.001,
        dict(
            sound=0.53945778807540504, verified=0.54801889758955452, cohen=0.39471134460417746,
            paper=0.53945778807540504,
            paper_no_cap=0.53945778807540504,
        ),
    ),
    (
        [990, 10, 0, 0],
        1000,
        0.001,
        dict(
            sound=1.9588797907657632, verified=1.9780095821411992, cohen=1.9780095821411992,
            paper=1.9780095821411992,
            paper_no_cap=1.9588797902594758,
        ),
    ),
    (
        [1000, 0, 0],
        1000,
        0.001,
        dict(
            sound=2.4289127260106861, verified=2.4632626147808088, cohen=2.4632626147808088,
            paper=2.4632626147808088,
            paper_no_cap=2.4130719494665941,
        ),
    ),
    (
        [100000, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        100000,
        0.001,
        dict(
            sound=3.7877588659398559, verified=3.8114565633899519, cohen=3.8114565633899519,
            paper=3.8114565633899519, paper_no_cap=3.756140376301288,
        ),
    ),
    (
        [99990, 5, 5, 0],
        100000,
        0.001,
        dict(
            sound=3.5272886423391154, verified=3.5407366430447583, cohen=3.4902076801466488,
            paper=3.5204116905545959,
            paper_no_cap=3.5204116905545959,
        ),
    ),
    (
        [50600, 49000, 400],
        100000,
        0.001,
        dict(
            sound=0.0069998476416337842, verified=0.0077937120293872208, cohen=0.0027798346398473051,
            paper=0.0069998476416337842,
            paper_no_cap=0.0069998476416337842,
        ),
    ),
    (
        [50490, 49510],
        100000,
        0.001,
        dict(
            sound=0.0, verified=2.2431250945137198e-5, cohen=2.2431250945137198e-5,
            paper=2.2431250945137198e-5, paper_no_cap=0.0,
        ),
    ),
    (
        [30000, 29000, 21000, 20000],
        100000,
        0.001,
        dict(sound=0.00072373844837709854, verified=0.0015609199842456462, cohen=0.0, paper=0.0, paper_no_cap=0.0),
    ),
    (
        [12, 0, 0],
        12,
        0.001,
        dict(
            sound=0.077229547427997203, verified=0.15690800666514136, cohen=0.15690800666514136,
            paper=0.15690800666514136,
            paper_no_cap=0.03985451042723538,
        ),
    ),
    (
        [9000] + [100] * 10,
        10000,
        0.000001,
        dict(
            sound=1.6744924095597073, verified=1.6779854110831968, cohen=1.200734113999215,
            paper=1.6673780228871138,
            paper_no_cap=1.6673780228871138,
        ),
    ),
    (
        [55, 20, 25],
        100,
        0.2,
        dict(
            sound=0.2183582716350399, verified=0.27519706515041757, cohen=0.0072845272210446141,
            paper=0.0072845272210446141, paper_no_cap=0.0,
        ),
    ),
    (
        [999999, 1, 0],
        1000000,
        0.001,
        dict(
            sound=4.2649213288696396, verified=4.2826657077515676, cohen=4.2826657077515676,
            paper=4.2826657077515676,
            paper_no_cap=4.2638665196197602,
        ),
    ),
]
MODES = ("sound", "paper")

def votes(counts, n=None, sigma=1.0, selection=None):
    counts = np.atleast_2d(counts)
    return Record.from_counts(
        np.eye(counts.shape[1], dtype=int)[np.zeros(len(counts), int)] if selection is None else selection,
        counts,
        counts.sum(1) if n is None else n,
        Gaussian(sigma=sigma),
        10,
    )

def certify(record, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tcertify.certify(record, **options)

def joint(record, alpha=0.001):
    "Radii of the conjecture, both sides at the full level; no certificate is made of it."
    found = tcertify._claims(record.selection, record.counts, record.n, tcertify.Sharing(alpha, "joint"))
    kept = found["radius"] > 0
    return SimpleNamespace(radius=record.noise.sigma * found["radius"], label=np.where(kept, found["label"], ABSTAIN))

def random_votes(rng, images=60, classes=6, n=2000, sigma=0.5, spread=0.5):
    masses = rng.dirichlet(np.full(classes, spread), images)
    return Record.from_counts(rng.multinomial(100, masses), rng.multinomial(n, masses), n, Gaussian(sigma=sigma), 64)

@pytest.mark.parametrize("counts, n, alpha, expected", REFERENCES)
def test_radii_agree_with_high_precision(counts, n, alpha, expected):
    record = votes(counts)
    found = dict(
        sound=certify(record, alpha=alpha),
        verified=joint(record, alpha),
        cohen=certify(record, alpha=alpha, t=1.0, half_rule=True),
        paper=certify(record, alpha=alpha, mode="paper"),
        paper_no_cap=certify(record, alpha=alpha, mode="paper", cap=False),
    )
    for name, value in expected.items():
        radius = found[name].radius[0]
        # older SciPy: limits give away more
        assert radius == pytest.approx(value, rel=1e-10, abs=1e-12 if bounds.EARLIER else 1e-14), name
        assert (found[name].label[0] == ABSTAIN) == (value == 0), name

def test_batch_is_loop_and_radius_scales_with_sigma():
    record = random_votes(np.random.default_rng(0))
    for mode in MODES:
        whole = certify(record, mode=mode)
        assert np.array_equal(
            whole.radius, np.concatenate([certify(record[i], mode=mode).radius for i in range(len(record))])
        )
        twice = certify(
            Record.from_counts(record.selection, record.counts, record.n, Gaussian(sigma=1.0), 64), mode=mode
        )
        assert np.allclose(twice.radius, 2 * whole.radius, rtol=1e-14)

def test_the_conjecture_dominates_and_even_split_of_two_classes_is_cohen_at_half_alpha():
    rng = np.random.default_rng(1)
    for spread in (0.1, 0.5, 3.0):
        record = random_votes(rng, spread=spread)
        best = joint(record).radius
        assert np.all(best >= gaussian.certify(record).radius - 1e-15)
        for options in (dict(), dict(t=0.9), dict(t="selection"), dict(mode="paper"), dict(mode="paper", cap=False)):
            assert np.all(best >= certify(record, **options).radius - 1e-15)
    two = random_votes(rng, classes=2)
    assert np.allclose(certify(two, t=0.5).radius, gaussian.certify(two, alpha=0.0005).radius, rtol=1e-12)
    assert np.allclose(joint(two).radius, gaussian.certify(two).radius, rtol=1e-12)

def test_more_hits_never_shrink_the_radius():
    for mode in MODES:
        radii = np.array([certify(votes([top, 900 - top, 100]), mode=mode).radius[0] for top in range(300, 901, 20)])
        assert np.all(np.diff(radii) >= 0) and radii[0] == 0 < radii[-1], mode

def test_paper_search_equals_brute_force():
    record = random_votes(np.random.default_rng(2), images=25, classes=12, n=5000, spread=0.1)
    found = certify(record, mode="paper")
    best, at = np.zeros(len(record)), np.full(len(record), np.nan)
    for t in tcertify.RATIOS:
        low, high, q_low, q_high = tcertify.limits(
            record.counts, record.selected, record.n, 0.001 * t, 0.001 * (1 - t), "sum"
        )
        radius = np.where(low > 0.5, tcertify.interval_radius(low, high, 0.5, q_low, q_high), 0.0)
        at, best = np.where(radius > best, t, at), np.maximum(best, radius)
    assert np.array_equal(found.radius, np.where(found.label == ABSTAIN, 0, best))
    kept = found.label != ABSTAIN
    assert kept.sum() > 10 and np.allclose(found.details["level_top"][kept], 0.001 * at[kept], rtol=1e-12)

@pytest.mark.parametrize("classes, n", [(2, 30), (3, 14), (4, 9)])
@pytest.mark.parametrize("alpha", [0.01, 0.2])
def test_failure_probability_is_within_alpha(classes, n, alpha):
    rng = np.random.default_rng(3)
    for p in [
        *rng.dirichlet(np.ones(classes), 4),
        np.full(classes, 1 / classes),
        np.r_[0.5, 0.5, np.zeros(classes - 2)],
    ]:
        for mode in (*MODES, "joint"): assert tcertify.failure_probability(p, n, alpha, mode) <= alpha * (1 + 1e-9)
        for mode in ("sound", "joint"):
            assert tcertify.failure_probability(p, n, alpha, mode, reuse=True) <= alpha * (1 + 1e-9)

def test_failure_probability_values():
    assert tcertify.failure_probability((0.5, 0.5), 100, 0.001, "paper", True) / 0.001 == pytest.approx(
        1.78993, abs=1e-5
    )
    assert tcertify.failure_probability((0.5, 0.5), 100_000, 0.001, "paper", True) / 0.001 == pytest.approx(
        1.9622, abs=1e-4
    )
    # level 0.002: 17 of 20 is the smallest certifying count
    by_hand = 2 * sum(math.comb(20, k) for k in range(17, 21)) / 2**20
    assert tcertify.failure_probability((0.5, 0.5), 20, 0.002, "paper", True) == pytest.approx(by_hand, rel=1e-9)

def test_simulated_images_fail_at_most_alpha():
    rng, p, n, images, alpha = np.random.default_rng(4), np.array([0.42, 0.33, 0.25]), 300, 40_000, 0.05
    counts = rng.multinomial(n, p, images)
    record = Record.from_counts(rng.multinomial(100, p, images), counts, n, Gaussian(sigma=1.0), 2)
    truth = float(tcertify.interval_radius(0.42, 0.33))
    for mode in MODES:
        result = certify(record, alpha=alpha, mode=mode)
        false = ((result.label > 0) | (result.radius > truth)).mean()
        assert false <= alpha + 4 * np.sqrt(alpha / images)

def test_half_space_is_never_over_certified():
    sigma, distance, rng = 0.5, 0.3, np.random.default_rng(5)
    p = float(ndtr(distance / sigma))
    hits = rng.binomial(10_000, p, 3000)
    record = Record.from_counts(
        np.tile([80, 20, 0], (3000, 1)),
        np.stack([hits, 10_000 - hits, 0 * hits], axis=1),
        10_000,
        Gaussian(sigma=sigma),
        2,
    )
    for mode in MODES: assert (certify(record, mode=mode).radius > distance).mean() <= 0.001 + 4 * np.sqrt(0.001 / 3000)

def test_edge_cases():
    assert certify(votes([0, 10, 0])).label[0] == ABSTAIN               # no hit at all
    assert certify(votes([0, 100, 0])).radius[0] == 0                   # the rival has all
    assert certify(votes([500, 500])).label[0] == ABSTAIN
    tie = Record.from_counts([5, 5, 0], [90, 10, 0], 100, Gaussian(sigma=1.0), 2)
    assert certify(tie).label[0] == 0                                   # a tie goes to the smallest index
    wrong = Record.from_counts([0, 10, 0], [990, 10, 0], 1000, Gaussian(sigma=1.0), 2)
    assert certify(wrong).label[0] == ABSTAIN and certify(wrong, reuse=True).label[0] == 0
    small = certify(votes([10, 0]))
    assert "at least 11" in small.reason[0] and certify(votes([11, 0])).label[0] == 0
    assert tcertify.minimum_n(0.001) == 11 and tcertify.minimum_n(0.5) == 3
    assert len(certify(votes(np.zeros((0, 3), int), n=np.zeros(0, int), selection=np.zeros((0, 3), int)))) == 0
    for mode in MODES:
        for n in (1, 2, 5):
            for counts in tcertify.outcomes(n, 3):
                assert not np.isnan(certify(votes(counts), alpha=0.4, mode=mode).radius).any()

def test_reuse_halves_the_level_and_demands_a_majority():
    record = votes([600, 250, 150])
    assert certify(record, reuse=True).radius[0] == certify(record, alpha=0.0005).radius[0]
    assert (
        certify(votes([450, 200, 200, 150]), reuse=True).label[0]
        == ABSTAIN
        != certify(votes([450, 200, 200, 150])).label[0]
    )
    with pytest.warns(UserWarning, match="1.96"): tcertify.certify(record, mode="paper", reuse=True)

@pytest.mark.parametrize(
    "options, words",
    [
        (dict(alpha=0.0), "alpha"),
        (dict(alpha=1.0), "alpha"),
        (dict(alpha=float("nan")), "alpha"),
        (dict(norm="linf"), "l2"), (dict(mode="split"), "mode"), (dict(t=0.0), "t must"),
        (dict(t="best"), "selection"),
        (dict(mode="paper", ratios=[0.5, 1.5]), "ratios"),
        (dict(reuse=True, half_rule=False), "unsound"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words): certify(votes([90, 5, 5]), **options)

def test_bad_records_are_refused():
    with pytest.raises(ValueError, match="Gaussian"):
        certify(Record.from_counts([1, 0], [9, 1], 10, Uniform(lam=1.0), 2))
    with pytest.raises(ValueError, match="classes"): Record.from_counts([[1]], [[9]], 9, Gaussian(sigma=1.0), 2)
    with pytest.raises(ValueError, match="selection"): certify(votes([90, 10], selection=[[0, 0]]))
    with pytest.raises(ValueError, match="0..1"): tcertify.limits([[9, 1]], [2], 10, 0.1, 0.1)
    with pytest.raises(ValueError, match="sequential"): certify(replace(votes([90, 10]), plan=dict(n1=100, n_max=100)))
    for p in ((1.0,), (0.5, 0.6), (-0.1, 1.1)):
        with pytest.raises(ValueError, match="p must"): tcertify.failure_probability(p, 10, 0.1)
    with pytest.raises(ValueError, match="n must"): tcertify.failure_probability((0.5, 0.5), 0, 0.1)
    with pytest.raises(ValueError, match="selected"): tcertify.failure_probability((0.5, 0.5), 10, 0.1, selected=2)

def test_check_accepts_the_real_and_rejects_the_tampered():
    record = random_votes(np.random.default_rng(6))
    for mode in MODES:
        for reuse in (False, True):
            good = certify(record, mode=mode, reuse=reuse)
            kept = good.label != ABSTAIN
            assert kept.sum() > 10 and tcertify.check(good).all()
            for bad in (
                replace(good, radius=good.radius + 1e-3),
                replace(good, alpha=good.alpha / 2),
                replace(good, witness={**good.witness, "sigma": 0.9 * good.witness["sigma"]}),
            ):
                assert not tcertify.check(bad)[kept].any()

def test_joint_verifier_finds_alpha_at_two_classes_and_less_beyond():
    grid = tcertify.verify_joint(6, 0.05, deltas=[0, 0.01, 0.5, 2.0])
    assert grid.shape == (21, 4) and grid.max() == pytest.approx(1, abs=1e-9) and grid[:, 1:].max() < 1
    with pytest.raises(ValueError, match="pairs"): tcertify.verify_joint(6, 0.05, [(4, 2)])

def test_record_certify_reaches_the_method():
    record = votes([450, 150, 200, 200])
    assert record.certify("l2", method="tcertify").radius[0] == pytest.approx(0.2173165816, abs=1e-10)
    assert record.certify("l2").method == "exact"


def test_the_retired_mode_says_what_to_use_and_a_paper_claim_is_never_sound():
    record = random_votes(np.random.default_rng(6))
    with pytest.raises(ValueError, match="exact.certify"): tcertify.certify(record, mode="verified")
    printed = certify(record, mode="paper")
    kept = printed.label != ABSTAIN
    assert tcertify.check(printed).all() and not tcertify.check(replace(printed, mode="sound"))[kept].any()
    for certificates in (printed, certify(record)):
        for change in (
            dict(alpha=1e-300),
            dict(n=np.ones(len(record), int)),
            dict(norm="linf"),
            dict(label=(certificates.label + 1) % 6),
        ):
            assert not tcertify.check(replace(certificates, **change))[certificates.label != ABSTAIN].any(), change
