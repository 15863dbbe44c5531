"The exact two-sided limit: brute force, enumeration of all outcomes, 40-digit tails, closed forms, monotonicity, refusals."
import itertools

import mpmath
import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.special import gammaln, ndtr, ndtri, xlogy
from scipy.stats import binom

import robust_smooth as rs
from robust_smooth.maths import two_sided
from robust_smooth.maths.bounds import binomial_lower, binomial_upper
from robust_smooth.maths.curves import CURVES, critical_root, separate_limits, signed_root, statistic
from robust_smooth.maths.two_sided import (
    Question,
    limit,
    proved,
    prove,
    solve,
    staircase,
    supremum,
    tail_probability,
    tail_range,
)

# n, p_R, p_c, radius / sigma at alpha = .001: a prototype's supremum over 41 points, its last digit up to 2 too high
PROTOTYPE = [
    (1000, 0.98, 0.015, 1.8360), (1000, 0.90, 0.05, 1.2905), (1000, 0.70, 0.20, 0.5557), (1000, 0.50, 0.30, 0.1475),
    (1000, 0.50, 0.10, 0.5217), (1000, 0.30, 0.05, 0.4314), (1000, 0.60, 0.02, 0.9929), (100, 0.90, 0.05, 0.9315),
    (100, 0.50, 0.10, 0.2640), (100, 0.40, 0.10, 0.1356),
]


def rival_of(curve, top, s):
    "The curve in plain words."
    return float(ndtr(ndtri(top) - s)) if curve == "gaussian" else max(top - s, 0.0)


def last_top(curve, s):
    "p_R where the curve meets p_R + p_c = 1."
    return float(ndtr(s / 2)) if curve == "gaussian" else (1 + s) / 2


def plain_root(curve, a, b, n, s):
    "The signed root by a bounded search over p_R."
    def deficit(top):
        rival = rival_of(curve, top, s)
        rest = max(1 - top - rival, 0.0)
        return -(xlogy(a, top) + xlogy(b, rival) + xlogy(n - a - b, rest))
    end = last_top(curve, s)
    grid = np.linspace(1e-9, end, 301)
    best = int(np.argmin([deficit(top) for top in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, 300)]
    found = minimize_scalar(deficit, bounds=(low, high), method="bounded", options=dict(xatol=1e-13))
    free = xlogy(a, a / n) + xlogy(b, b / n) + xlogy(n - a - b, (n - a - b) / n)
    above = b / n < rival_of(curve, a / n, s)
    return (1 if above else -1) * np.sqrt(2 * max(min(found.fun, deficit(end)) + free, 0.0))


def outcomes(n, classes):
    bars = np.array(list(itertools.combinations(range(n + classes - 1), classes - 1)))
    edges = np.concatenate([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), n + classes - 1)], axis=1)
    return np.diff(edges, axis=1) - 1


def chances(counts, p):
    n = counts[0].sum()
    return np.exp(gammaln(n + 1) - gammaln(counts + 1.0).sum(1) + xlogy(counts, p).sum(1))


def plain_limit(curve, a, b, n, alpha, roots, points):
    "L by enumeration of all outcomes and a dense grid: not proved, and at most a hair above the truth."
    t = statistic(CURVES[curve], a, b, n, critical_root(alpha))
    counts = outcomes(n, 3)
    event = roots(t)
    beta = alpha / 100
    ends = binomial_lower(a, n, beta / 2), binomial_upper(a, n, beta / 2)
    low, high = 0.0, 1.0 if curve == "uniform" else 4.0
    for _ in range(25):
        s = (low + high) / 2
        tops = np.linspace(ends[0], min(ends[1], last_top(curve, s)), points) if ends[0] < last_top(curve, s) else []
        value = 0.0
        for top in tops:
            rival = rival_of(curve, top, s)
            value = max(value, chances(counts[event], [top, rival, max(1 - top - rival, 0.0)]).sum())
        low, high = (s, high) if value <= alpha - beta else (low, s)
    return low


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(
    "a, b, n, s",
    [(12, 2, 20, 0.4), (20, 0, 20, 0.7), (9, 8, 20, 0.1), (15, 0, 20, 0.6), (70, 25, 100, 0.9), (3, 1, 50, 0.02)],
)
def test_signed_root_agrees_with_a_plain_search(curve, a, b, n, s):
    root, _ = signed_root(
        CURVES[curve], np.array([[a], [b], [n - a - b]], float), np.array([s]), np.array([0.5 * s - 0.1])
    )
    assert root[0] == pytest.approx(plain_root(curve, a, b, n, s), abs=1e-6)


@pytest.mark.parametrize("curve", CURVES)
def test_signed_root_respects_the_order_of_counts(curve):
    "Up with a, down with b, down with s: 0 exceptions among all outcomes of 25 votes."
    counts = outcomes(25, 3).T.astype(float)
    previous = None
    for s in (0.05, 0.3, 0.7):
        roots, _ = signed_root(
            CURVES[curve], counts, np.full(counts.shape[1], s), np.full(counts.shape[1], s / 2 - 0.01)
        )
        table = np.full((26, 26), np.nan)
        table[counts[0].astype(int), counts[1].astype(int)] = roots
        assert np.nanmin(np.diff(table, axis=0)) > -1e-7
        assert np.nanmax(np.diff(table, axis=1)) < 1e-7
        if previous is not None:
            assert np.nanmax(table - previous) < 1e-7
        previous = table


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("alpha", [0.3, 0.01])
def test_limit_agrees_with_enumeration(curve, alpha):
    n, z = 14, critical_root(alpha)
    counts = outcomes(n, 3)
    for a, b in ((14, 0), (12, 1), (10, 0)):
        def event(t):
            if t <= 0:
                return np.ones(len(counts), bool)
            return np.array([plain_root(curve, x, y, n, t) >= z - 1e-6 if x > y else False for x, y, _ in counts])
        found = limit(a, b, n, alpha, curve)
        if statistic(CURVES[curve], a, b, n, z) <= 0:
            assert found == 0
            continue
        expected = plain_limit(curve, a, b, n, alpha, event, points=150)
        assert found <= expected + 1e-6
        assert found >= max(expected - 1e-3, 0)


@pytest.mark.parametrize("n, p, rival, radius", PROTOTYPE)
def test_limit_agrees_with_the_prototype(n, p, rival, radius):
    assert limit(round(p * n), round(rival * n), n) / 2 == pytest.approx(radius, abs=3e-4)


def test_unanimous_votes_in_closed_form():
    for n, alpha in ((30, 0.01), (1000, 0.001), (100_000, 0.001)):
        p = (0.99 * alpha) ** (1 / n)
        assert limit(n, 0, n, alpha) == pytest.approx(2 * ndtri(p), abs=1e-4)
        assert limit(n, 0, n, alpha, "uniform") == pytest.approx(2 * p - 1, abs=1e-4)
        assert limit(n, 0, n, alpha) <= 2 * ndtri(p) and limit(n, 0, n, alpha, "uniform") <= 2 * p - 1


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("a, b, n", [(140, 40, 200), (58, 1, 60), (60, 0, 60)])
def test_tail_probability_with_forty_digits(curve, a, b, n):
    mpmath.mp.dps = 40
    t = float(statistic(CURVES[curve], a, b, n, critical_root(0.001)))
    stairs = staircase(Question(CURVES[curve], a, n, 0.001, 1e-5, t))
    left, right = stairs.question.span(t)
    x = np.linspace(left, right, 3)[1:2]
    p, c, _ = (mpmath.mpf(float(value[0])) for value in CURVES[curve].law(x, t))
    total = mpmath.mpf(0)
    for b_, need in zip(stairs.rows, stairs.needs[:-1]):
        for a_ in range(int(need), n - int(b_) + 1):
            ways = mpmath.binomial(n, int(b_)) * mpmath.binomial(n - int(b_), a_)
            total += ways * p**a_ * c**int(b_) * (1 - p - c)**(n - a_ - int(b_))
    found = tail_probability(stairs, t, x)[0]
    assert 0 <= found - float(total) <= 1e-6 * 0.001


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(
    "a, b, n",
    [(17, 2, 25), (98, 0, 100), (60, 25, 100), (700, 200, 1000), (990, 10, 1000), (100, 20, 1000), (9000, 500, 10_000)],
)
def test_branch_and_bound_is_never_below_a_dense_grid(curve, a, b, n):
    t = float(statistic(CURVES[curve], a, b, n, critical_root(0.01)))
    stairs = staircase(Question(CURVES[curve], a, n, 0.01, 1e-4, t))
    for share in (0.6, 0.9, 1.0):
        left, right = stairs.question.span(share * t)
        if left >= right:
            assert supremum(stairs, share * t, 0.5) == 0
            continue
        dense = tail_probability(stairs, share * t, np.linspace(left, right, 2001)).max()
        for goal in (2.0, 1.003 * dense):
            assert dense <= supremum(stairs, share * t, goal) <= max(goal, 2.0)
        if dense < 1e-6: # nothing but what windows are charged
            continue
        assert supremum(stairs, share * t, 1.003 * dense) <= 1.003 * dense
        assert supremum(stairs, share * t, 0.99 * dense) > 0.99 * dense


def test_an_unbounded_cell_is_never_taken_for_a_low_one():
    "A cell over the whole curve, where both bounds are infinite, must not come out as its ends."
    stairs = staircase(
        Question(
            CURVES["uniform"], 30, 40, 0.01, 1e-4, float(statistic(CURVES["uniform"], 30, 4, 40, critical_root(0.01)))
        )
    )
    s = 0.3
    _, roofs = two_sided._roofs(stairs, s, np.array([0.3, 0.65]))
    inside = tail_probability(stairs, s, np.linspace(0.3, 0.65, 500)).max()
    assert roofs[0] >= inside


def all_limits(n, alpha, curve):
    a, b = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    inside = a + b <= n
    table = np.full(a.shape, np.nan)
    table[inside] = limit(a[inside], b[inside], n, alpha, curve)
    return table


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("n, alpha", [(20, 0.1), (20, 0.001), (26, 0.01)])
def test_error_by_enumeration_and_monotonicity(curve, n, alpha):
    "Three and four classes: never above alpha, and used up to beta."
    table = all_limits(n, alpha, curve)
    assert np.nanmax(np.diff(table, axis=1)) <= 1e-7 and np.nanmax(-np.diff(table, axis=0)) <= 1e-7
    worst = 0.0
    for classes in (3, 4) if n <= 20 else (3,):
        counts = outcomes(n, classes)
        claimed = table[counts[:, 0], counts[:, 1:].max(1)]
        for s in np.unique(table[table > 0])[:: 4 if classes == 3 else 12] - 1e-9:
            for top in np.r_[np.linspace(0.05, last_top(curve, s), 12), last_top(curve, s)]:
                rival = rival_of(curve, top, s)
                rest = max(1 - top - rival, 0.0) / (classes - 2)
                if rest <= rival + 1e-15:
                    p = np.array([top, rival, *[rest] * (classes - 2)])
                    worst = max(worst, chances(counts, p) @ (claimed > s))
        for p in outcomes(10, classes) / 10: # with wrong classes R among them
            rival = p[1:].max()
            psi = p[0] - rival if curve == "uniform" else ndtri(p[0]) - ndtri(rival) if rival > 0 else np.inf
            psi = psi if p[0] > rival else 0.0
            worst = max(worst, chances(counts, p) @ (claimed > max(psi, 0.0) * (1 + 1e-12)))
    assert 0.8 * alpha < worst <= alpha


def test_witness():
    top, rival = np.array([980, 700, 500]), np.array([15, 200, 300])
    s, t = solve(top, rival, 1000)
    beta = np.full(3, 1e-5)
    assert prove(top, rival, 1000, 0.001, beta, s, t).all()
    assert prove(top, rival, 1000, 0.001, beta, s * 0.9, t).all() # less is also true
    for change in (
        dict(s=s + 2e-4), dict(t=t + 1e-6), dict(s=-s), dict(s=s * np.inf), dict(t=t * np.nan),
        dict(beta=0 * beta), dict(beta=beta * 200),
    ):
        changed = dict(beta=beta, s=s, t=t) | change
        assert not prove(top, rival, 1000, 0.001, **changed).any(), change
    assert not prove(top - 1, rival, 1000, 0.001, beta, s, t).any()
    assert not prove(top, rival + 1, 1000, 0.001, beta, s, t).any()
    assert not prove(top, rival, 1000, 0.0009, beta, s, t).any()


@pytest.mark.parametrize("n, alpha", [(20, 0.6), (20, 0.9), (60, 0.4)])
def test_an_interval_that_ends_before_the_rival_has_mass_proves_nothing(n, alpha):
    "Uniform noise, s beyond I(a): the rival has probability 0 all along, and its top class is never likelier than at the end of I(a)."
    table, a = all_limits(n, alpha, "uniform"), np.arange(n + 1)
    assert np.all(table[:, 0] <= binomial_lower(a, n, alpha) + 1e-7) # no rival in sight: the error is that of one limit
    for p in np.linspace(0.01, 0.99, 50):
        assert binom.pmf(a, n, p) @ (table[:, 0] > p) <= alpha


def test_votes_of_many_classes_at_a_generous_level():
    "29 of 60 against 5 and others: .73 was certified, where the shares are .4 apart."
    assert 0.37 < limit(29, 5, 60, 0.4, "uniform") < 24 / 60


def test_no_witness_proves_a_distance_beyond_the_interval():
    top, rival, beta = np.array([60, 600]), np.array([20, 200]), np.full(2, 1e-5)
    n = np.array([100, 1000])
    s, t = solve(top, rival, n, 0.001, "uniform")
    assert prove(top, rival, n, 0.001, beta, s, t, "uniform").all()
    for claimed in (0.45, 0.7, 0.9, 0.95, 0.99, 0.9999):
        assert not prove(top, rival, n, 0.001, beta, np.full(2, claimed), t, "uniform").any()


def test_a_lower_t_only_costs_radius():
    "The event grows; a claim that survives is still proved, the largest one no longer is."
    s, t = solve(700, 200, 1000)
    assert not prove(700, 200, 1000, 0.001, 1e-5, s, t - 0.01)
    assert prove(700, 200, 1000, 0.001, 1e-5, s - 0.03, t - 0.01)


@pytest.mark.parametrize("n", [100_000, 1_000_000])
def test_many_draws(n):
    top, rival = np.array([0.9, 0.5, 0.999]) * n, np.array([0.05, 0.4, 0.0005]) * n
    found = limit(top, rival, n)
    even = ndtri(binomial_lower(top, n, 0.0005)) - ndtri(binomial_upper(rival, n, 0.0005))
    assert np.all(found > even) and np.all(found < ndtri(top / n) - ndtri(rival / n))


def test_equal_counts_are_computed_once(monkeypatch):
    calls = []
    monkeypatch.setattr(two_sided, "_solve", lambda *given: calls.append(given) or 1.0)
    assert limit([[30, 30], [40, 30]], 5, 60).shape == (2, 2)
    assert len(calls) == 2


def test_shapes_and_abstentions():
    assert isinstance(limit(90, 5, 100), float) and limit([], [], 10).shape == (0,)
    assert np.array_equal(limit([5, 0, 50, 1, 300], [20, 0, 50, 0, 290], [100, 5, 100, 1, 1000]), np.zeros(5))
    several = limit([900, 700], [50, 200], 1000)
    assert several[0] == limit(900, 50, 1000) and several[1] == limit(700, 200, 1000)


def test_windows_leave_out_what_they_say():
    for n, p, eps in itertools.product((1, 30, 1000, 100_000), (0.0, 1e-5, 0.3, 0.5, 0.999, 1.0), (1e-4, 1e-12)):
        low, high = tail_range(n, p, eps)
        assert binom.cdf(low - 1, n, p) <= eps and binom.sf(high, n, p) <= eps


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(top=60, rival=50, n=100), "top \\+ rival"),
        (dict(top=-1, rival=0, n=10), "top"),
        (dict(top=5.5, rival=0, n=10), "top"),
        (dict(top=5, rival=np.nan, n=10), "rival"),
        (dict(top=0, rival=0, n=0), "n must"),
        (dict(top=5, rival=1, n=10, alpha=0.0), "alpha"),
        (dict(top=5, rival=1, n=10, alpha=1.5), "alpha"),
        (dict(top=5, rival=1, n=10, curve="laplace"), "curve"),
    ],
)
def test_bad_input(given, words):
    with pytest.raises(ValueError, match=words):
        limit(**given)


def test_the_engine_does_not_prove_beyond_its_rows():
    stairs = staircase(Question(CURVES["gaussian"], 70, 100, 0.001, 1e-5, 0.8))
    assert supremum(stairs, stairs.s_most + 0.01, 0.5) == 1.0 and not proved(stairs, stairs.s_most + 0.01)
    with pytest.raises(ValueError, match="s must"):
        tail_probability(stairs, stairs.s_most + 0.01, np.array([0.1, 0.2]))


@pytest.mark.parametrize("n", [10**12 + 1, 2**53, 2**62])
def test_more_draws_than_limits_are_safe_for_are_refused(n):
    "Among counts that doubles do not tell apart a search never ended, and limits err before that."
    with pytest.raises(ValueError, match="n must be between 1 and 1,000,000,000,000"): limit(n, 0, n)
    for bound in (binomial_lower, binomial_upper):
        with pytest.raises(ValueError, match="n must be at most 1,000,000,000,000"): bound(n // 2, n, 0.001)
    record = rs.Record.from_counts([[1, 0]], [[n, 0]], n=n, noise=rs.Gaussian(sigma=1.0), dim=3)
    for method in ("exact", "gaussian", "tcertify"):
        with pytest.raises(ValueError, match="n must be at most 1,000,000,000,000"): record.certify(method=method)


def test_the_most_draws_are_certified():
    n = 10**12
    certificates = rs.Record.from_counts([[1, 0]], [[n, 0]], n=n, noise=rs.Gaussian(sigma=1.0), dim=3).certify(
        method="exact"
    )
    assert certificates.radius > 0 and rs.check(certificates).all()


@pytest.mark.parametrize("n", [30, 1000, 100_000])
@pytest.mark.parametrize("alpha", [1e-12, 0.001, 0.2])
def test_without_a_vote_for_the_rival_the_statistic_has_a_closed_form(n, alpha):
    "The likeliest point has p_R = (1 + s) a / 2 n, or s where that is larger: there the curve bends."
    z, tops = critical_root(alpha), np.unique(np.linspace(0.05 * n, n - 1, 40).astype(int))

    def root(s, q):
        p = max(s, (1 + s) * q / 2)
        return np.sqrt(max(2 * n * (xlogy(q, q / p) + xlogy(1 - q, (1 - q) / (1 - 2 * p + s))), 0)) - z

    for top, t in zip(tops, statistic(CURVES["uniform"], tops, 0, n, z)):
        q = top / n
        if root(0, q) < 0:
            assert t == -1
        else:
            assert t <= brentq(root, 0, q, (q,), xtol=1e-15) <= t + 1e-8, (top, t)


@pytest.mark.parametrize("curve", sorted(CURVES))
def test_millions_of_draws_prove_what_two_limits_prove(curve):
    "Rounding grows with n; it may cost digits, never all."
    n = np.array([8_870_923, 9_165_335, 10_000_000, 10_000_000])
    top, rival = (
        np.array([3_303_023, 1_722_782, 9_000_000, 3_400_000]),
        np.array([3_022_447, 717_915, 500_000, 3_300_000]),
    )
    assert np.all(limit(top, rival, n, 0.001, curve) >= separate_limits(CURVES[curve], top, rival, n, 0.001) - 5e-5)


@pytest.mark.parametrize("curve", sorted(CURVES))
@pytest.mark.parametrize("n", [two_sided.MOST_STAIRS + 1, 10**9, 10**12])
def test_more_draws_than_stairs_are_certified_and_proved_again(curve, n):
    top, rival = np.array([0.9, 0.5, 0.34, 1, 0.3, 0]), np.array([0.05, 0.25, 0.339, 0, 0.3, 0.5])
    top, rival = (top * n).astype(np.int64), (rival * n).astype(np.int64)
    s, t = solve(top, rival, n, 0.001, curve)
    truth = CURVES[curve].gap(top * 1.0, rival * 1.0, np.float64(n))
    assert np.array_equal(s > 0, [True, True, True, True, False, False])
    kept = s > 0
    finite = kept & np.isfinite(truth)
    assert np.all(s[finite] < truth[finite]) and np.all(s[finite] > truth[finite] - 60 / np.sqrt(n) - 1e-11)
    assert prove(top[kept], rival[kept], n, 0.001, 1e-5, s[kept], t[kept], curve).all()
    for worse in ((s + 1e-6, t), (s, t + 1e-6), (s + 1e-6, t + 1e-6)):
        assert not prove(top[kept], rival[kept], n, 0.001, 1e-5, worse[0][kept], worse[1][kept], curve).any()
    assert not prove(top[kept] - n // 1000, rival[kept], n, 0.001, 1e-5, s[kept], t[kept], curve).any()
