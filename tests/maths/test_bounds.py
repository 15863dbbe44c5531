"Binomial limits against 50-digit references, and what they refuse."
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import binom

from robust_smooth.core.checks import check
from robust_smooth.core.record import Record
from robust_smooth.maths import bounds
from robust_smooth.maths.bounds import ROUNDING, binomial_lower, binomial_upper, probit, runner_up_upper
from robust_smooth.noise.additive import Gaussian


def exact_lower(k: int, n: int, alpha: float, start: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    "The Clopper-Pearson lower limit and its complement to 40 digits, by Newton steps on the summed tail."
    with mpmath.workdps(60):
        p, level = mpmath.mpf(start), mpmath.mpf(alpha)
        constant = mpmath.loggamma(n + 1) - mpmath.loggamma(k + 1) - mpmath.loggamma(n - k + 1)
        for _ in range(6):
            first = term = mpmath.exp(constant + k * mpmath.log(p) + (n - k) * mpmath.log(1 - p))
            tail, j = term, k
            while j < n and term > tail * mpmath.mpf(10) ** -45:
                term *= mpmath.mpf(n - j) / (j + 1) * p / (1 - p)
                tail, j = tail + term, j + 1
            step = (tail - level) / (first * k / p)
            p -= step
            if abs(step) < mpmath.mpf(10) ** -42 * min(p, 1 - p): break
        return p, 1 - p


CASES = [
    (k, n, alpha)
    for n in (10, 1000, 100_000, 1_000_000)
    for k in sorted({1, n // 50 + 1, n // 2, n - n // 100 - 1, n - 1})
    for alpha in (1e-9, 0.0005, 0.001, 0.05)
]


@pytest.mark.parametrize("k, n, alpha", CASES)
def test_limits_against_high_precision(k, n, alpha):
    value, complement = binomial_lower(k, n, alpha), binomial_lower(k, n, alpha, complement=True)
    p, q = exact_lower(k, n, alpha, value)
    assert abs(value - p) / p < 1e-12 and abs(complement - q) / q < 1e-12
    assert value <= p and complement >= q  # rounded to the safe side
    assert abs(binomial_upper(n - k, n, alpha) - q) / q < 1e-12 and binomial_upper(n - k, n, alpha) >= q


@given(n=st.integers(1, 10**6), share=st.floats(0, 1), alpha=st.floats(1e-12, 0.5))
@settings(max_examples=300, deadline=None)
def test_limits_bracket_the_proportion_and_are_monotone(n, share, alpha):
    k = int(round(share * n))
    low, high = binomial_lower(k, n, alpha), binomial_upper(k, n, alpha)
    assert 0 <= low <= k / n <= high <= 1
    assert binomial_lower(max(k - 1, 0), n, alpha) <= low and binomial_lower(k, n, alpha / 2) <= low
    assert abs(low + binomial_lower(k, n, alpha, complement=True) - 1) < 5 * ROUNDING


@pytest.mark.parametrize("n, alpha", [(7, 0.05), (40, 0.001), (120, 0.01)])
def test_coverage_is_exact(n, alpha):
    k = np.arange(n + 1)
    low, high = binomial_lower(k, n, alpha), binomial_upper(k, n, alpha)
    for p in np.linspace(0.002, 0.998, 250):
        pmf = binom.pmf(k, n, p)
        assert pmf[low > p].sum() <= alpha * (1 + 1e-9) and pmf[high < p].sum() <= alpha * (1 + 1e-9)


def test_runner_up_is_the_root_of_the_sum():
    rng = np.random.default_rng(0)
    for classes, n in ((3, 50), (10, 1000), (999, 100_000)):
        counts = rng.multinomial(n // 10, np.ones(classes) / classes, size=4)
        bound = runner_up_upper(counts, n, 0.0005)
        total = np.array([binom.cdf(c, n, b).sum() for c, b in zip(counts, bound)])
        np.testing.assert_allclose(total, 0.0005, rtol=1e-9)
        assert (bound >= binomial_upper(counts.max(1), n, 0.0005)).all()


@pytest.mark.parametrize("call, words", [
    (lambda: binomial_lower(3, 2, 0.1), "k must be at most n"),
    (lambda: binomial_lower(-1, 2, 0.1), "k must be whole numbers"),
    (lambda: binomial_lower(1, 2, -0.1), "alpha must be in"),
    (lambda: binomial_upper(np.nan, 2, 0.1), "k must be whole numbers"),
    (lambda: binomial_upper(1, 2.5, 0.1), "n must be whole numbers"),
    (lambda: runner_up_upper(np.zeros((2, 0)), 5, 0.1), "at least one class"),
    (lambda: probit(-0.1), "p must be in"),
])
def test_refusals_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words): call()


def test_limits_stay_in_the_unit_interval_where_densities_vanish():
    for value in (
        binomial_lower(5, 10, 1e-100, complement=True),
        binomial_upper(5, 10, 1e-100),
        binomial_lower(2, 10**12, 0.001, complement=True),
    ):
        assert 1 - 1e-9 <= value <= 1
    assert 0 <= binomial_lower(5, 10, 1e-100) < 1e-19
    for alpha in (1e-150, 1e-300):
        with pytest.raises(ValueError, match="at least 1e-100"): binomial_lower(4, 6, alpha)


@pytest.mark.parametrize("missing", [1, 2, 5, 10, 20, 39, 40, 60])
@pytest.mark.parametrize("n", [10**6, 10**8, 906692078, 10**11])
def test_limits_stay_safe_where_few_votes_are_missing_from_very_many(n, missing):
    "Pr[Bin(n, q) <= missing] = alpha, summed in 40 digits; the complement must not be below its root."
    for alpha in (0.1, 0.001, 1e-9):
        value = binomial_lower(n - missing, n, alpha, complement=True)
        with mpmath.workdps(40):
            q, root = mpmath.mpf(value), None
            for _ in range(4):
                term = mpmath.exp(n * mpmath.log1p(-q))
                tail = term
                for j in range(missing):
                    term *= mpmath.mpf(n - j) / (j + 1) * q / (1 - q)
                    tail += term
                slope = -term * (n - missing) / (1 - q) # of the tail in q
                q -= (tail - mpmath.mpf(alpha)) / slope
            assert 0 <= (value - q) / q < 5 * ROUNDING


@pytest.mark.parametrize("n", [1001, 3000, 12345, 10**6, 10**8, 10**9, 2**31, 10**12])
def test_a_lower_limit_of_a_handful_of_votes_is_on_the_safe_side(n):
    "At every level, those above one half and the smallest among them: the tail at the limit is at most alpha, by 200 digits."
    with mpmath.workdps(200):
        for k in (1, 2, 3, 4, 8, 20, 39, 40, 41):
            for alpha in (1e-100, 1e-30, 0.001, 0.5, 0.55, 0.6, 0.8, 0.99, 0.999):
                p = mpmath.mpf(float(binomial_lower(k, n, alpha)))
                below = mpmath.fsum(mpmath.binomial(n, j) * p**j * (1 - p)**(n - j) for j in range(k))
                assert 0 <= (alpha - (1 - below)) / alpha <= 1e-9, (k, alpha)
    for alpha in (1e-100, 1e-30):
        assert binomial_lower(1, 1, alpha) <= alpha and binomial_upper(0, 1, alpha, complement=True) <= alpha


@pytest.mark.parametrize(
    "n, alpha",
    [
        (144_682, 0.001), (578_933, 0.001), (17_612, 0.021454608107337927),
        (73_417, 9.88056753474615e-05),
        (537_053_960, 1.8185696096861673e-71),
    ],
)
def test_an_inverse_that_goes_astray_is_not_believed(n, alpha):
    "SciPy's inverse fails where a parameter is exactly 1000: a limit of .9985 where the votes' own share was .9931."
    k = n - 999
    for complement in (False, True):
        before, here, after = (
            float(bounds.binomial_lower(j, n, alpha, complement=complement)) for j in (k - 1, k, k + 1)
        )
        assert min(before, after) < here < max(before, after) and abs(before - 2 * here + after) < 0.01 * abs(
            after - before
        )
    assert bounds.binomial_lower(k, n, alpha) < k / n < bounds.binomial_upper(k, n, alpha)
    assert bounds.binomial_lower(1000, n, alpha) < 1000 / n < bounds.binomial_upper(999, n, alpha)
    table = Record.from_counts([[1, 0]] * 2, [[k, 999], [k - 1, 1000]], n, Gaussian(sigma=0.5), 4).certify(
        "l2", method="gaussian", alpha=alpha
    )
    assert 0 < table.radius[0] - table.radius[1] < 1e-3 and check(table).all()


@pytest.mark.parametrize("n", [10**9, 10**11, 10**12])
def test_many_draws_at_tiny_levels_stay_on_the_safe_side(n):
    "One step of Newton's method left tails up to .5 % above their level."
    k, alpha = (
        (np.array([0.02, 0.163, 0.185, 0.6, 0.97]) * n).astype(np.int64),
        np.array([1e-97, 4e-31, 3e-82, 1e-53, 1e-9]),
    )
    assert np.all(bounds.tail_at_least(k, n, bounds.binomial_lower(k, n, alpha)) <= alpha)
    assert np.all(bounds.tail_at_most(n - k, n, bounds.binomial_lower(k, n, alpha, complement=True)) <= alpha)


def test_honest_certificates_of_many_draws_pass_their_check():
    "Next to 1 a limit has lost the digits that its tail needs; the check reads its complement."
    for n, k, alpha in (
        (82_043_976, 82_043_976, 5e-53),
        (23_547_414_694, 23_547_414_687, 9e-56),
        (2_201_606_901, 2_201_606_873, 0.8),
    ):
        votes = Record.from_counts([[1, 0]], [[k, n - k]], n, Gaussian(sigma=0.5), 4)
        assert all(check(votes.certify("l2", method=method, alpha=alpha)).all() for method in ("gaussian", "tcertify"))


def _at_most(m, n, p):
    "Pr[Bin(n, p) <= m] for few m."
    term = total = mpmath.exp(n * mpmath.log1p(-p))
    for j in range(m):
        term = term * (n - j) / (j + 1) * p / (1 - p)
        total += term
    return total


@pytest.mark.parametrize("m, n, alpha", [
    (19, 143148522613, 0.9842130546318171), (17, 5265477571, 0.9789704534265629), (31, 2027625504, 0.8019897521871593),
    (19, 1113519, 0.9987255272586526), (26, 1153, 0.9999999999740823), (2, 260519, 0.9999999999506248), (36, 1371, 0.8677481346183431),
])
def test_limits_at_levels_near_one_stay_on_the_safe_side(m, n, alpha):
    "Before, the tail at these limits exceeded its level by up to 3e-15 of it, and limits were off by up to 1e-6 of themselves."
    with mpmath.workdps(50):
        for limit in (binomial_upper(m, n, alpha), binomial_lower(n - m, n, alpha, complement=True)):
            assert _at_most(m, n, mpmath.mpf(float(limit))) <= mpmath.mpf(alpha)
            assert _at_most(m, n, mpmath.mpf(float(limit)) * (1 - 1e-12 / (1 - alpha))) >= mpmath.mpf(alpha) # and not far


@pytest.mark.parametrize("counts, n, alpha", [
    ([34, 3], 25313, 0.993549868943353), ([9, 8, 36], 51144998, 0.985128927900741), ([3, 33], 2134529616, 0.9635032314154175),
])
def test_sums_of_tails_at_levels_near_one_stay_on_the_safe_side(counts, n, alpha):
    with mpmath.workdps(50):
        limit = mpmath.mpf(float(runner_up_upper(counts, n, alpha)))
        assert sum(_at_most(m, n, limit) for m in counts) <= mpmath.mpf(alpha)


@pytest.mark.parametrize("level", [1 - 2**-53, 1 - 2**-50, 1 - 1e-13])
def test_unanimous_votes_keep_their_closed_form_at_levels_next_to_one(level):
    "What rounding may do to an inverse is nothing to the ends; a search for the fewest draws comes to an end."
    assert bounds.fewest_draws(level) == 1
    with mpmath.workdps(50):
        for n in (1, 10, 10**12):
            exact = mpmath.exp(mpmath.log(mpmath.mpf(level)) / n)
            p, q = bounds.binomial_lower(n, n, level), bounds.binomial_lower(n, n, level, complement=True)
            assert exact * (1 - 1e-12) < p <= exact and 1 - exact <= q < (1 - exact) * (1 + mpmath.mpf(10)**-12)
