"""Bernstein smoothing: evaluation against exact arithmetic, radii against independent truths, Lipschitz bounds against dense matrices, bad input."""
from __future__ import annotations

import math
import warnings
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robust_smooth.lab import bernstein_models
from robust_smooth.methods import bernstein
from robust_smooth.training import lipschitz
from robust_smooth.training.data import load
from robust_smooth.training.lipschitz import Concat, lipschitz_bound, Skip
from robust_smooth.training.train import Standard

NORMS = (1, 1.5, 2, 3, np.inf)

def random_head(rng, d, K=10, hidden=32):
    sizes = (d, hidden, hidden, K)
    layers = [(rng.normal(size=(a, b)) * (3.5 if i == 0 else 2.1) / np.sqrt(a), 0.7 * rng.normal(size=b)) for i, (a, b) in enumerate(zip(sizes, sizes[1:]))]
    def head(x):
        x = np.maximum((x - 0.5) @ layers[0][0] + layers[0][1], 0)
        return np.maximum(x @ layers[1][0] + layers[1][1], 0) @ layers[2][0] + layers[2][1]
    return head

def random_table(rng, d, n, K): return rng.normal(size=(K, *(n + 1,) * d)) + rng.normal(size=(K, *(1,) * d))

def exact_value(table, x):
    "The Bernstein polynomial in rational arithmetic."
    net = np.vectorize(Fraction)(table).astype(object)
    for t in reversed([Fraction(float(v)) for v in x]):
        n = net.shape[-1] - 1
        weights = np.array([math.comb(n, k) * t ** k * (1 - t) ** (n - k) for k in range(n + 1)], dtype=object)
        net = net @ weights
    return net

# ------------------------------------------------------------------------------------------------------------------ evaluation

@pytest.mark.parametrize("d, n", [(1, 1), (1, 7), (1, 60), (2, 13), (3, 5), (5, 2), (6, 1)])
def test_evaluation_against_rationals(d, n):
    rng = np.random.default_rng(d * 100 + n)
    table = rng.normal(size=(2, *(n + 1,) * d)) * 10.0 ** rng.integers(-3, 4)
    for x in [rng.uniform(size=d), rng.uniform(size=d) * 1e-9, 1 - rng.uniform(size=d) * 1e-9, np.zeros(d), np.ones(d)]:
        exact = np.array([float(v) for v in exact_value(table, x)])
        assert np.abs(bernstein.evaluate(table, x) - exact).max() <= 1e-13 * np.abs(table).max()

def test_degree_2000():
    # B_n of cos(20 x) is the real part of (1 - x + x exp(20 i / n))^n
    table = bernstein.coefficients(lambda x: np.cos(20 * x), 1, 2000)
    for x in (0.0, 1e-12, 0.001, 0.37, 0.5, 0.999, 1.0):
        with mpmath.workdps(40): exact = float(mpmath.re((1 - mpmath.mpf(x) + mpmath.mpf(x) * mpmath.expj(mpmath.mpf(20) / 2000)) ** 2000))
        assert abs(bernstein.evaluate(table, [x])[0] - exact) < 1e-11

@pytest.mark.parametrize("n, k, t", [(7, 3, 0.3), (60, 20, 0.3), (60, 60, 1e-3), (400, 0, 0.01), (2000, 1000, 0.5), (2000, 100, 0.0625), (2000, 1990, 0.999)])
def test_basis_against_mpmath(n, k, t):
    with mpmath.workdps(50): exact = mpmath.binomial(n, k) * mpmath.mpf(t) ** k * (1 - mpmath.mpf(t)) ** (n - k)
    got = bernstein.basis(n, t)
    assert abs(got[k] / float(exact) - 1) < 1e-13 * max(1, n / 50) and abs(got.sum() - 1) < 1e-13 * max(1, n / 50)

def test_affine_corners_axes_batches():
    rng = np.random.default_rng(0)
    w, degrees = rng.normal(size=4), (1, 3, 2, 4)
    table = bernstein.coefficients(lambda x: np.stack([x @ w + 1, x[:, 2]], 1), 4, degrees)
    assert table.shape == (2, 2, 4, 3, 5)
    x = rng.uniform(size=(3, 7, 4))
    got = bernstein.evaluate(table, x)
    assert got.shape == (3, 7, 2) and np.abs(got[..., 0] - x @ w - 1).max() < 1e-14 and np.abs(got[..., 1] - x[..., 2]).max() < 1e-14
    for corner in np.ndindex(2, 2, 2, 2):
        assert np.array_equal(bernstein.evaluate(table, np.array(corner)), table[(slice(None), *(-c for c in corner))])
    assert np.abs(np.stack([[bernstein.evaluate(table, p) for p in row] for row in x]) - got).max() < 1e-13

def test_torch_evaluation_is_differentiable():
    rng = np.random.default_rng(1)
    table, x = torch.as_tensor(random_table(rng, 3, 4, 3)).requires_grad_(), torch.as_tensor(rng.uniform(size=(5, 3))).requires_grad_()
    assert torch.autograd.gradcheck(bernstein.evaluate, (table, torch.as_tensor(0.1 + 0.8 * rng.uniform(size=(2, 3))).requires_grad_()))
    out = bernstein.evaluate(table, x)
    slope, = torch.autograd.grad(out[:, 1].sum(), x)
    assert np.abs(slope.numpy() - bernstein.gradient(table.detach().numpy(), x.detach().numpy())[:, 1]).max() < 1e-12
    assert bernstein.evaluate(table.detach().float(), x.detach().float()).dtype == torch.float32

def test_restriction_and_hull():
    rng = np.random.default_rng(2)
    for d, n in ((1, 100), (2, 7), (4, 2)):
        table = random_table(rng, d, n, 3)
        low, high = rng.uniform(0, 0.4, size=d), rng.uniform(0.5, 1, size=d)
        inner, t = bernstein.restrict(table, low, high), rng.uniform(size=(50, d))
        values = bernstein.evaluate(table, low + t * (high - low))
        assert np.abs(bernstein.evaluate(inner, t) - values).max() < 1e-12
        assert np.all(values <= inner.reshape(3, -1).max(1) + 1e-12) and np.all(inner.reshape(3, -1).max(1) <= table.reshape(3, -1).max(1) + 1e-12)

# ------------------------------------------------------------------------------------------------------------------ exact distances

def one_dimensional_roots(difference):
    "Roots in [0, 1] of a Bernstein form in one variable, from exact power coefficients."
    n, power = len(difference) - 1, [Fraction(0)] * len(difference)
    for k, v in enumerate(difference):
        for i in range(n - k + 1): power[k + i] += Fraction(v) * math.comb(n, k) * math.comb(n - k, i) * (-1) ** i
    power = [mpmath.mpf(v.numerator) / v.denominator for v in reversed(power)]
    while power and power[0] == 0: power.pop(0)
    if len(power) < 2: return []
    roots = mpmath.polyroots(power, maxsteps=300, extraprec=300)
    return [mpmath.re(z) for z in roots if abs(mpmath.im(z)) < mpmath.mpf(10) ** -20 and -1e-30 <= mpmath.re(z) <= 1 + 1e-30]

def test_one_dimension_against_exact_roots():
    rng = np.random.default_rng(0)
    with mpmath.workdps(50):
        for trial in range(100):
            n, K = int(rng.integers(1, 8)), int(rng.integers(2, 5))
            table, x0 = rng.integers(-6, 7, size=(K, n + 1)).astype(float), float(rng.uniform())
            result = bernstein.sound_radius(table, [x0], NORMS[trial % 5], rtol=10.0 ** -(2 + trial % 8))
            if result.status == "tie": continue
            gaps = [abs(z - mpmath.mpf(x0)) for j in range(K) if j != result.label for z in one_dimensional_roots(table[result.label] - table[j])]
            true = min(gaps, default=mpmath.inf)
            assert result.lower <= true, (table, x0, result)
            assert true <= result.upper * (1 + 1e-9) + 1e-9 or (math.isinf(result.upper) and math.isinf(true)), (table, x0, result, true)

@pytest.mark.parametrize("p", NORMS)
def test_affine_margins_have_closed_forms(p):
    rng, dual = np.random.default_rng(3), {1: np.inf, 1.5: 3, 2: 2, 3: 1.5, np.inf: 1}[p]
    for d in (1, 2, 3, 5):
        for n in (1, 2):
            w, x0 = rng.normal(size=d), np.full(d, 0.5) + rng.uniform(-0.05, 0.05, size=d)
            shift = x0 @ w - 0.1 * np.linalg.norm(w, dual) * rng.uniform(0.2, 1)
            table = bernstein.coefficients(lambda x: np.stack([x @ w - shift, 0 * x[:, 0]], 1), d, n)
            true, result = (x0 @ w - shift) / np.linalg.norm(w, dual), bernstein.sound_radius(table, x0, p, rtol=1e-8)
            assert result.lower <= true * (1 + 1e-15) and true <= result.upper * (1 + 1e-12) and result.upper - result.lower <= 1e-7 * true, (d, n, result, true)

@pytest.mark.parametrize("d, side", [(2, 301), (3, 51)])
def test_dense_grids_never_beat_the_lower_bound(d, side):
    rng = np.random.default_rng(d)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, side)] * d, indexing="ij"), -1).reshape(-1, d)
    for trial in range(20):
        n, p = int(rng.integers(1, 5)), NORMS[trial % 5]
        table, x0 = random_table(rng, d, n, 4), rng.uniform(size=d)
        result = bernstein.sound_radius(table, x0, p)
        other = bernstein.evaluate(table, grid).argmax(1) != result.label
        nearest = np.linalg.norm(grid[other] - x0, ord=p, axis=1).min(initial=np.inf)
        assert result.lower <= nearest
        if np.isfinite(nearest): assert nearest <= result.upper + 2 * d / side
        if np.isfinite(result.upper) and result.status != "tie":
            logits = bernstein.evaluate(table, result.point)
            assert np.all((result.point >= 0) & (result.point <= 1)) and abs(np.linalg.norm(result.point - x0, ord=p) - result.upper) < 1e-12
            assert logits[result.label] <= np.delete(logits, result.label).max() + 1e-11 * np.abs(table).max()

def test_rational_points_inside_the_ball_keep_the_class():
    rng = np.random.default_rng(7)
    for trial in range(15):
        d, n = int(rng.integers(2, 5)), int(rng.integers(1, 3))
        table, x0 = rng.integers(-9, 10, size=(3, *(n + 1,) * d)).astype(float), rng.uniform(size=d)
        result = bernstein.sound_radius(table, x0, 2, rtol=1e-6)
        if result.status != "tight": continue
        toward = (result.point - x0) * 0.999
        for point in [x0 + toward, *(np.clip(x0 + v / np.linalg.norm(v) * result.lower * 0.999, 0, 1) for v in rng.normal(size=(4, d)))]:
            values = exact_value(table, point)
            assert all(values[result.label] > v for j, v in enumerate(values) if j != result.label)

def test_invariances_and_order():
    rng = np.random.default_rng(11)
    for trial in range(12):
        d, n, p = int(rng.integers(1, 5)), int(rng.integers(1, 4)), NORMS[trial % 5]
        table, x0 = random_table(rng, d, n, 5), rng.uniform(size=d)
        result = bernstein.sound_radius(table, x0, p)
        flipped = x0.copy()
        flipped[0] = 1 - flipped[0]
        dominated = np.concatenate([table, np.full((1, *table.shape[1:]), table.min() - 1)])
        elevated = np.stack([((n + 1 - k) * np.take(table, min(k, n), 1) + k * np.take(table, max(k - 1, 0), 1)) / (n + 1) for k in range(n + 2)], 1)
        for other, point in ((np.flip(table, 1), flipped), (table + 3, x0), (2.7 * table, x0), (table[::-1], x0), (dominated, x0), (elevated, x0)):
            again = bernstein.sound_radius(other, point, p)
            if np.isinf(result.upper): assert np.isinf(again.upper) and again.status == "whole_cube"
            else: assert again.lower <= result.upper * (1 + 1e-9) and result.lower <= again.upper * (1 + 1e-9)
        for how in ("slopes", "hull", "affine"): assert bernstein.quick_radius(table, x0, p, how) <= result.upper
        last = 0.0
        for boxes in (10, 40, 160, 640):
            short = bernstein.sound_radius(table, x0, p, max_boxes=boxes)
            assert last <= short.lower <= result.upper and short.boxes <= max(boxes, 4)
            last = short.lower
    three = [bernstein.sound_radius(random_table(np.random.default_rng(5), 3, 2, 4), np.full(3, 0.4), p) for p in (np.inf, 2, 1)]
    assert three[0].lower <= three[1].upper and three[1].lower <= three[2].upper

def test_degree_one_hull_is_exact_in_linf():
    rng = np.random.default_rng(13)
    for trial in range(10):
        d = int(rng.integers(2, 6))
        table, x0 = random_table(rng, d, 1, 4), rng.uniform(0.2, 0.8, size=d)
        result, hull = bernstein.sound_radius(table, x0, "linf", rtol=1e-8), bernstein.quick_radius(table, x0, "linf", "hull")
        if result.status == "tight": assert abs(hull - result.upper) <= 1e-7 * result.upper + 1e-9

def test_special_cases():
    assert bernstein.sound_radius([[0.0, 1.0]], [0.3])[:3] == (np.inf, np.inf, "whole_cube")
    assert bernstein.sound_radius([[1.0, 1.0], [1.0, 1.0]], [0.3])[:3] == (0.0, 0.0, "tie")
    assert bernstein.sound_radius(np.zeros((3, 2, 2)) + np.array([2, 1, 0])[:, None, None], [0.1, 0.9])[:3] == (np.inf, np.inf, "whole_cube")
    double = bernstein.sound_radius([[0.09, -0.21, 0.49], [0, 0, 0]], [0.5])     # (x - 0.3)^2 touches
    assert double.lower <= 0.2 and abs(double.upper - 0.2) < 1e-6 and double.upper - double.lower < 1e-3
    missed = bernstein.sound_radius(np.array([[0.09, -0.21, 0.49], [0, 0, 0]]) + [[1e-9], [0]], [0.5])
    assert missed[:3] == (np.inf, np.inf, "whole_cube")
    third = np.array([[1.0, 1.0], [0.9, 0.9], [0.0, 2.0]])                        # the runner-up never wins, another class does
    result = bernstein.sound_radius(third, [0.1])
    assert result.rival == 2 and abs(result.upper - 0.4) < 1e-9
    edge = bernstein.sound_radius(np.array([[1.0, -1.0], [0.0, 0.0]]), [0.0])
    assert edge.lower <= 0.5 <= edge.upper * (1 + 1e-12)

def test_witness_proves_and_tampering_is_found():
    rng = np.random.default_rng(17)
    for trial in range(12):
        d, space = 1 + trial % 4, ("features", "sigmoid")[trial % 2]
        table, x0 = random_table(rng, d, 2, 4), rng.normal(size=d) if trial % 2 else rng.uniform(size=d)
        kept = bernstein.sound_radius(table, x0, NORMS[trial % 5], keep=True, space=space)
        assert bernstein.check(table, x0, kept)
        if kept.status == "tight":
            assert not bernstein.check(table, x0, bernstein.SoundRadius(1.01 * kept.lower, *kept[1:], **vars(kept)))
            other = table.copy()
            other[kept.rival] += 0.3 * np.ptp(table)
            assert not bernstein.check(other, x0, kept)
    with pytest.raises(ValueError, match="witness"):
        bernstein.check(table, x0, bernstein.SoundRadius(0.1, 0.1, "tight", None, **{**vars(kept), "witness": None}))

def test_sigmoid_coordinates_against_a_grid():
    rng = np.random.default_rng(19)
    for trial in range(12):
        d, p = 1 + trial % 2, NORMS[trial % 5]
        table, u0 = random_table(rng, d, 3, 4), 2 * rng.normal(size=d)
        result = bernstein.sound_radius(table, u0, p, space="sigmoid")
        grid = np.stack(np.meshgrid(*[np.linspace(-12, 12, (20001, 401)[d - 1])] * d, indexing="ij"), -1).reshape(-1, d)
        other = bernstein.evaluate(table, 1 / (1 + np.exp(-grid))).argmax(1) != result.label
        assert result.lower <= np.linalg.norm(grid[other] - u0, ord=p, axis=1).min(initial=np.inf)
        flat = bernstein.sound_radius(table, 1 / (1 + np.exp(-u0)), p)
        if np.isfinite(flat.lower): assert result.upper >= 4 * flat.lower * (1 - 1e-9)

# ------------------------------------------------------------------------------------------------------------------ the printed radius

def test_printed_radius_on_the_exact_witnesses():
    first, second = np.array([[-18 / 125, 52 / 125, 107 / 750, 9 / 250], [0] * 4]), np.array([[-9 / 25, 28 / 75, 161 / 25, -54 / 25], [0] * 4])
    for table, x0, printed, true in ((first, 0.5, 0.5, 0.4), (first, 0.8, 0.2, 0.7), (second, 0.54, 0.44, 0.36)):
        assert abs(bernstein.root_radius(table, [x0]) - printed) < 1e-5
        result = bernstein.sound_radius(table, [x0], rtol=1e-8)
        assert result.lower <= true * (1 + 1e-15) and abs(result.upper - true) < 1e-7
    root = bernstein.root_radius(first, [0.5])
    assert isinstance(root, float) and root.mode == "paper" and root.left_cube and len(bernstein.root_system(first, [0.5])(np.array([0.5]))) == 2

def test_printed_radius_is_mostly_too_large_and_the_floor_holds():
    over, floor = 0, []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        table, x0 = bernstein.coefficients(random_head(rng, 3), 3, 3), rng.uniform(size=3)
        root, sound = bernstein.root_radius(table, x0), bernstein.sound_radius(table, x0)
        over += bool(root > sound.upper * 1.001)
        span = (table.max(tuple(range(1, 4))).max() - table.min())
        with np.errstate(over="ignore"): floor.append(root.residual >= (3 - 2) / (2 * (1 + 9 * np.exp(span)) ** 2))
        assert sound.lower <= sound.upper
    assert over >= 25 and all(floor)

def test_constant_and_solvers():
    rng = np.random.default_rng(0)
    table, x0 = bernstein.coefficients(random_head(rng, 2), 2, 3), rng.uniform(size=2)
    for C in (1, 2, 100, np.inf): assert 0 <= bernstein.root_radius(table, x0, "l2", C=C) <= np.sqrt(2)
    for solver in ("lm", "dogbox", "trf"): assert bernstein.root_radius(table, x0, "linf", solver=solver) <= 1
    xi = lambda C: bernstein.root_system(table, x0, C)(x0)[0]
    assert abs(xi(2) - xi(np.inf) / 2) < 1e-12
    with pytest.raises(ValueError, match="C must"): bernstein.root_radius(table, x0, C=0.5)
    with pytest.raises(ValueError, match="solver"): bernstein.root_radius(table, x0, solver="newton")
    with pytest.raises(ValueError, match="d <= K"): bernstein.root_radius(np.ones((2, 2, 2, 2)), np.full(3, 0.5))

# ------------------------------------------------------------------------------------------------------------------ certificates, pipeline

def test_certify_batch_equals_single_and_labels_its_mode():
    rng = np.random.default_rng(23)
    table, points = random_table(rng, 3, 2, 4), rng.uniform(size=(5, 3))
    batch = bernstein.certify(table, points, "l2")
    assert batch.alpha == 0 and batch.method == "bernstein" and batch.mode == "sound" and batch.scope == "features" and batch.norm == "l2"
    assert np.array_equal(batch.label, bernstein.evaluate(table, points).argmax(1))
    assert np.allclose(batch.radius, [bernstein.sound_radius(table, x, 2).lower for x in points], rtol=1e-12)
    scaled = bernstein.certify(table, points, "l2", lipschitz=0.25)
    assert scaled.scope == "input" and np.all(scaled.radius <= 4 * batch.radius) and np.allclose(scaled.radius, 4 * batch.radius, rtol=1e-12)
    with pytest.warns(UserWarning, match="certifies nothing"): printed = bernstein.certify(table, points, "l2", mode="paper")
    assert printed.mode == "paper"
    assert bernstein.certify(table, points[0], "linf").radius.shape == (1,)

@pytest.fixture(scope="module")
def digits_model():
    "A pipeline trained on digits for a few seconds."
    train = load("digits", "train")
    torch.manual_seed(0)
    base = bernstein_models.FeatureClassifier(bernstein_models.dense_features(64, 5), bernstein_models.head(5, 10)).train()
    optimizer = torch.optim.Adam(base.parameters(), 3e-3)
    for _ in range(25):
        for part in torch.randperm(len(train.images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(base(train.images[part]), train.labels[part]).backward()
            optimizer.step()
    return base.eval()

def test_no_attack_succeeds_inside_the_sound_radius_on_500_digits(digits_model):
    test, smooth = load("digits", "test", subset=500), digits_model.smoothed(2)
    assert len(test) == 500
    sound = smooth.certify(test, "l2", progress=False)
    assert np.array_equal(sound.index, test.index) and sound.scope == "input"
    found, _ = bernstein_models.attack_inside(smooth, test.images, sound.radius, "l2", steps=20, restarts=2)
    assert not found.any()
    linf = smooth.certify(test.images[:60], "linf", progress=False)
    assert not bernstein_models.attack_inside(smooth, test.images[:60], linf.radius, "linf", steps=20)[0].any()
    beyond, _ = bernstein_models.attack_inside(smooth, test.images[:100], 3 * sound.radius[:100], "l2", steps=20)
    assert beyond.mean() > 0.3 # the attack is able to succeed

def test_attack_breaks_the_printed_radius(digits_model):
    test, smooth = load("digits", "test", subset=40), digits_model.smoothed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        printed = smooth.certify(test, "l2", mode="paper", progress=False)
    assert bernstein_models.attack_inside(smooth, test.images, printed.radius, "l2")[0].mean() >= 0.5

def test_table_follows_the_weights(digits_model):
    smooth = digits_model.smoothed(2)
    before = smooth.coefficients
    assert smooth.coefficients is before
    state = {k: v.clone() for k, v in smooth.head.state_dict().items()}
    with torch.no_grad(): smooth.head[-1].bias += 1
    assert np.allclose(smooth.coefficients, before + 1, atol=1e-5)
    smooth.head.load_state_dict(state)
    assert np.allclose(smooth.coefficients, before, atol=1e-6)

def test_training_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(tmp_path))
    data = load("digits", "train", subset=100)
    make = lambda: bernstein_models.network_for(data, 3)
    first = bernstein_models.fit_pipeline(make, data, Standard(), epochs=2)
    files = list((tmp_path / "classifiers").glob("*.safetensors"))
    again = bernstein_models.fit_pipeline(make, data, Standard(), epochs=2)
    assert len(files) == 1 and list((tmp_path / "classifiers").glob("*.safetensors")) == files
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))
    other = bernstein_models.fit_pipeline(make, data, Standard(), epochs=3)
    assert not torch.equal(other.head[0].weight, first.head[0].weight)

# ------------------------------------------------------------------------------------------------------------------ Lipschitz bounds

def dense_matrix(layer, shape):
    eye = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    with torch.no_grad(): return (layer.double()(eye) - layer(torch.zeros_like(eye))).flatten(1).T.numpy()

@pytest.mark.parametrize("seed", range(25))
def test_convolution_bounds_against_dense_matrices(seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    k, s, pad, n = int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.integers(0, 3)), int(rng.integers(4, 9))
    layer = nn.Conv2d(2 * int(rng.integers(1, 3)), 4, k, s, pad, groups=int(rng.integers(1, 3)))
    shape = (layer.in_channels, n, n)
    matrix = dense_matrix(layer, shape)
    for p in (1, 2, np.inf): assert np.linalg.norm(matrix, p) <= lipschitz.lipschitz_bound(layer, p, shape) * (1 + 1e-12)
    for p in (1.5, 4): # induced norms in between, from below
        v = rng.normal(size=(matrix.shape[1], 50))
        assert (np.linalg.norm(matrix @ v, p, axis=0) / np.linalg.norm(v, p, axis=0)).max() <= lipschitz.lipschitz_bound(layer, p, shape)

def test_the_published_rule_is_not_a_bound():
    ones = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(ones.weight)
    true = np.linalg.norm(dense_matrix(ones, (1, 8, 8)), 2)
    assert abs(true - 8.2909) < 1e-4 and abs(np.linalg.norm(np.ones(9)) - 3) < 1e-12 and lipschitz.lipschitz_bound(ones, "l2", (1, 8, 8)) >= true
    edge = nn.Conv2d(1, 1, (1, 3), padding=(0, 1), bias=False)
    with torch.no_grad(): edge.weight.copy_(torch.tensor([[[[1.0, 0.0, -1.0]]]]))
    assert lipschitz.lipschitz_bound(edge, 2, (1, 1, 2)) >= np.linalg.norm(dense_matrix(edge, (1, 1, 2)), 2) >= 1 - 1e-12

def test_network_bounds():
    torch.manual_seed(0)
    folded = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).eval()
    folded[1].running_var.fill_(4.0)
    separate = lipschitz.lipschitz_bound(nn.Sequential(folded[0]), 2, (1, 4, 4)) * lipschitz.lipschitz_bound(nn.Sequential(folded[1]), 2, (4, 4, 4)) * lipschitz.lipschitz_bound(folded[4], 2, (64,))
    assert lipschitz.lipschitz_bound(folded, 2, (1, 4, 4)) <= separate * (1 + 1e-6)
    chain = nn.Sequential(*[lipschitz.Skip(nn.Identity()) for _ in range(6)])
    assert abs(lipschitz.lipschitz_bound(chain, 2, (5,)) - 64) < 1e-5
    with pytest.raises(ValueError, match="LayerNorm"): lipschitz.lipschitz_bound(nn.LayerNorm(4), 2, (4,))
    with pytest.raises(ValueError, match="padding_mode"): lipschitz.lipschitz_bound(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), 2, (1, 5, 5))
    assert bernstein.lipschitz_bound is lipschitz.lipschitz_bound
    net = bernstein_models.conv_features(1, 8, 3, 8, "exact").eval()
    assert lipschitz.lipschitz_bound(net, "l2", (1, 8, 8)) <= 0.25 * (1 + 1e-5)

# ------------------------------------------------------------------------------------------------------------------ regression, bad input

def test_regression():
    model = bernstein.smooth_regression(lambda x: 2 * x[:, 0] - x[:, 1], (3, 5), [(0, 2), (-1, 1)])
    X = np.random.default_rng(0).uniform([0, -1], [2, 1], size=(20, 2))
    assert np.abs(model.predict(X) - 2 * X[:, 0] + X[:, 1]).max() < 1e-13
    spike = bernstein.smooth_regression(lambda x: (np.abs(x[:, 0] - 0.3) < 0.01).astype(float), 10, (0, 1)).predict([0.3])
    hidden = bernstein.smooth_regression(lambda x: (np.abs(x[:, 0] - 0.25) < 0.01).astype(float), 10, (0, 1)).predict([0.25])
    assert abs(spike[0] - 0.2668279) < 1e-6 and hidden[0] == 0
    for n in (1, 4, 9): # noise of variance 1 on the lattice, variance of the smoothed value averaged over [0, 1]
        nodes, weights = np.polynomial.legendre.leggauss(n + 1)
        average = (bernstein.basis(n, (nodes + 1) / 2) ** 2).sum(1) @ weights / 2
        assert abs(average - 4 ** n / ((2 * n + 1) * math.comb(2 * n, n))) < 1e-13
    with pytest.raises(ValueError, match="extrapolation"): model.predict([[3.0, 0.0]])
    with pytest.raises(ValueError, match="interval"): bernstein.smooth_regression(lambda x: x[:, 0], 3, (1, 0))

@pytest.mark.parametrize("call, error, words", [
    (lambda: bernstein.coefficients(lambda x: x, 0, 1), ValueError, "d must"),
    (lambda: bernstein.coefficients(lambda x: x, 2, 1.5), ValueError, "n must"),
    (lambda: bernstein.coefficients(lambda x: x, 2, (1, 0)), ValueError, "n must"),
    (lambda: bernstein.coefficients(lambda x: x, 2, (1, 2, 3)), ValueError, "n must"),
    (lambda: bernstein.coefficients(lambda x: x[:1], 2, 1), ValueError, "returned shape"),
    (lambda: bernstein.coefficients(lambda x: x, 30, 1), MemoryError, "1073741824"),
    (lambda: bernstein.evaluate(np.ones((2, 2)), [1.0001]), ValueError, r"\[0, 1\]"),
    (lambda: bernstein.evaluate(np.ones((2, 2)), [np.nan]), ValueError, r"\[0, 1\]"),
    (lambda: bernstein.evaluate(np.ones((2, 2)), [0.1, 0.2]), ValueError, "1 features"),
    (lambda: bernstein.evaluate(np.full((2, 2), np.nan), [0.1]), ValueError, "finite"),
    (lambda: bernstein.evaluate(np.ones((2, 1)), [0.1]), ValueError, "shape"),
    (lambda: bernstein.sound_radius(np.ones((2, 2)), [0.5], "l0.5"), ValueError, "norm"),
    (lambda: bernstein.sound_radius(np.ones((2, 2)), [0.5], max_boxes=0), ValueError, "max_boxes"),
    (lambda: bernstein.sound_radius(np.ones((2, 2)), [0.5], space="logit"), ValueError, "space"),
    (lambda: bernstein.certify(np.ones((2, 2)), [0.5], "l2", mode="verified"), ValueError, "mode"),
    (lambda: bernstein.certify(np.ones((2, 2)), [0.5], "l2", lipschitz=-1), ValueError, "lipschitz"),
    (lambda: bernstein.quick_radius(np.ones((2, 2)), [0.5], how="guess"), ValueError, "how"),
])
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words): call()


def test_lipschitz_bounds_see_what_a_network_computes():
    "Modules used twice, subclasses and hooks that change the forward pass, in-place layers beside a shortcut, batch normalisation along another axis."
    triple = nn.Linear(2, 2)
    with torch.no_grad(): triple.weight.copy_(3 * torch.eye(2))
    assert lipschitz_bound(nn.Sequential(triple, nn.Identity(), triple), "l2", (2,)) == pytest.approx(9)

    class Residual(nn.Sequential):
        def forward(self, x): return x + super().forward(x)

    class Twice(nn.Linear):
        def forward(self, x): return 2 * super().forward(x)

    hooked = nn.Linear(2, 2)
    hooked.register_forward_hook(lambda module, inputs, out: 5 * out)
    for odd in (Residual(nn.Linear(2, 2)), nn.Sequential(Twice(2, 2)), nn.Sequential(hooked), nn.Sequential(nn.Softplus(threshold=0.0))):
        with pytest.raises(ValueError, match="overrides|threshold"): lipschitz_bound(odd, "l2", (2,))
    assert lipschitz_bound(nn.utils.parametrizations.weight_norm(triple), "l2", (2,)) == pytest.approx(3)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(500, 4, generator=generator) for _ in range(2))
    for layer in (nn.SiLU(inplace=True), nn.LeakyReLU(3.0, inplace=True), nn.ELU(3.0, inplace=True), nn.ELU(-5.0)):
        for net in (Skip(nn.Sequential(layer, nn.Linear(4, 4))), Concat(nn.Sequential(layer))):
            bound = lipschitz_bound(net, "l2", (4,))
            assert float((torch.linalg.vector_norm(net(x.clone()) - net(y.clone()), dim=1) / torch.linalg.vector_norm(x - y, dim=1)).max()) <= bound * (1 + 1e-6) # float32
    net = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)).eval() # [B, 4, 8]: normalised along the first axis, not along the outputs
    with torch.no_grad(): net[1].running_var.copy_(torch.tensor([1e-4, 1.0, 1.0, 1.0]))
    x, y = (torch.randn(500, 4, 8, generator=generator) for _ in range(2))
    assert float(((net(x) - net(y)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1)).max()) <= lipschitz_bound(net, "l2", (4, 8))


def test_the_table_follows_the_head():
    head = bernstein_models.head(2, 3)
    smooth = bernstein.Smoothed(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Sigmoid()), head, 2).eval()
    before = smooth.coefficients
    assert smooth.coefficients is before
    head[4].weight.data.mul_(-3.0) # leaves no version behind
    assert np.abs(smooth.coefficients - bernstein.coefficients(head, 2, 2)).max() == 0 and np.abs(smooth.coefficients - before).max() > 0
    with pytest.raises(ValueError, match="lie in"): smooth.certify(torch.full((1, 4), 2.0), progress=False)
    with pytest.raises(TypeError, match="floating point"): smooth.certify(torch.zeros(1, 4, dtype=torch.uint8), progress=False)
    mixed = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).train()
    mixed[1].eval()
    bernstein.coefficients(mixed, 2, 1)
    assert mixed[0].training and not mixed[1].training


def test_sigmoid_space_far_from_the_cube():
    "Pre-activations around -30 and 30: no point of another class on a fine grid is nearer than the proved radius."
    rng = np.random.default_rng(5)
    sigmoid = lambda u: np.where(u >= 0, 1 / (1 + np.exp(-np.abs(u))), np.exp(-np.abs(u)) / (1 + np.exp(-np.abs(u))))
    axis = np.arange(-45, 45.01, 0.25)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    weights = np.stack([sigmoid(-grid), sigmoid(grid)], -1) # [M, axis, 2]: 1 - x and x without cancellation
    tested = 0
    for _ in range(60):
        table = np.zeros((2, 2, 2))
        table[0] = rng.normal(size=(2, 2)) * rng.choice([1, 10], size=(2, 2))
        u0 = rng.choice([-1, 1], 2) * rng.uniform(28, 36, 2)
        found = bernstein.sound_radius(table, u0, "l2", rtol=1e-2, space="sigmoid", keep=True)
        value = np.einsum("ij,mi,mj->m", table[0], weights[:, 0], weights[:, 1])
        here = np.einsum("ij,i,j->", table[0], np.r_[sigmoid(-u0[:1]), sigmoid(u0[:1])], np.r_[sigmoid(-u0[1:]), sigmoid(u0[1:])])
        other = np.sign(value) != np.sign(here)
        nearest = np.linalg.norm(grid[other] - u0, axis=1).min() if other.any() else np.inf
        assert found.lower <= nearest and (found.lower > 0 or found.status == "tie") and bernstein.check(table, u0, found)
        tested += np.isfinite(nearest)
    assert tested > 20


@pytest.mark.parametrize("p", [1.001, 1.01, 30, 240, 1000])
def test_general_norms_neither_overflow_nor_vanish(p):
    table = np.zeros((2, 2, 2))
    table[0] = [[-0.1, 0.1], [0.1, 0.3]]
    quick = bernstein.quick_radius(table, [0.6, 0.6], p, "slopes")
    assert 0 < quick < 1 and bernstein.quick_radius(1e-4 * table, [0.6, 0.6], p, "slopes") == pytest.approx(quick, rel=1e-9)
    near, far = bernstein.sound_radius(table, [0.2515, 0.2515], p), bernstein.sound_radius(table, [20.0, 20.0], p, space="sigmoid")
    assert 0 < near.lower <= 0.0031 and 21 < far.lower < 45 and near.status == far.status == "tight" # between the distances in l_inf and in l1
    assert quick <= bernstein.sound_radius(table, [0.6, 0.6], p).upper


def test_check_of_kept_trees_is_neither_too_strict_nor_too_lax():
    for seed in range(300, 380):
        rng = np.random.default_rng(seed)
        table, x0 = rng.normal(size=(3, 3, 3)), rng.random(2)
        found = bernstein.sound_radius(table, x0, "l2", rtol=1e-2, keep=True)
        assert bernstein.check(table, x0, found), seed
    tampered = lambda lower, **witness: bernstein.SoundRadius(lower, found.upper, found.status, found.point, **{**found.__dict__, "witness": {**found.witness, **witness}})
    assert not bernstein.check(table, x0, tampered(0.9)) and not bernstein.check(table, x0, tampered(np.nan))
    for low, high in ((np.nan, 1.0), (-1e200, 1e200), (0.0, 0.0)): assert not bernstein.check(table, x0, tampered(0.9, low=np.full(2, low), high=np.full(2, high)))


def test_a_common_offset_of_the_logits_costs_no_digits():
    rng = np.random.default_rng(1)
    table = np.round(rng.normal(size=(2, 2, 2)) * 2**20) / 2**20 # sums with the offset are exact
    x0 = rng.random(2)
    for offset in (2.0**20, 2.0**30):
        for how in ("slopes", "affine"): assert bernstein.quick_radius(table + offset, x0, "l2", how) <= bernstein.sound_radius(table, x0, "l2").upper * (1 + 1e-9)
