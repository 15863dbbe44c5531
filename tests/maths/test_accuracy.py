"Statements about a whole test set: the counts of the literature, exact coverage, refusals."
import numpy as np
import pytest
from scipy.stats import binom

from robust_smooth.core.certificates import Certificates
from robust_smooth.maths.accuracy import accuracy_of_population, accuracy_of_these, false_claims
from robust_smooth.maths.bounds import binomial_lower


def test_false_claims_of_usual_test_sets():
    assert [false_claims(m, 0.001, 0.001) for m in (500, 10_000)] == [4, 21]
    assert false_claims(500, 0.0) == 0


@pytest.mark.parametrize(
    "m, alpha, rho",
    [(1, 0.5, 0.6), (1, 0.5, 0.4), (60, 0.05, 0.01), (500, 0.001, 0.001), (5000, 0.001, 0.2), (7, 0.9, 1e-9)],
)
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
    assert np.allclose(
        accuracy_of_population(np.arange(m + 1), m, 0.0, rho, simultaneous=False),
        binomial_lower(np.arange(m + 1), m, rho),
    )


def test_all_radii_at_once_cost_more_and_everything_stays_a_probability():
    claims = np.arange(101)
    one, several = (accuracy_of_population(claims, 100, 0.01, 0.05, simultaneous=side) for side in (False, True))
    assert (
        np.all(several[:80] <= one[:80] + 1e-12)
        and np.all((several >= 0) & (several <= 1))
        and np.all(np.diff(several) >= 0)
    )


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: false_claims(0, 0.001), "images"),
        (lambda: false_claims(500, 1.0), "alpha"),
        (lambda: false_claims(500, 0.001, 0.0), "rho"),
        (lambda: accuracy_of_these(501, 500, 0.001), "certified"),
        (lambda: accuracy_of_these(0.5, 500, 0.001), "certified"),
        (lambda: accuracy_of_population(5, 10, 0.001, 0.7), "rho"),
        (lambda: accuracy_of_population(5, 10, -0.1), "alpha"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

def certified(m=200, seed=0, **more):
    rng = np.random.default_rng(seed)
    label = np.where(rng.random(m) < 0.1, -1, 0)
    return Certificates(
        **(
            dict(
                label=label, radius=rng.gamma(2, 0.2, m), labels=np.zeros(m, int), norm="l2", alpha=0.01, method="demo"
            )
            | more
        )
    )

def test_certificates_say_together_what_the_bounds_say():
    table, radii = certified(), np.array([[0.0, 0.2], [0.5, 9.0]])
    right = np.round(200 * table.certified_accuracy(radii=radii)).astype(int)
    these, population = table.accuracy_interval(radii=radii), table.accuracy_interval(radii=radii, population=True)
    assert np.array_equal(these, accuracy_of_these(right, 200, 0.01)) and these.shape == (2, 2)
    assert np.array_equal(population, accuracy_of_population(right, 200, 0.01))
    assert np.all(population <= these) and np.all(these <= table.certified_accuracy(radii=radii)) and these[1, 1] == 0
    assert np.all(table.accuracy_interval(radii=radii, rho=0.1) >= these)
    exact = certified(alpha=0.0)
    # nothing can be false
    assert np.array_equal(exact.accuracy_interval(radii=radii), exact.certified_accuracy(radii=radii))

def test_too_many_false_certificates_at_once_are_rarer_than_rho():
    "Independent certificates of which each is false with probability alpha: the share that is claimed exceeds the true one with probability at most rho."
    rng, alpha, rho, m, wrong = np.random.default_rng(1), 0.05, 0.02, 60, 0
    for _ in range(3000):
        false = rng.random(m) < alpha # true radius 0, claimed .3
        table = Certificates(
            label=np.zeros(m, int),
            radius=np.where(false, 0.3, 0.0),
            labels=np.zeros(m, int), norm="l2", alpha=alpha, method="demo",
        )
        wrong += table.accuracy_interval(radii=0.3, rho=rho) > 0 # no image is certified there in truth
    assert wrong / 3000 <= rho + 3 * np.sqrt(rho / 3000)

@pytest.mark.parametrize(
    "change, options, words",
    [
        (dict(mode="paper"), {}, "proved"),
        ({}, dict(rho=0.0), "rho"),
        ({}, dict(rho=0.7, population=True), "at most 1/2"),
        ({}, dict(radii=-1.0), "radius"),
        (dict(index=np.zeros(200, int)), {}, "once"),
        (dict(labels=None), {}, "labels"),
    ],
)
def test_bad_questions_about_accuracy_are_refused(change, options, words):
    with pytest.raises(ValueError, match=words): certified(**change).accuracy_interval(**options)
