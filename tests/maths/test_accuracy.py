"Statements about a whole test set: the counts of the literature, exact coverage, refusals."
import numpy as np
import pytest
from scipy.stats import binom

from robust_smooth.maths.accuracy import accuracy_of_population, accuracy_of_these, false_claims
from robust_smooth.maths.bounds import binomial_lower


def test_false_claims_of_usual_test_sets():
    assert [false_claims(m, 0.001, 0.001) for m in (500, 10_000)] == [4, 21]
    assert false_claims(500, 0.0) == 0


@pytest.mark.parametrize("m, alpha, rho", [(1, 0.5, 0.6), (1, 0.5, 0.4), (60, 0.05, 0.01), (500, 0.001, 0.001), (5000, 0.001, 0.2), (7, 0.9, 1e-9)])
def test_false_claims_are_the_fewest(m, alpha, rho):
    q = false_claims(m, alpha, rho)
    assert binom.sf(q, m, alpha) <= rho
    assert q == 0 or binom.sf(q - 1, m, alpha) > rho


def test_these_images_hold_for_all_radii():
    assert np.allclose(accuracy_of_these([500, 380, 4, 0], 500, 0.001), [0.992, 0.752, 0, 0])
    assert accuracy_of_these(7, 10, 0.0) == 0.7


@pytest.mark.parametrize("m, alpha, rho", [(40, 0.05, 0.1), (200, 0.001, 0.01)])
def test_population_is_covered_exactly_at_one_radius(m, alpha, rho):
    bound = accuracy_of_population(np.arange(m + 1), m, alpha, rho, simultaneous=False)
    for share in np.linspace(0.02, 0.98, 25):
        claims = binom.pmf(np.arange(m + 1), m, share + (1 - share) * alpha)
        assert claims[bound > share].sum() <= rho * (1 + 1e-9)
    assert np.allclose(accuracy_of_population(np.arange(m + 1), m, 0.0, rho, simultaneous=False), binomial_lower(np.arange(m + 1), m, rho))


def test_all_radii_at_once_cost_more_and_everything_stays_a_probability():
    claims = np.arange(101)
    one, several = (accuracy_of_population(claims, 100, 0.01, 0.05, simultaneous=side) for side in (False, True))
    assert np.all(several[:80] <= one[:80] + 1e-12) and np.all((several >= 0) & (several <= 1)) and np.all(np.diff(several) >= 0)


@pytest.mark.parametrize("call, words", [
    (lambda: false_claims(0, 0.001), "images"), (lambda: false_claims(500, 1.0), "alpha"), (lambda: false_claims(500, 0.001, 0.0), "rho"),
    (lambda: accuracy_of_these(501, 500, 0.001), "certified"), (lambda: accuracy_of_these(0.5, 500, 0.001), "certified"),
    (lambda: accuracy_of_population(5, 10, 0.001, 0.7), "rho"), (lambda: accuracy_of_population(5, 10, -0.1), "alpha"),
])
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
