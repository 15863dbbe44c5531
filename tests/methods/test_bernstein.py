"""Bernstein smoothing of networks: tensors, certificates of batches, the pipeline from images, attacks inside and beyond radii."""
from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robust_smooth.lab import bernstein_models
from robust_smooth.methods import bernstein
from robust_smooth.training.data import load
from robust_smooth.training.train import Standard


def random_table(rng, d, n, K):
    return rng.normal(size=(K, *(n + 1,) * d)) + rng.normal(size=(K, *(1,) * d))


# -------------------------------------------------------------------------------------------------------------- tensors, heads

def test_torch_evaluation_is_differentiable():
    rng = np.random.default_rng(1)
    table = torch.as_tensor(random_table(rng, 3, 4, 3)).requires_grad_()
    x = torch.as_tensor(rng.uniform(size=(5, 3))).requires_grad_()
    inside = torch.as_tensor(0.1 + 0.8 * rng.uniform(size=(2, 3))).requires_grad_()
    assert torch.autograd.gradcheck(bernstein.evaluate, (table, inside))
    out = bernstein.evaluate(table, x)
    slope, = torch.autograd.grad(out[:, 1].sum(), x)
    expected = bernstein.gradient(table.detach().numpy(), x.detach().numpy())
    assert np.abs(slope.numpy() - expected[:, 1]).max() < 1e-12
    assert bernstein.evaluate(table.detach().float(), x.detach().float()).dtype == torch.float32


def test_a_head_is_asked_in_evaluation_mode_and_left_as_it_was():
    mixed = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).train()
    mixed[1].eval()
    table = bernstein.coefficients(mixed, 2, 1)
    assert mixed[0].training and not mixed[1].training
    assert np.array_equal(table, bernstein.coefficients(mixed.eval(), 2, 1))
    as_function = bernstein.coefficients(lambda x: mixed(x), 2, 1) # a function of tensors, float32
    assert np.array_equal(table, as_function)


# ---------------------------------------------------------------------------------------------------- certificates of a batch

def test_certify_batch_equals_single_and_labels_its_mode():
    rng = np.random.default_rng(23)
    table, points = random_table(rng, 3, 2, 4), rng.uniform(size=(5, 3))
    batch = bernstein.certify(table, points, "l2")
    said = (batch.alpha, batch.method, batch.mode, batch.scope, batch.norm)
    assert said == (0, "bernstein", "sound", "features", "l2")
    assert np.array_equal(batch.label, bernstein.evaluate(table, points).argmax(1))
    assert np.allclose(batch.radius, [bernstein.sound_radius(table, x, 2).lower for x in points], rtol=1e-12)
    assert bernstein.certify(table, points[0], "linf").radius.shape == (1,)


def test_a_lipschitz_constant_rounds_down():
    rng = np.random.default_rng(23)
    table, points = random_table(rng, 3, 2, 4), rng.uniform(size=(5, 3))
    batch, scaled = bernstein.certify(table, points, "l2"), bernstein.certify(table, points, "l2", lipschitz=0.25)
    assert scaled.scope == "input"
    assert np.all(scaled.radius <= 4 * batch.radius) and np.allclose(scaled.radius, 4 * batch.radius, rtol=1e-12)


def test_paper_mode_warns():
    rng = np.random.default_rng(23)
    with pytest.warns(UserWarning, match="certifies nothing"):
        printed = bernstein.certify(random_table(rng, 3, 2, 4), rng.uniform(size=(5, 3)), "l2", mode="paper")
    assert printed.mode == "paper"


@pytest.mark.parametrize("options, words", [
    (dict(mode="verified"), "mode"), (dict(lipschitz=-1), "lipschitz"), (dict(mode="paper", space="sigmoid"), "space"),
])
def test_bad_requests(options, words):
    with pytest.raises(ValueError, match=words): bernstein.certify(np.ones((2, 2)), [0.5], "l2", **options)


# ---------------------------------------------------------------------------------------------------------------- the pipeline

@pytest.fixture(scope="module")
def digits_model():
    "A pipeline trained on digits for a few seconds."
    train = load("digits", "train")
    torch.manual_seed(0)
    features, head = bernstein_models.dense_features(64, 5), bernstein_models.head(5, 10)
    base = bernstein_models.FeatureClassifier(features, head).train()
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
    beyond, _ = bernstein_models.attack_inside(smooth, test.images[:100], 3 * sound.radius[:100], "l2", steps=20)
    assert beyond.mean() > 0.3 # the attack is able to succeed


def test_no_attack_succeeds_inside_in_linf(digits_model):
    images, smooth = load("digits", "test", subset=500).images[:60], digits_model.smoothed(2)
    linf = smooth.certify(images, "linf", progress=False)
    assert not bernstein_models.attack_inside(smooth, images, linf.radius, "linf", steps=20)[0].any()


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
    state = {name: value.clone() for name, value in smooth.head.state_dict().items()}
    with torch.no_grad(): smooth.head[-1].bias += 1
    assert np.allclose(smooth.coefficients, before + 1, atol=1e-5)
    smooth.head.load_state_dict(state)
    assert np.allclose(smooth.coefficients, before, atol=1e-6)


def test_the_table_sees_updates_that_leave_no_version_behind():
    head = bernstein_models.head(2, 3)
    smooth = bernstein.Smoothed(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Sigmoid()), head, 2).eval()
    before = smooth.coefficients
    head[4].weight.data.mul_(-3.0)
    assert np.array_equal(smooth.coefficients, bernstein.coefficients(head, 2, 2))
    assert np.abs(smooth.coefficients - before).max() > 0


def test_images_that_are_none():
    head = bernstein_models.head(2, 3)
    smooth = bernstein.Smoothed(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Sigmoid()), head, 2).eval()
    with pytest.raises(ValueError, match="lie in"): smooth.certify(torch.full((1, 4), 2.0), progress=False)
    with pytest.raises(TypeError, match="floating point"):
        smooth.certify(torch.zeros(1, 4, dtype=torch.uint8), progress=False)
    for wrong in (dict(scope="pixels"), dict(mode="verified")):
        with pytest.raises(ValueError, match="must be"): smooth.certify(torch.zeros(1, 4), progress=False, **wrong)


def test_training_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(tmp_path))
    data = load("digits", "train", subset=100)

    def make():
        return bernstein_models.network_for(data, 3)

    def kept():
        return sorted((tmp_path / "classifiers").glob("*.safetensors"))

    first = bernstein_models.fit_pipeline(make, data, Standard(), epochs=2)
    files = kept()
    again = bernstein_models.fit_pipeline(make, data, Standard(), epochs=2)
    assert len(files) == 1 and kept() == files
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))
    other = bernstein_models.fit_pipeline(make, data, Standard(), epochs=3)
    assert not torch.equal(other.head[0].weight, first.head[0].weight)


def test_another_class_that_only_rounding_makes_is_no_attack():
    "A half-space 1e-3 away, whose form is 27 times as large: float32 takes the sign of its rounding."
    way = torch.nn.functional.normalize(torch.rand(3072, generator=torch.Generator().manual_seed(0)), dim=0)
    images = torch.rand(20, 3072, generator=torch.Generator().manual_seed(1))
    plane = torch.nn.Linear(3072, 2)
    with torch.no_grad():
        plane.weight[0], plane.weight[1], plane.bias[:] = 0.0, way, torch.tensor([0.0, -27.0])
    images += (27 - 1e-3 - images @ way)[:, None] * way
    double = plane.weight[1].double()
    away = ((27 - images.double() @ double) / double.norm()).detach().numpy()
    assert np.all(away > 5e-4)
    assert not bernstein_models.attack_inside(plane, images, away * (1 - 1e-9))[0].any()
    assert bernstein_models.attack_inside(plane, images, away * 1.05)[0].all()
