"Sequential certification: boundaries against brute force and rational arithmetic, exact error, votes with a plan as the stop, resumed = uninterrupted, bad input."
import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri
from scipy.stats import binom
from torch import nn

from robust_smooth.maths import looks as rounds
from robust_smooth.maths.both_sides import limits
from robust_smooth.maths.two_sided import limit
from robust_smooth.methods import gaussian, sequential
from robust_smooth.core.record import Record
from robust_smooth.core.values import ABSTAIN
from robust_smooth.noise.additive import Gaussian, Uniform
from robust_smooth.smoothed import Smoothed

NOISE = Gaussian(sigma=0.5)

def record(hits, n, plan=None, noise=NOISE, rival=None):
    hits, n = np.atleast_1d(hits), np.broadcast_to(n, np.shape(np.atleast_1d(hits))).copy()
    rival = n - hits if rival is None else np.atleast_1d(rival)
    return Record(
        selection=np.tile([90, 10, 0], (len(hits), 1)),
        counts=np.stack([hits, rival, n - hits - rival], axis=1),
        n=n, noise=noise, dim=64, index=np.arange(len(hits)),
        plan=None if plan is None else plan.spec(),
    )

def simulate(plan, p, rng):
    counts, n, active = np.zeros((len(p), 3), np.int64), np.zeros(len(p), np.int64), np.arange(len(p))
    for before, now in zip([0, *plan.looks], plan.looks):
        counts[active] += rng.multinomial(now - before, p[active])
        n[active] = now
        active = active[~plan(counts[active], n[active], np.zeros(len(active), int))]
    return Record(
        selection=np.tile([90, 10, 0], (len(p), 1)),
        counts=counts, n=n, noise=NOISE, dim=64, index=np.arange(len(p)), plan=plan.spec(),
    )

@pytest.mark.parametrize(
    "n, p0, alpha",
    [
        (20, Fraction(1, 2), Fraction(1, 5)),
        (24, Fraction(7, 10), Fraction(1, 20)),
        (28, Fraction(9, 10), Fraction(1, 3)),
    ],
)
def test_boundaries_and_error_in_rational_arithmetic(n, p0, alpha):
    looks = [n // 4, n // 2, n]
    boundary, spent = rounds._exact_boundaries(
        np.array(looks), float(p0), np.array([float(alpha) / 4, float(alpha) / 2, float(alpha)])
    )
    law, before, used = {0: Fraction(1)}, 0, Fraction(0)
    for k, (look, allowed) in enumerate(zip(looks, (alpha / 4, alpha / 2, alpha))):
        m, moved = look - before, {}
        for h, weight in law.items():
            for j in range(m + 1):
                moved[h + j] = moved.get(h + j, 0) + weight * math.comb(m, j) * p0**j * (1 - p0) ** (m - j)
        c = next(c for c in range(look + 2) if sum(w for h, w in moved.items() if h >= c) <= allowed - used)
        used += sum(w for h, w in moved.items() if h >= c)
        law, before = {h: w for h, w in moved.items() if h < c}, look
        assert c == boundary[k]
        assert spent[k] == pytest.approx(float(used), rel=1e-12)

FIRST_LOOKS = [
    100, 141, 200, 283, 400, 566, 800, 1131, 1600, 2263, 3200, 4525, 6400, 9051, 12800, 18102, 25600,
    36204, 51200, 72408, 100000,
]

def test_worked_values_of_the_first_edition():
    plan = sequential.plan([0.5], 0.5, 0.001, ratio=rounds.FIRST_EDITION)
    assert plan.looks.tolist() == FIRST_LOOKS
    assert plan.boundaries[0, [0, 1, 2, 3, 4, -2, -1]].tolist() == [98, 135, 187, 261, 365, 61310, 84512]
    assert plan.spent[0] == pytest.approx(0.00099582, abs=5e-9)
    assert sequential.plan([0.5], 0.5, 0.001, gamma=0, ratio=rounds.FIRST_EDITION).operate(0.9)[0] == pytest.approx(
        676.33, abs=0.005
    )

@pytest.mark.parametrize(
    "n1, n_max", [(100, 100_000), (50, 50), (10, 4000), (95, 100 * 2**7), (1, 1), (7, 123_456), (100, 105)]
)
def test_looks_of_the_first_edition_are_powers_of_root_two(n1, n_max):
    early = [round(n1 * 2 ** (j / 2)) for j in range(60) if n1 * 2 ** (j / 2) < 0.95 * n_max]
    assert rounds.look_times(n1, n_max, rounds.FIRST_EDITION).tolist() == sorted({*early, n_max})

def test_more_looks_save_draws_and_cost_no_power():
    "Exact boundaries at a ratio of 1.1: 5 to 10 % fewer draws than at root 2, the same power at the fixed test's edge."
    first, now = (sequential.plan([0.5], 0.5, 0.001, ratio=r, gamma=0) for r in (rounds.FIRST_EDITION, None))
    assert now.ratio == 1.1 and len(now.looks) == 73
    for p in (0.86, 0.88, 0.9, 0.95):
        (draws, power), (fewer, kept) = first.operate(p), now.operate(p)
        assert 0.05 < 1 - fewer / draws < 0.10 and min(power[0], kept[0]) > 1 - 1e-9
    for p in (0.845, 0.846, 0.847, 0.848):
        assert abs(now.operate(p)[1][0] - first.operate(p)[1][0]) < 0.01

def test_anytime_is_nearly_the_e_value_at_every_draw():
    "Its price of 11 to 18 % was the coarse grid of looks: at a ratio of 1.02 less than 4 % of the draws are wasted."
    p0, p, threshold = float(ndtr(1.0)), 0.9, math.log(1 / 0.001)
    law, draws, start = np.zeros(6001), 0.0, 100
    law[:start + 1] = rounds.binom.pmf(np.arange(start + 1), start, p)
    for n in range(start, 6000): # the e-value looked at after every draw from the hundredth on
        hits = np.flatnonzero(law > 1e-18) # what is left out weighs less than 1e-10 in all
        over = hits[sequential.log_e_value(hits, n, p0) >= threshold]
        draws += n * law[over].sum()
        law[over] = 0
        law = law * (1 - p) + np.concatenate([[0.0], law[:-1]]) * p
    assert law.sum() < 1e-6
    plan, first = (
        sequential.plan([0.5], 0.5, 0.001, spending="anytime", gamma=0, ratio=r) for r in (None, rounds.FIRST_EDITION)
    )
    assert draws < plan.operate(p)[0] < 1.04 * draws and 1.11 * draws < first.operate(p)[0]

@pytest.mark.parametrize("spending", sequential.SPENDINGS)
@pytest.mark.parametrize("sigma, alpha", [(0.25, 0.001), (1.0, 0.05), (0.5, 1e-8)])
def test_error_at_the_edge_is_below_alpha(spending, sigma, alpha):
    plan = sequential.plan(None, sigma, alpha, n_max=10_000, spending=spending)
    assert plan.boundaries.shape == plan.futility.shape == (len(plan.radii), len(plan.looks))
    assert np.all((plan.spent > 0) & (plan.spent <= alpha)) and np.all(np.diff(plan.spent_by_look, axis=1) >= 0)
    edge = np.maximum(0.5, ndtr(plan.radii / sigma))
    again = [rounds.crossing(plan.looks, b, p)[-1] for b, p in zip(plan.boundaries, edge)]
    assert np.allclose(again, plan.spent, rtol=1e-9, atol=0)
    if spending == "exact":
        unused = np.array(
            [rounds.crossing(plan.looks, np.append(b[:-1], b[-1] - 1), p)[-1] for b, p in zip(plan.boundaries, edge)]
        )
        assert np.all(unused > alpha) # one hit less at the last look would be too much: nothing is wasted

def test_false_claims_along_p():
    plan = sequential.plan([0, 0.25, 0.5, 1.0], 0.5, 0.01, n_max=5000)
    edge = np.maximum(0.5, ndtr(plan.radii / 0.5))
    for p in np.concatenate([np.linspace(0.3, 0.97, 12), edge - 1e-9]):
        power = plan.operate(p)[1]
        false = np.flatnonzero(edge > p)
        assert len(false) == 0 or power[false[0]] <= 0.01
    draws, power = plan.operate(1.0)
    assert power.tolist() == [1, 1, 1, 1] and draws < 600
    assert plan.operate(0.0)[0] == 100 and plan.operate(0.0)[1].max() == 0

def test_operate_agrees_with_simulation():
    plan, rng = sequential.plan([0, 0.25, 0.5], 0.5, 0.01, n1=50, n_max=3000), np.random.default_rng(0)
    for p in (0.55, 0.72, 0.86):
        result = simulate(plan, np.tile([p, 1 - p, 0], (6000, 1)), rng)
        draws, power = plan.operate(p)
        certified = plan.certified(result.hits, plan.look_of(result.n))
        assert result.n.mean() == pytest.approx(draws, rel=0.06)
        for g in range(3): assert (certified > g).mean() == pytest.approx(power[g], abs=4 * 0.5 / np.sqrt(6000))

@pytest.mark.parametrize("options", [dict(), dict(spending="union"), dict(spending="anytime"), dict(two_sided=True)])
def test_simulated_images_near_the_edge_fail_at_most_alpha(options):
    alpha, images, rng = 0.05, 8000, np.random.default_rng(1)
    plan = sequential.plan([0, 0.25, 0.5], 0.5, alpha, n1=40, n_max=2000, **options)
    p = np.array([0.8413, 0.1587, 0.0]) # true radius 0.49995, just below a target
    truth = 0.5 * float(rounds.probit(0.8413))
    result = sequential.certify(simulate(plan, np.tile(p, (images, 1)), rng), alpha=alpha)
    assert (result.radius > truth).mean() <= alpha + 4 * np.sqrt(alpha / images)
    assert (result.radius >= 0.25).mean() > 0.95

def test_fixed_n_is_cohen_on_the_grid():
    rng = np.random.default_rng(2)
    whole = record(rng.binomial(10_000, rng.uniform(0.4, 1, 200)), 10_000)
    grid, cohen = np.arange(0, 2, 0.25), gaussian.certify(whole).radius
    ours = sequential.certify(whole, radii=grid)
    expected = np.array([max((g for g in grid if g <= r), default=0) if r > 0 else 0 for r in cohen])
    assert np.array_equal(ours.radius, expected) and np.array_equal(ours.label == ABSTAIN, cohen == 0)
    continuous = sequential.certify(whole, spending="union")
    assert np.allclose(continuous.radius, cohen, rtol=1e-12)

def test_certify_is_a_pure_function_of_counts_n_and_plan(tmp_path):
    plan = sequential.plan([0, 0.5, 1.0], 0.5, 0.001)
    stopped = record([100, 188, 700, 99_000], [100, 195, 1083, 100_000], plan)
    result = stopped.certify("l2")
    assert (
        result.method == "sequential"
        and result.radius.tolist() == [0.5, 0.5, 0.0, 1.0]
        and result.label.tolist() == [0, 0, 0, 0]
    )
    assert Record.load(stopped.save(tmp_path / "a.votes")).certify("l2").radius.tolist() == result.radius.tolist()
    assert np.array_equal(result.radius, np.concatenate([sequential.certify(stopped[i]).radius for i in range(4)]))
    assert np.all(sequential.certify(stopped, alpha=1e-9).radius <= result.radius)
    assert np.all(np.diff(result.details["alpha_spent"]) > 0) and result.details["alpha_spent"][-1] <= 0.001
    with pytest.raises(ValueError, match="stopped early"): stopped.certify("l2", method="gaussian")
    assert np.array_equal(sequential.plan(**json.loads(json.dumps(plan.spec()))).boundaries, plan.boundaries)

def test_more_hits_certify_no_less():
    for options in (dict(), dict(spending="union"), dict(spending="anytime"), dict(two_sided=True)):
        plan = sequential.plan(None, 0.5, 0.001, **options)
        n = int(plan.looks[np.searchsorted(plan.looks, 800)])
        radii = sequential.certify(record(np.linspace(n // 2, n, 41).astype(int), n, plan)).radius
        assert np.all(np.diff(radii) >= 0) and radii[-1] > 0.5, options

def test_two_sided_needs_no_majority():
    plan = sequential.plan([0, 0.25], 0.5, 0.001, two_sided=True)
    n = int(plan.looks[np.searchsorted(plan.looks, 12_000)])
    result = sequential.certify(record(5000, n, plan, rival=4000))
    assert result.label[0] == 0 and result.radius[0] > 0 and 5000 / n < 0.5
    one_sided = sequential.plan([0, 0.25], 0.5, 0.001, ratio=plan.ratio)
    assert sequential.certify(record(5000, n, one_sided, rival=4000)).label[0] == ABSTAIN

def test_anytime_covers_every_n():
    rng, alpha, p0, n = np.random.default_rng(3), 0.05, 0.8, np.arange(1, 1001)
    hits = np.cumsum(rng.random((2000, 1000)) < p0, axis=1)[:, ::5] # every fifth moment
    ever = (sequential.log_e_value(hits, n[::5], p0) >= np.log(1 / alpha)).any(1).mean()
    assert 0.002 < ever <= alpha + 4 * np.sqrt(alpha / 2000)

def test_futility_never_gives_up_what_is_within_reach():
    plan = sequential.plan([0, 0.5, 1.0], 0.5, 0.001, n_max=5000, gamma=0.0)
    for g in range(3):
        for k in range(len(plan.looks) - 1):
            h, n = plan.futility[g, k], plan.looks[k]
            reachable = lambda hits: any(
                hits + m - n >= c for m, c in zip(plan.looks[k + 1 :], plan.boundaries[g, k + 1 :])
            )
            assert (h < 0 or not reachable(h)) and (h >= n or reachable(h + 1))
    eager = sequential.plan([0, 0.5, 1.0], 0.5, 0.001, n_max=5000, gamma=0.05)
    assert np.all(eager.futility >= plan.futility) and eager.operate(0.83)[0] < plan.operate(0.83)[0]

class Slab(nn.Module):
    "Class 0 left of a plane through the first coordinate; a known smoothed classifier."
    num_classes = 3
    def forward(self, x):
        # calls until it is interrupted: state, which is no part of what it is
        self._left = getattr(self, "_left", 0) - 1
        if self._left == 0: raise KeyboardInterrupt
        s = x.flatten(1)[:, 0]
        return torch.stack([0.8 - s, s - 0.8, torch.full_like(s, -9.0)], dim=1)

def test_votes_with_a_plan_stop_early_and_resume_bit_for_bit(tmp_path):
    images = torch.zeros(6, 1, 2, 2)
    # distances to the plane: 0.8, 0.5, 0.3, 0.25, 0.01; the last is class 1 by 0.2
    images[:, 0, 0, 0] = torch.tensor([0.0, 0.3, 0.5, 0.55, 0.79, 1.0])
    plan = sequential.plan([0, 0.25, 0.5], 0.5, 0.001, n_max=8000)
    vote = lambda model, save=None, batch=500: Smoothed(model.eval(), NOISE).vote(
        images, stop=plan, seed=3, save=save, batch_size=batch, progress=False
    )
    whole = vote(Slab())
    assert set(whole.n) <= set(plan.looks) and whole.n.min() < 500 and whole.plan == plan.spec()
    result, truth = whole.certify("l2"), np.abs(images[:, 0, 0, 0].double().numpy() - 0.8)
    assert result.label.tolist()[:3] == [0, 0, 0] and result.label[5] == 1 and np.all(result.radius <= truth + 1e-6)
    assert result.radius[0] == 0.5 and whole.n[0] < 1000
    path, broken = tmp_path / "run.votes", Slab()
    broken._left = 30
    with pytest.raises(KeyboardInterrupt): vote(broken, path)
    resumed = vote(Slab(), path)
    assert np.array_equal(resumed.counts, whole.counts) and np.array_equal(resumed.n, whole.n)
    # rows of a file may stand in the order in which images were decided: `index` says which is which
    loaded = Record.load(path)
    assert np.array_equal(loaded[np.argsort(loaded.index)].counts, whole.counts)
    other = vote(Slab(), batch=1700)
    assert np.array_equal(other.counts, whole.counts) and np.array_equal(other.n, whole.n)

@pytest.mark.parametrize("two_sided", [False, True])
def test_records_of_the_first_edition_still_certify(two_sided, tmp_path):
    spec = dict(
        targets=[0.0, 0.5, 1.0], sigma=0.5, alpha=0.001, n1=100, n_max=100_000,
        spending="union" if two_sided else "exact",
        two_sided=two_sided,
        gamma=0.01,
    )
    stopped = replace(record([100, 193, 700, 99_000], [100, 200, 1131, 100_000]), plan=spec)
    result = Record.load(stopped.save(tmp_path / "first.votes")).certify("l2")
    assert result.method == "sequential" and result.label.tolist()[:2] == [0, 0] and sequential.check(result).all()
    if not two_sided: assert result.radius.tolist() == [0.5, 0.5, 0.0, 1.0]
    else: assert np.all(result.radius >= [0.5, 0.5, 0.0, 1.0]) # continuous
    with pytest.raises(ValueError, match="looks"):
        sequential.certify(replace(stopped[:1], n=np.array([110]), counts=np.array([[100, 10, 0]])))

@pytest.mark.parametrize("votes, n", [((195, 5, 4), 204), ((2000, 150, 50), 2200)])
def test_two_sided_claims_are_exact_limits_at_the_level_of_the_look(votes, n):
    plan = sequential.plan([0.25, 0.5], 0.5, 0.001, n1=204, n_max=2200, two_sided=True)
    result = sequential.certify(record(votes[0], n, plan, rival=votes[1]))
    at = rounds.union_levels(len(plan.looks), 0.001)[list(plan.looks).index(n)]
    assert sum(rounds.union_levels(len(plan.looks), 0.001)) == pytest.approx(0.001)
    assert result.radius[0] == pytest.approx(0.25 * limit(votes[0], votes[1], n, at), rel=1e-12) and at <= 0.0005
    assert result.radius[0] < 0.25 * limit(votes[0], votes[1], n, 0.001)

def test_check_accepts_the_real_and_rejects_the_tampered():
    rng = np.random.default_rng(4)
    p = rng.dirichlet([6, 1, 0.5], 25)
    for options in (dict(), dict(spending="union"), dict(spending="anytime"), dict(two_sided=True)):
        good = sequential.certify(
            simulate(sequential.plan([0, 0.25, 0.5], 0.5, 0.001, n_max=10_000, **options), p, rng)
        )
        kept = good.label != ABSTAIN
        assert kept.sum() > 10 and sequential.check(good).all(), options
        assert not sequential.check(replace(good, radius=good.radius + 1.0))[kept].any(), options
        assert not sequential.check(replace(good, n=good.n + 1))[kept].any(), options
        for shrunk in (0.0, 0.3, 0.5, 0.9): # a smaller radius is true as well, of the plan or not
            assert sequential.check(replace(good, radius=good.radius * shrunk)).all(), (options, shrunk)
        if not options.get("two_sided"):
            higher = np.where(kept, good.p_lower + 0.5 * (1 - good.p_lower), good.p_lower)
            assert not sequential.check(replace(good, radius=good.radius * 0.0, p_lower=higher))[kept].any(), options

@pytest.mark.parametrize(
    "options, words",
    [
        (dict(radii=[]), "radii"),
        (dict(radii=[-1.0]), "radii"),
        (dict(radii=[np.nan]), "radii"),
        (dict(radii=[9.0]), "certify, at most"),
        (dict(sigma=0.0), "sigma"), (dict(alpha=0.0), "alpha"), (dict(alpha=1.5), "alpha"),
        (dict(n1=0), "n1"),
        (dict(n1=200, n_max=100), "n1"),
        (dict(n1=5, n_max=9), "at least 10 draws"),
        (dict(spending="all"), "spending"),
        (dict(gamma=1.0), "gamma"),
        (dict(ratio=1.0), "ratio"),
        (dict(ratio=np.inf), "ratio"),
        (dict(two_sided=True, spending="anytime"), "two_sided"),
    ],
)
def test_bad_plans_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        sequential.plan(**{**dict(radii=[0.0], sigma=0.5, alpha=0.001), **options})

def test_bad_records_are_refused():
    plan = sequential.plan([0.0], 0.5, 0.001)
    good = record(90, 100, plan)
    with pytest.raises(ValueError, match="looks"): sequential.certify(record(90, 101, plan))
    with pytest.raises(ValueError, match="sigma"): sequential.certify(replace(good, noise=Gaussian(sigma=1.0)))
    with pytest.raises(ValueError, match="Gaussian"): sequential.certify(replace(good, noise=Uniform(lam=1.0)))
    with pytest.raises(ValueError, match="l2"): sequential.certify(good, norm="l1")
    with pytest.raises(ValueError, match="spec of a sequential plan"):
        sequential.certify(replace(good, plan=dict(name="other")))
    with pytest.raises(ValueError, match="another kind, 'splitting early exit'"):
        sequential.certify(replace(good, plan=dict(kind="splitting early exit", radius=1.0, parts=4)))
    assert sequential.minimum_n(0.001) == 10 and sequential.plan([0, 7.0], 0.5, 0.001).dropped.tolist() == [7.0]


@pytest.mark.parametrize("p", [(0.7, 0.3), (0.8, 0.2)])
def test_operate_both_follows_every_path_of_two_classes(p):
    "Draws and power of a small plan, path by path with the plan's own decisions."
    rule = sequential.plan([0.0, 0.2], sigma=0.5, alpha=0.1, n1=10, n_max=40, two_sided=True, ratio=1.6)
    alive, draws, power, before = {0: 1.0}, 0.0, np.zeros(2), 0
    for look, n in enumerate(rule.looks.tolist()):
        after = {}
        for hits, chance in alive.items():
            for more in range(n - before + 1):
                after[hits + more] = after.get(hits + more, 0.0) + chance * binom.pmf(more, n - before, p[0])
        hits = np.array(sorted(after))
        chance, votes = np.array([after[h] for h in hits]), np.stack([hits, n - hits], axis=1)
        home = rule(votes, np.full(len(hits), n), np.zeros(len(hits), int))
        found = sequential.certify(record(hits, np.full(len(hits), n), rule), alpha=0.1).radius
        certified = limits(hits, n - hits, np.full(len(hits), n), np.full(len(hits), rule.levels[look]))[0] > 0
        draws, before = draws + n * chance[home].sum(), n
        power += [chance[home & certified].sum(), chance[home & (found >= 0.2)].sum()]
        alive = dict(zip(hits[~home].tolist(), chance[~home]))
    expected, powers = sequential.operate_both(rule, p)
    assert expected == pytest.approx(draws, abs=1e-4) and powers == pytest.approx(power, abs=1e-5)
    assert 0.01 < power[1] < power[0] < 0.999


def test_two_sides_wait_for_nothing_when_the_rest_is_spread():
    "A rest of many small classes: fewer draws than one side, which calls all of it the rival; never fewer than Wald's bound."
    one, both = (sequential.plan([0.25], 0.5, 0.001, n_max=2000, gamma=0.0, two_sided=side) for side in (False, True))
    p, rival, edge = 0.85, 0.03, float(ndtr(0.5))
    draws, power = sequential.operate_both(both, (p, rival))
    assert draws < one.operate(p)[0] and power[0] > 0.999
    law = np.array([p, rival, 1 - p - rival])
    tops = np.linspace(0.3, edge - 1e-6, 4000)
    rivals = ndtr(ndtri(tops) - 1.0)
    nearest = min((law * np.log(law / np.array([a, b, 1 - a - b]))).sum() for a, b in zip(tops, rivals))
    assert draws * power[0] > -np.log(0.001) / nearest
