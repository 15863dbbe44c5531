"""Bernstein regression: as scikit-learn has regressors, and with data of the wrong shape."""
from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score, GridSearchCV
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils.estimator_checks import check_estimator

from robust_smooth.methods.bernstein import basis, cross_validate_degree, smooth_regression, SmoothedRegressor

TREE = DecisionTreeRegressor(random_state=0)

@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = np.sort(rng.uniform(size=40))
    return X[:, None], np.sin(6 * X) + 0.3 * rng.normal(size=40)

def test_affine_functions_spikes_and_what_hides_between_the_lattice():
    model = smooth_regression(lambda x: 2 * x[:, 0] - x[:, 1], (3, 5), [(0, 2), (-1, 1)])
    X = np.random.default_rng(0).uniform([0, -1], [2, 1], size=(20, 2))
    assert np.abs(model.predict(X) - 2 * X[:, 0] + X[:, 1]).max() < 1e-13
    at = lambda place: smooth_regression(lambda x: (np.abs(x[:, 0] - place) < 0.01).astype(float), 10, (0, 1)).predict(
        [place]
    )[0]
    assert abs(at(0.3) - 0.2668279) < 1e-6 and at(0.25) == 0
    with pytest.raises(ValueError, match="extrapolation"): model.predict([[3.0, 0.0]])
    with pytest.raises(ValueError, match="interval"): smooth_regression(lambda x: x[:, 0], 3, (1, 0))

@pytest.mark.parametrize("n", [1, 4, 9])
def test_noise_of_variance_one_is_damped_as_stated(n):
    nodes, weights = np.polynomial.legendre.leggauss(n + 1) # exact for the average over [0, 1]
    average = (basis(n, (nodes + 1) / 2) ** 2).sum(1) @ weights / 2
    assert abs(average - 4 ** n / ((2 * n + 1) * math.comb(2 * n, n))) < 1e-13

@pytest.mark.parametrize("outside", ["clip", "raise"])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(outside):
    check_estimator(SmoothedRegressor(TREE, n=1, outside=outside))

def test_clone_parameters_score_and_search(data):
    model = SmoothedRegressor(TREE, n=7, outside="clip")
    again = clone(model)
    assert again is not model and again.get_params()["n"] == 7 and again.get_params()["estimator__random_state"] == 0
    fitted = model.fit(*data)
    assert fitted is model and 0 < fitted.score(*data) <= 1 and not hasattr(again, "coefficients_")
    assert cross_val_score(model, *data, cv=3).shape == (3,)
    found = GridSearchCV(model, dict(n=[2, 8]), cv=3).fit(*data)
    assert found.best_params_["n"] in (2, 8)
    assert clone(smooth_regression(TREE.fit(*data), 3, (0, 1))).n == 3

def test_fitting_equals_smoothing_what_was_fitted(data):
    X, y = data
    tree = clone(TREE).fit(X, y)
    by_hand = smooth_regression(tree, 9, (X.min(), X.max()))
    assert np.array_equal(SmoothedRegressor(TREE, n=9).fit(X, y).predict(X), by_hand.predict(X))
    assert SmoothedRegressor(n=9).fit(X, y).predict(X) == pytest.approx(by_hand.predict(X))
    constant = SmoothedRegressor(TREE, n=2).fit(np.ones((5, 1)), np.arange(5.0))
    assert constant.predict([[1.0]])[0] == pytest.approx(2)

def test_outside_the_interval(data):
    X, y = data
    with pytest.raises(ValueError, match="extrapolation"): SmoothedRegressor(TREE).fit(X, y).predict([[2.0]])
    clipped = SmoothedRegressor(TREE, outside="clip").fit(X, y)
    assert clipped.predict([[2.0]])[0] == clipped.predict([[X.max()]])[0]
    with pytest.raises(ValueError, match="outside must"): SmoothedRegressor(TREE, outside="wrap").fit(X, y)
    with pytest.raises(ValueError, match="one pair per input"):
        SmoothedRegressor(TREE, interval=[(0, 1), (0, 1)]).fit(X, y)

def test_a_column_of_targets_is_a_vector(data):
    X, y = data
    vector = cross_validate_degree(TREE, X, y, (5, 20))
    assert (
        cross_validate_degree(TREE, X, y[:, None], (5, 20))
        == vector
        == cross_validate_degree(TREE, X[:, 0], y, (5, 20))
    )
    assert set(vector) == {0, 5, 20}

@pytest.mark.parametrize("degrees", [(2.5,), (0,), (-1,), (np.nan,), (np.inf,), ("3",), (True and 2.0001,)])
def test_degrees_are_whole_numbers(data, degrees):
    with pytest.raises(ValueError, match="n must be"): cross_validate_degree(TREE, *data, degrees)

@pytest.mark.parametrize("shape", [(41,), (39,), (40, 2), (1, 40), ()])
def test_targets_must_fit_the_inputs(data, shape):
    with pytest.raises(ValueError, match="y must have one number per row"):
        cross_validate_degree(TREE, data[0], np.ones(shape), (3,))

def test_other_bad_data(data):
    X, y = data
    for folds in (1, 41, 2.5, True):
        with pytest.raises(ValueError, match="folds"): cross_validate_degree(TREE, X, y, (3,), folds=folds)
    with pytest.raises(ValueError, match="X must"): cross_validate_degree(TREE, X[None], y, (3,))
    with pytest.raises(ValueError, match="y must be finite"):
        cross_validate_degree(TREE, X, np.where(y > 0, np.nan, y), (3,))


class _Column(LinearRegression):
    "It predicts [M, 1], as scikit-learn does after a fit to such targets."

    def predict(self, X):
        return super().predict(X).reshape(-1, 1)


def test_predictions_of_one_column_are_no_broadcast():
    rng = np.random.default_rng(0)
    X = rng.random((60, 2))
    y = np.sin(3 * X[:, 0]) + 0.1 * rng.standard_normal(60)
    assert cross_validate_degree(_Column(), X, y, degrees=(2,)) == cross_validate_degree(
        LinearRegression(), X, y, degrees=(2,)
    )


def test_a_model_of_two_outputs_is_refused():
    X = np.random.default_rng(0).random((30, 2))
    fitted = LinearRegression().fit(X, np.c_[X[:, 0], X[:, 1]])
    with pytest.raises(ValueError, match="one number per row"): smooth_regression(fitted, 2, [[0, 1], [0, 1]])
    with pytest.raises(ValueError, match="one number per row"):
        smooth_regression(lambda x: x[:1, 0], 2, [[0, 1], [0, 1]])
