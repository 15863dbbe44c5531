"""Distances to the decision boundary: exact roots, closed forms, dense grids, rational points, witnesses."""
from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from robust_smooth.maths import boxes
from robust_smooth.maths.boxes import check, sound_radius, SoundRadius
from robust_smooth.maths.nearest import nearest, Sigmoid
from robust_smooth.maths.polynomials import coefficients, evaluate
from robust_smooth.maths.quick import quick_radius
from robust_smooth.maths.waiting import Items, Waiting

NORMS = (1, 1.5, 2, 3, np.inf)


def random_table(rng, d, n, K):
    return rng.normal(size=(K, *(n + 1,) * d)) + rng.normal(size=(K, *(1,) * d))


def grid_of(line, d):
    "All points of a grid in d dimensions, [M, d]."
    return np.stack(np.meshgrid(*[line] * d, indexing="ij"), -1).reshape(-1, d)


# --------------------------------------------------------------------------------------------------------- independent truths

def power_coefficients(difference):
    "Of a Bernstein form in one variable, exact, the constant first."
    n = len(difference) - 1
    power = [Fraction(0)] * len(difference)
    for k, v in enumerate(difference):
        for i in range(n - k + 1):
            power[k + i] += Fraction(v) * math.comb(n, k) * math.comb(n - k, i) * (-1) ** i
    return power


def one_dimensional_roots(difference):
    "Roots in [0, 1] of a Bernstein form in one variable."
    power = [mpmath.mpf(v.numerator) / v.denominator for v in reversed(power_coefficients(difference))]
    while power and power[0] == 0:
        power.pop(0)
    if len(power) < 2:
        return []
    roots = mpmath.polyroots(power, maxsteps=300, extraprec=300)
    real = [mpmath.re(z) for z in roots if abs(mpmath.im(z)) < mpmath.mpf(10) ** -20]
    return [z for z in real if -1e-30 <= z <= 1 + 1e-30]


def test_one_dimension_against_exact_roots():
    rng = np.random.default_rng(0)
    with mpmath.workdps(50):
        for trial in range(100):
            n, K = int(rng.integers(1, 8)), int(rng.integers(2, 5))
            table, x0 = rng.integers(-6, 7, size=(K, n + 1)).astype(float), float(rng.uniform())
            result = sound_radius(table, [x0], NORMS[trial % 5], rtol=10.0 ** -(2 + trial % 8))
            if result.status == "tie":
                continue
            rivals = [j for j in range(K) if j != result.label]
            roots = [z for j in rivals for z in one_dimensional_roots(table[result.label] - table[j])]
            true = min((abs(z - mpmath.mpf(x0)) for z in roots), default=mpmath.inf)
            assert result.lower <= true, (table, x0, result)
            both_infinite = math.isinf(result.upper) and math.isinf(true)
            assert true <= result.upper * (1 + 1e-9) + 1e-9 or both_infinite, (table, x0, result, true)


@pytest.mark.parametrize("p, dual", [(1, np.inf), (1.5, 3), (2, 2), (3, 1.5), (np.inf, 1)])
def test_affine_margins_have_closed_forms(p, dual):
    rng = np.random.default_rng(3)
    for d in (1, 2, 3, 5):
        for n in (1, 2):
            w, x0 = rng.normal(size=d), np.full(d, 0.5) + rng.uniform(-0.05, 0.05, size=d)
            length = np.linalg.norm(w, dual)
            shift = x0 @ w - 0.1 * length * rng.uniform(0.2, 1)
            table = coefficients(lambda x: np.stack([x @ w - shift, 0 * x[:, 0]], 1), d, n)
            true, result = (x0 @ w - shift) / length, sound_radius(table, x0, p, rtol=1e-8)
            assert result.lower <= true * (1 + 1e-15) and true <= result.upper * (1 + 1e-12), (d, n, result, true)
            assert result.upper - result.lower <= 1e-7 * true


@pytest.mark.parametrize("d, side", [(2, 301), (3, 51)])
def test_dense_grids_never_beat_the_lower_bound(d, side):
    rng = np.random.default_rng(d)
    grid = grid_of(np.linspace(0, 1, side), d)
    for trial in range(20):
        n, p = int(rng.integers(1, 5)), NORMS[trial % 5]
        table, x0 = random_table(rng, d, n, 4), rng.uniform(size=d)
        result = sound_radius(table, x0, p)
        other = evaluate(table, grid).argmax(1) != result.label
        nearest = np.linalg.norm(grid[other] - x0, ord=p, axis=1).min(initial=np.inf)
        assert result.lower <= nearest
        if np.isfinite(nearest):
            assert nearest <= result.upper + 2 * d / side
        if np.isfinite(result.upper) and result.status != "tie":
            logits = evaluate(table, result.point)
            assert np.all((result.point >= 0) & (result.point <= 1))
            assert abs(np.linalg.norm(result.point - x0, ord=p) - result.upper) < 1e-12
            assert logits[result.label] <= np.delete(logits, result.label).max() + 1e-11 * np.abs(table).max()


def exact_value(table, x):
    "The Bernstein polynomial in rational arithmetic."
    net = np.vectorize(Fraction)(table).astype(object)
    for t in reversed([Fraction(float(v)) for v in x]):
        n = net.shape[-1] - 1
        net = net @ np.array([math.comb(n, k) * t ** k * (1 - t) ** (n - k) for k in range(n + 1)], dtype=object)
    return net


def test_rational_points_inside_the_ball_keep_the_class():
    rng = np.random.default_rng(7)
    for trial in range(15):
        d, n = int(rng.integers(2, 5)), int(rng.integers(1, 3))
        table, x0 = rng.integers(-9, 10, size=(3, *(n + 1,) * d)).astype(float), rng.uniform(size=d)
        result = sound_radius(table, x0, 2, rtol=1e-6)
        if result.status != "tight":
            continue
        toward = x0 + (result.point - x0) * 0.999
        steps = [v / np.linalg.norm(v) * result.lower * 0.999 for v in rng.normal(size=(4, d))]
        for point in (toward, *(np.clip(x0 + step, 0, 1) for step in steps)):
            values = exact_value(table, point)
            assert all(values[result.label] > v for j, v in enumerate(values) if j != result.label)


# ---------------------------------------------------------------------------------------------------------------- invariances

def elevated(table, n):
    "The same polynomials, as of one degree more along the first axis."
    rows = [
        ((n + 1 - k) * np.take(table, min(k, n), 1) + k * np.take(table, max(k - 1, 0), 1)) / (n + 1)
        for k in range(n + 2)
    ]
    return np.stack(rows, 1)


def test_what_changes_nothing():
    rng = np.random.default_rng(11)
    for trial in range(12):
        d, n, p = int(rng.integers(1, 5)), int(rng.integers(1, 4)), NORMS[trial % 5]
        table, x0 = random_table(rng, d, n, 5), rng.uniform(size=d)
        result = sound_radius(table, x0, p)
        flipped = x0.copy()
        flipped[0] = 1 - flipped[0]
        dominated = np.concatenate([table, np.full((1, *table.shape[1:]), table.min() - 1)])
        same = [(np.flip(table, 1), flipped), (table + 3, x0), (2.7 * table, x0), (table[::-1], x0), (dominated, x0),
                (elevated(table, n), x0)]
        for other, point in same:
            again = sound_radius(other, point, p)
            if np.isinf(result.upper):
                assert np.isinf(again.upper) and again.status == "whole_cube"
            else:
                assert again.lower <= result.upper * (1 + 1e-9) and result.lower <= again.upper * (1 + 1e-9)
        for how in ("slopes", "hull", "affine"):
            assert quick_radius(table, x0, p, how) <= result.upper
        last = 0.0
        for boxes in (10, 40, 160, 640):
            short = sound_radius(table, x0, p, max_boxes=boxes)
            assert last <= short.lower <= result.upper and short.boxes <= max(boxes, 4)
            last = short.lower


def test_norms_are_ordered():
    table = random_table(np.random.default_rng(5), 3, 2, 4)
    linf, l2, l1 = (sound_radius(table, np.full(3, 0.4), p) for p in (np.inf, 2, 1))
    assert linf.lower <= l2.upper and l2.lower <= l1.upper


def test_degree_one_hull_is_exact_in_linf():
    rng = np.random.default_rng(13)
    for trial in range(10):
        d = int(rng.integers(2, 6))
        table, x0 = random_table(rng, d, 1, 4), rng.uniform(0.2, 0.8, size=d)
        result, hull = sound_radius(table, x0, "linf", rtol=1e-8), quick_radius(table, x0, "linf", "hull")
        if result.status == "tight":
            assert abs(hull - result.upper) <= 1e-7 * result.upper + 1e-9


def test_a_common_offset_of_the_logits_costs_no_digits():
    rng = np.random.default_rng(1)
    table = np.round(rng.normal(size=(2, 2, 2)) * 2**20) / 2**20 # sums with the offset are exact
    x0 = rng.random(2)
    upper = sound_radius(table, x0, "l2").upper
    for offset in (2.0**20, 2.0**30):
        for how in ("slopes", "affine"):
            assert quick_radius(table + offset, x0, "l2", how) <= upper * (1 + 1e-9)


@pytest.mark.parametrize("p", [1.001, 1.01, 30, 240, 1000])
def test_general_norms_neither_overflow_nor_vanish(p):
    table = np.zeros((2, 2, 2))
    table[0] = [[-0.1, 0.1], [0.1, 0.3]]
    quick = quick_radius(table, [0.6, 0.6], p, "slopes")
    assert 0 < quick < 1 and quick_radius(1e-4 * table, [0.6, 0.6], p, "slopes") == pytest.approx(quick, rel=1e-9)
    near, far = sound_radius(table, [0.2515, 0.2515], p), sound_radius(table, [20.0, 20.0], p, space="sigmoid")
    assert 0 < near.lower <= 0.0031 and 21 < far.lower < 45 # between the distances in l_inf and in l1
    assert near.status == far.status == "tight"
    assert quick <= sound_radius(table, [0.6, 0.6], p).upper


def test_special_cases():
    assert sound_radius([[0.0, 1.0]], [0.3])[:3] == (np.inf, np.inf, "whole_cube")
    assert sound_radius([[1.0, 1.0], [1.0, 1.0]], [0.3])[:3] == (0.0, 0.0, "tie")
    constant = np.zeros((3, 2, 2)) + np.array([2, 1, 0])[:, None, None]
    assert sound_radius(constant, [0.1, 0.9])[:3] == (np.inf, np.inf, "whole_cube")
    touching = np.array([[0.09, -0.21, 0.49], [0, 0, 0]]) # (x - 0.3)^2
    double = sound_radius(touching, [0.5])
    assert double.lower <= 0.2 and abs(double.upper - 0.2) < 1e-6 and double.upper - double.lower < 1e-3
    assert sound_radius(touching + [[1e-9], [0]], [0.5])[:3] == (np.inf, np.inf, "whole_cube")
    third = np.array([[1.0, 1.0], [0.9, 0.9], [0.0, 2.0]]) # the runner-up never wins, another class does
    result = sound_radius(third, [0.1])
    assert result.rival == 2 and abs(result.upper - 0.4) < 1e-9
    edge = sound_radius(np.array([[1.0, -1.0], [0.0, 0.0]]), [0.0])
    assert edge.lower <= 0.5 <= edge.upper * (1 + 1e-12)


# ------------------------------------------------------------------------------------------------------- before the sigmoid

def sigmoid(u):
    small = np.exp(-np.abs(u))
    return np.where(u >= 0, 1 / (1 + small), small / (1 + small))


def test_sigmoid_coordinates_against_a_grid():
    rng = np.random.default_rng(19)
    for trial in range(12):
        d, p = 1 + trial % 2, NORMS[trial % 5]
        table, u0 = random_table(rng, d, 3, 4), 2 * rng.normal(size=d)
        result = sound_radius(table, u0, p, space="sigmoid")
        grid = grid_of(np.linspace(-12, 12, (20001, 401)[d - 1]), d)
        other = evaluate(table, 1 / (1 + np.exp(-grid))).argmax(1) != result.label
        assert result.lower <= np.linalg.norm(grid[other] - u0, ord=p, axis=1).min(initial=np.inf)
        flat = sound_radius(table, 1 / (1 + np.exp(-u0)), p)
        if np.isfinite(flat.lower):
            assert result.upper >= 4 * flat.lower * (1 - 1e-9)


def test_sigmoid_space_far_from_the_cube():
    "Pre-activations around -30 and 30: no point of another class on a fine grid is nearer than the proved radius."
    rng = np.random.default_rng(5)
    grid = grid_of(np.arange(-45, 45.01, 0.25), 2)
    weights = np.stack([sigmoid(-grid), sigmoid(grid)], -1) # [M, axis, 2]: 1 - x and x without cancellation
    tested = 0
    for _ in range(60):
        table = np.zeros((2, 2, 2))
        table[0] = rng.normal(size=(2, 2)) * rng.choice([1, 10], size=(2, 2))
        u0 = rng.choice([-1, 1], 2) * rng.uniform(28, 36, 2)
        found = sound_radius(table, u0, "l2", rtol=1e-2, space="sigmoid", keep=True)
        value = np.einsum("ij,mi,mj->m", table[0], weights[:, 0], weights[:, 1])
        first, second = (np.array([sigmoid(-u), sigmoid(u)]) for u in u0)
        other = np.sign(value) != np.sign(np.einsum("ij,i,j->", table[0], first, second))
        nearest = np.linalg.norm(grid[other] - u0, axis=1).min() if other.any() else np.inf
        assert found.lower <= nearest and (found.lower > 0 or found.status == "tie")
        assert check(table, u0, found)
        tested += np.isfinite(nearest)
    assert tested > 20


@pytest.mark.parametrize("u0", [[-500.0], [800.0], [-36.9], [39.0]])
def test_the_distance_of_one_saturated_feature_is_known(u0):
    crossing = np.array([[1.0, 0.0], [0.3, 0.3]]) # 1 - x and .3: classes meet at x = .7
    found = sound_radius(crossing, u0, "l2", rtol=1e-6, space="sigmoid")
    true = abs(u0[0] - np.log(0.7 / 0.3))
    assert found.status == "tight" and true * (1 - 1e-6) <= found.lower <= true <= found.upper * (1 + 1e-12)


@pytest.mark.parametrize("norm, true", [("l1", 300.0), ("l2", 300.0), ("linf", 300 + np.log(0.25 / 0.75))])
def test_saturated_features_that_stay_have_not_moved(norm, true):
    "x_1 + x_2 against 1/2, far from both: the nearer feature moves alone, or both move alike."
    table = np.array([[[0.5, 0.5], [0.5, 0.5]], [[0.0, 1.0], [1.0, 2.0]]])
    far = -300.0 if norm == "linf" else -400.0
    found = sound_radius(table, [-300.0, far], norm, rtol=1e-3, space="sigmoid", keep=True)
    assert found.status == "tight" and found.boxes < 2000 and check(table, [-300.0, far], found)
    assert true * (1 - 1e-3) <= found.lower <= true * (1 + 1e-9) and found.upper >= true * (1 - 1e-9)


def test_saturated_features_of_a_random_head_need_few_boxes():
    rng = np.random.default_rng(3)
    for _ in range(6):
        table, u0 = rng.normal(size=(4, 4, 4, 4)), rng.choice([-1, 1], 3) * rng.uniform(100, 1000, 3)
        found = sound_radius(table, u0, "l2", rtol=1e-2, space="sigmoid", keep=True)
        assert found.status in ("tight", "whole_cube") and found.boxes < 20_000 and check(table, u0, found)


def test_a_search_that_needs_too_much_memory_is_stopped_and_its_bound_holds(monkeypatch):
    "A sphere around the point: every box near it stays open."
    def bowl(x):
        margin = 0.04 - ((x - 0.5) ** 2).sum(-1) + 3 * 0.25 / 3 # so that the polynomial of degree 3 is 0 at its radius
        return np.stack([margin, -margin], -1)

    table = coefficients(bowl, d=3, n=3)
    whole = sound_radius(table, [0.5] * 3, "l2", rtol=1e-3, max_boxes=20_000)
    monkeypatch.setattr(boxes, "_MOST_WAITING", 500 * table[0].nbytes)
    found = sound_radius(table, [0.5] * 3, "l2", rtol=1e-3, max_boxes=20_000, keep=True)
    assert found.status == "budget" and found.boxes < whole.boxes
    assert 0.2 < found.lower < whole.lower <= whole.upper * (1 + 1e-12) and check(table, [0.5] * 3, found)


def test_speeds_that_differ_by_three_hundred_powers_of_ten_give_numbers():
    "One coordinate has no speed, one needs a step beyond all floats."
    slope, half, ones = np.array([[1e-310, 0.0, 1.0]] * 2), np.full((2, 3), 0.5), np.ones((2, 3))
    distance, y = nearest(slope, np.array([-0.3, 0.01]), half, ones, 2)
    np.testing.assert_allclose(distance, [0.2, np.inf], rtol=1e-15)
    np.testing.assert_allclose(y[0], [0.5, 0.5, 0.3], rtol=1e-15)


def test_a_distance_that_is_no_number_drops_no_box(monkeypatch):
    "Without a boundary point in sight, boxes that were dropped would prove the whole cube."
    monkeypatch.setattr(Sigmoid, "bound", lambda self, slope, *others: np.full(len(slope), np.nan))
    monkeypatch.setattr(boxes, "_offer", lambda *given: None)
    table = np.random.default_rng(0).normal(size=(3, 3, 3))
    found = sound_radius(table, [0.5, -1.0], "l2", rtol=1e-2, max_boxes=500, space="sigmoid")
    assert found.status == "budget" and found.lower == 0.0


def test_what_waits_keeps_its_order_and_its_rows():
    "Against lists that are joined and cut."
    rng, waiting, plain, number = np.random.default_rng(0), Waiting(), [], 0
    for _ in range(60):
        count = int(rng.integers(0, 9))
        ids = np.arange(number, number + count)
        number += count
        columns = dict(net=ids[:, None] + np.zeros(3), low=ids[:, None] * 2.0, width=ids[:, None] * 3.0, slope=ids[:, None] * 4.0)
        waiting.add(Items(**columns, rival=ids, depth=ids, key=ids * 1.0, node=ids))
        plain += ids.tolist()
        order = rng.permutation(len(plain))
        out, stay = order[:len(plain) // 3], order[len(plain) // 3:]
        if len(plain):
            gone = waiting.leave(out, stay)
            assert gone.node.tolist() == [plain[i] for i in out] and np.array_equal(gone.net[:, 2], gone.node)
            plain = [plain[i] for i in stay]
        assert waiting.keys().tolist() == plain and len(waiting) == len(plain)
    assert len(waiting.room) < 2 * number


# ----------------------------------------------------------------------------------------------------------------- witnesses

def edited(found, lower=None, **witness):
    "A result with another lower bound, or other columns in its tree."
    kept = {**vars(found), "witness": {**found.witness, **witness}}
    return SoundRadius(found.lower if lower is None else lower, *found[1:], **kept)


def test_witness_proves_and_tampering_is_found():
    rng = np.random.default_rng(17)
    for trial in range(12):
        d, space = 1 + trial % 4, ("features", "sigmoid")[trial % 2]
        table, x0 = random_table(rng, d, 2, 4), rng.normal(size=d) if trial % 2 else rng.uniform(size=d)
        kept = sound_radius(table, x0, NORMS[trial % 5], keep=True, space=space)
        assert check(table, x0, kept)
        if kept.status == "tight":
            assert not check(table, x0, edited(kept, 1.01 * kept.lower))
            other = table.copy()
            other[kept.rival] += 0.3 * np.ptp(table)
            assert not check(other, x0, kept)
    with pytest.raises(ValueError, match="witness"):
        check(table, x0, SoundRadius(0.1, 0.1, "tight", None, **{**vars(kept), "witness": None}))


def test_check_of_kept_trees_is_neither_too_strict_nor_too_lax():
    for seed in range(300, 380):
        rng = np.random.default_rng(seed)
        table, x0 = rng.normal(size=(3, 3, 3)), rng.random(2)
        found = sound_radius(table, x0, "l2", rtol=1e-2, keep=True)
        assert check(table, x0, found), seed
    assert not check(table, x0, edited(found, 0.9)) and not check(table, x0, edited(found, np.nan))
    for low, high in ((np.nan, 1.0), (-1e200, 1e200), (0.0, 0.0)):
        assert not check(table, x0, edited(found, 0.9, low=np.full(2, low), high=np.full(2, high)))


@pytest.mark.parametrize("column", ["child", "axis", "gap"])
def test_a_tree_that_leads_nowhere_is_no_proof_and_ends(column):
    rng = np.random.default_rng(0)
    table, x0 = rng.normal(size=(3, 5, 5)), rng.random(2)
    found = sound_radius(table, x0, "l2", rtol=1e-6, keep=True)
    kept = found.witness
    odd = dict(child=kept["node"], axis=kept["axis"] + 2, gap=-kept["gap"])
    assert len(kept["node"]) and not check(table, x0, edited(found, **{column: odd[column]}))


@pytest.mark.parametrize("call, words", [
    (lambda: sound_radius(np.ones((2, 2)), [0.5], "l0.5"), "norm"),
    (lambda: sound_radius(np.ones((2, 2)), [0.5], max_boxes=0), "max_boxes"),
    (lambda: sound_radius(np.ones((2, 2)), [0.5], space="logit"), "space"),
    (lambda: quick_radius(np.ones((2, 2)), [0.5], how="guess"), "how"),
])
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words): call()
