"The exact certificate: at least every proved method, the default, its witness, its refusals, simulated claims."
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import ndtri

from robust_smooth.core.record import Record
from robust_smooth.core.registry import find_methods
from robust_smooth.core.values import ABSTAIN
from robust_smooth.maths.two_sided import limit
from robust_smooth.methods import exact, gaussian
from robust_smooth.noise import Gaussian, RoundedGaussian, RoundedUniform, Splitting, Uniform
from robust_smooth.noise.rounded import uniform_law
from robust_smooth.smoothed import check


def votes(counts, noise=None, selection=None):
    counts = np.atleast_2d(counts)
    first = np.eye(counts.shape[1], dtype=int)[np.zeros(len(counts), int)]
    return Record.from_counts(
        first if selection is None else selection, counts, counts.sum(1), noise or Gaussian(sigma=1.0), 10
    )


def random_votes(seed, images=40, classes=6, n=1000, noise=None):
    rng = np.random.default_rng(seed)
    masses = rng.dirichlet(np.full(classes, 0.5), images)
    return Record.from_counts(
        rng.multinomial(100, masses), rng.multinomial(n, masses), n, noise or Gaussian(sigma=0.5), 64
    )


def lattice(n):
    shares = [(p, q, 1 - p - q) for p in np.arange(0.1, 1.01, 0.1) for q in np.arange(0, 0.51, 0.1)]
    shares += [(1 - q - r, q, r) for q in (0.001, 0.01, 0.05) for r in (0.0, 0.0005, 0.01)]
    counts = np.round(n * np.array([share for share in shares if share[0] > share[1] and share[2] > -1e-9])).astype(int)
    top, rival = counts[:, 0], counts[:, 1]
    rest = n - top - rival
    classes = 12 # enough for the rest to stay below the rival
    others = np.stack([np.maximum(np.minimum(rest - k * rival, rival), 0) for k in range(classes)], axis=1)
    whole = np.column_stack([top, rival, others])
    return whole[whole.sum(1) == n]


@pytest.mark.parametrize("n", [100, 1000, 10_000])
def test_at_least_every_other_proved_method(n):
    counts = lattice(n)
    assert len(counts) > 15
    for noise, norm, others in (
        (Gaussian(sigma=1.0), "l2", ("gaussian", "tcertify")),
        (Uniform(lam=1.0), "l1", ("uniform",)),
    ):
        record = votes(counts, noise)
        mine = record.certify(norm).radius
        for name in others:
            gain = mine - record.certify(norm, method=name).radius
            assert gain.min() > -1e-3 and gain.mean() > 0, (name, counts[gain.argmin()])


@pytest.mark.parametrize(
    "noise, norm, name",
    [
        (Gaussian(sigma=0.5), "l2", "exact"),
        (RoundedGaussian(sigma=0.5, q=255), "l2", "exact"),
        (Uniform(lam=0.5), "l1", "exact"),
    ],
)
def test_it_is_the_default(noise, norm, name):
    assert find_methods(type(noise).__name__, norm)[0].name == name
    table = random_votes(0, noise=noise).certify(norm)
    assert table.method == name and check(table).all() and (table.radius > 0).sum() > 15
    scale = noise.sigma / 2 if norm == "l2" else noise.lam
    assert table.radius.max() == pytest.approx(scale * table.witness["s"].max(), rel=1e-12)


def test_radius_is_half_the_limit_and_scales_with_sigma():
    record = random_votes(1)
    table = exact.certify(record)
    others = record.counts.copy()
    others[np.arange(len(record)), record.selected] = -1
    expected = 0.25 * limit(record.hits, others.max(1), record.n)
    assert np.allclose(table.radius, expected, rtol=1e-12)
    twice = exact.certify(replace(record, noise=Gaussian(sigma=1.0)))
    assert np.allclose(twice.radius, 2 * table.radius, rtol=1e-12)


def test_batch_is_loop_and_order_does_not_matter():
    record = random_votes(2, images=12)
    whole = exact.certify(record).radius
    assert np.array_equal(whole, np.concatenate([exact.certify(record[i]).radius for i in range(len(record))]))
    assert np.array_equal(whole[::-1], exact.certify(record[np.arange(len(record))[::-1]]).radius)


def test_only_the_largest_rival_counts():
    "Neither the number of classes nor how the rest is spread."
    wide = np.zeros(1000, int)
    wide[:12] = [600, 100, *[30] * 10]
    assert exact.certify(votes([600, 100, 100, 100, 100])).radius == exact.certify(votes(wide)).radius


def test_witness_is_checked_through_the_front_door():
    table = random_votes(3).certify("l2")
    kept = table.label != ABSTAIN
    assert kept.sum() > 20 and check(table).all()
    w = table.witness
    planted = {**w, "s": w["s"] + 2e-4}
    radius = np.where(kept, table.radius + 1e-4 * 0.5, 0)
    assert not check(replace(table, witness=planted, radius=radius))[kept].any()
    assert not check(replace(table, radius=table.radius * (1 + 1e-9)))[kept].any()
    assert not check(replace(table, witness={**w, "top": w["top"] - 1}))[kept].any()
    assert not check(replace(table, witness={**w, "rival": w["rival"] + 1}))[kept].any()
    assert not check(replace(table, witness={**w, "t": w["t"] * 1.001}))[kept].any()
    assert not check(replace(table, label=np.where(kept, table.label + 1, table.label)))[kept].any()
    assert not check(replace(table, alpha=0.0009))[kept].any()


def test_abstentions_say_why():
    table = exact.certify(votes([[9, 0], [0, 9]], selection=[[1, 0], [1, 0]]))
    assert (table.label == ABSTAIN).all() and all("n below 10" in reason for reason in table.reason)
    table = exact.certify(votes([[40, 60], [51, 49], [100, 0]], selection=[[1, 0]] * 3))
    assert table.label.tolist() == [ABSTAIN, ABSTAIN, 0] and table.reason[2] == "" and "runner-up" in table.reason[0]


def test_minimum_n():
    for alpha in (0.3, 0.01, 0.001, 1e-6):
        n = exact.minimum_n(alpha)
        assert (
            exact.certify(votes([n, 0]), alpha=alpha).radius[0]
            > 0
            == exact.certify(votes([n - 1, 0]), alpha=alpha).radius[0]
        )


def test_largest_radius():
    noise = Gaussian(sigma=0.5)
    assert exact.largest_radius(noise, 1000, 0.001) == exact.certify(votes([1000, 0, 0], noise)).radius[0]
    assert exact.largest_radius(noise, 1000, 0.001) == pytest.approx(
        gaussian.largest_radius(noise, 1000, 0.001), abs=4e-4
    )
    assert (
        exact.largest_radius(Uniform(lam=0.5), 1000, 0.001, "l1")
        == exact.certify(votes([1000, 0], Uniform(lam=0.5)), norm="l1").radius[0]
    )


@pytest.mark.parametrize("p", [(0.42, 0.33, 0.25), (0.34, 0.33, 0.33), (0.5, 0.5, 0.0)])
def test_simulated_claims_are_false_at_most_alpha(p):
    rng, images, n, alpha = np.random.default_rng(4), 20_000, 200, 0.05
    counts = rng.multinomial(n, p, images)
    record = Record.from_counts(rng.multinomial(100, p, images), counts, n, Gaussian(sigma=1.0), 2)
    table = exact.certify(record, alpha=alpha, progress=False)
    best = np.array(p)[record.selected]
    rivals = np.array([np.delete(p, c).max() for c in range(3)])[record.selected]
    truth = np.maximum((ndtri(best) - ndtri(rivals)) / 2, 0.0)
    false = (table.label != ABSTAIN) & (table.radius > truth)
    assert false.mean() <= alpha + 4 * np.sqrt(alpha / images)


def test_whole_steps_under_uniform_noise():
    record = random_votes(5, noise=Uniform(lam=0.5))
    table, plain = exact.certify(record, norm="l1", levels=255), exact.certify(record, norm="l1")
    kept = table.label != ABSTAIN
    assert check(table).all() and np.array_equal(kept, plain.label != ABSTAIN) and kept.sum() > 20
    assert np.all(table.steps[kept] < plain.radius[kept] * 255) and np.all(
        table.steps[kept] + 1 >= plain.radius[kept] * 255 - 1e-9
    )
    assert np.array_equal(table.radius[kept], table.steps[kept] / 255)
    assert not check(replace(table, steps=table.steps + 1, radius=(table.steps + 1) / 255))[kept].any()
    for levels in (0, 2.5, True):
        with pytest.raises(ValueError, match="levels"):
            exact.certify(record, norm="l1", levels=levels)
    with pytest.raises(ValueError, match="levels"):
        exact.certify(random_votes(5), levels=255)


@pytest.mark.parametrize("lam, q", [(0.5, 16), (0.3, 255), (2.0, 7), (0.02, 16)])
def test_a_step_of_rounded_uniform_noise_moves_what_the_curve_says(lam, q):
    "Total variation of the law and its shift by t steps, as fractions: at most t / (2 lam q)."
    law = uniform_law(lam, q)
    for t in (1, 2, 5, len(law)):
        wide = [0] * t + law + [0] * t
        moved = Fraction(sum(max(a - b, 0) for a, b in zip(wide[t:], wide)), 2**120)
        assert moved <= min(1, Fraction(t) / (2 * Fraction(lam) * q)) * (1 + Fraction(1, 2**90))


@pytest.mark.parametrize("n", [100, 1000])
def test_rounded_uniform_noise_in_whole_steps(n):
    "Never below the one-sided bound, against either adversary; the real radius of the plain noise, in steps."
    counts = lattice(n)
    record, plain = votes(counts, RoundedUniform(lam=1.0, q=255)), votes(counts, Uniform(lam=1.0)).certify("l1")
    for adversary in ("quantised", "continuous"):
        mine, other = (
            record.certify("l1", adversary=adversary),
            record.certify("l1", method="uniform", adversary=adversary),
        )
        assert mine.method == "exact" and check(mine).all() and np.array_equal(mine.label, plain.label)
        assert (mine.radius - other.radius).min() > -1e-3 - 1 / 255 and (mine.radius - other.radius).mean() > 0
    steps, kept = record.certify("l1").steps, plain.label != ABSTAIN
    assert np.all(steps[kept] < plain.radius[kept] * 255) and np.all(steps[kept] + 1 >= plain.radius[kept] * 255 - 1e-9)
    assert np.array_equal(mine.radius[kept], (steps[kept] + 1) / 510) and mine.steps is None


@pytest.mark.parametrize(
    "noise, norm", [(RoundedUniform(lam=1.0, q=255), "l1"), (RoundedGaussian(sigma=0.5, q=255), "l2")]
)
def test_a_claim_against_real_changes_is_checked_as_one(noise, norm):
    table = random_votes(8, noise=noise)
    real, on_grid = (table.certify(norm, adversary=adversary) for adversary in ("continuous", "quantised"))
    kept = real.label != ABSTAIN
    assert kept.sum() > 15 and check(real).all() and np.all(real.radius[kept] < on_grid.radius[kept] / 2 + 1.001 / 510)
    assert not check(replace(real, adversary="quantised"))[kept].any()
    assert not check(replace(on_grid, adversary="continuous"))[kept].any()
    assert not check(replace(real, radius=real.radius + 1 / 510))[kept].any()
    # the method itself, without the seal
    assert not exact.check(replace(real, radius=real.radius * (1 + 1e-9)))[kept].any()
    with pytest.raises(ValueError, match="levels"):
        table.certify(norm, levels=16)
    with pytest.raises(ValueError, match="adversary"):
        table.certify(norm, adversary="careless")


def test_refusals_name_what_is_wrong():
    record = votes([70, 20, 10])
    for change, words in (
        (dict(norm=3), "norm"),
        (dict(norm="l1", levels=255), "levels"),
        (dict(alpha=1.0), "alpha"),
        (dict(alpha=float("nan")), "alpha"),
    ):
        with pytest.raises(ValueError, match=words):
            exact.certify(record, **change)
    with pytest.raises(ValueError, match="l1.*under Uniform"):
        exact.certify(votes([70, 20, 10], Uniform(lam=1.0)))
    with pytest.raises(ValueError, match="Gaussian.*noise"):
        exact.certify(votes([70, 20, 10], Splitting.from_sigma(0.5, q=255)))
    with pytest.raises(ValueError, match="plan"):
        exact.certify(replace(record, plan=dict(looks=[100])))
    with pytest.raises(ValueError, match="selection"):
        exact.certify(replace(record, selection=0 * record.selection))
    with pytest.raises(ValueError, match="n must"):
        exact.certify(votes([0, 0, 0]))


def test_progress_bar_on_request(capsys):
    exact.certify(votes([70, 20, 10]), progress=True)
    assert "exact" in capsys.readouterr().err
    exact.certify(votes([70, 20, 10]))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("noise", [Gaussian(sigma=0.5), RoundedGaussian(sigma=0.5, q=255)])
def test_every_norm_under_gaussian_noise_is_the_ball_inside_the_l2_ball(noise):
    record = votes([[70, 20, 10], [40, 35, 25], [100, 0, 0], [20, 60, 20]], noise)
    l2, l1, linf = (record.certify(norm) for norm in ("l2", "l1", "linf"))
    assert {c.method for c in (l2, l1, linf)} == {"exact"}
    np.testing.assert_array_equal(l1.radius, l2.radius)
    np.testing.assert_allclose(linf.radius * np.sqrt(record.dim), l2.radius, rtol=1e-12)
    assert (linf.radius * np.sqrt(record.dim) <= l2.radius).all()
    kept = l2.label != ABSTAIN
    for table in (l1, linf):
        assert check(table).all()
        assert not check(replace(table, radius=table.radius * 1.001))[kept].any()
        for norm in {"l1", "l2", "linf"} - {table.norm}: # a smaller ball's radius is no larger one's
            assert not check(replace(table, norm=norm))[kept].any()
    assert not exact.check(replace(l2, norm="linf", claim=None))[kept].any() # the method itself, without the seal


def test_uniform_noise_proves_l1_alone():
    table = votes([70, 20, 10], Uniform(lam=0.5)).certify("l1")
    for norm in ("l2", "linf"):
        assert not exact.check(replace(table, norm=norm)).any()
        with pytest.raises(ValueError, match="norm"):
            votes([70, 20, 10], Uniform(lam=0.5)).certify(norm, method="exact")


def test_what_two_classes_cost_is_what_the_chapter_says():
    "It said below .001 sigma; that holds from 30 votes on at alpha = .001, and not at larger levels."
    def lost(top, n, alpha):
        record = votes([top, n - top])
        return float((gaussian.certify(record, alpha=alpha).radius - exact.certify(record, alpha=alpha).radius)[0])
    assert 0.0012 < lost(10, 10, 0.001) < 0.0013
    assert all(0 < lost(n - missed, n, 0.001) < 0.001 for n in (30, 50, 300) for missed in (0, 1, 3))
    assert 0.014 < lost(49, 50, 0.05) < 0.015
    assert 0 < lost(600, 1000, 0.001) < 0.0002 # far from unanimous, one side is exact as well
