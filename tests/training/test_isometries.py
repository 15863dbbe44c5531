"""Layers of constant 1: singular values, sorted groups in every norm, gradients, doors, and the pipeline that is trained through the smoothing."""
from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from robust_smooth.core.checks import check
from robust_smooth.lab.bernstein_models import attack_inside, head
from robust_smooth.methods.bernstein import evaluate, Smoothed
from robust_smooth.methods.bernstein_training import ThroughSmoothing, worst_nearby
from robust_smooth.training.data import load
from robust_smooth.training.isometries import GroupSort, isometric_features, orthogonal
from robust_smooth.training.lipschitz import lipschitz_bound
from robust_smooth.training.plain import is_plain
from robust_smooth.training.train import Cosine, fit, Standard

SHARED = Path(os.environ.get("ROBUST_SMOOTH_SHARED") or Path(__file__).resolve().parents[3] / "shared") / "datasets"


# ---------------------------------------------------------------------------------------------------------------------- layers

@pytest.mark.parametrize("size", [2, 3, 5])
def test_group_sort_is_a_sort_of_neighbours(size):
    rng = np.random.default_rng(size)
    x = rng.normal(size=(7, 6 * size, 4, 3))
    x[0, :size] = 1.0 # ties
    wanted = np.sort(x.reshape(7, 6, size, 4, 3), axis=2).reshape(x.shape)
    assert np.array_equal(GroupSort(size)(torch.as_tensor(x)).numpy(), wanted)
    points = torch.as_tensor(rng.normal(size=(3, 2 * size))).requires_grad_()
    assert torch.autograd.gradcheck(GroupSort(size), (points,))
    with pytest.raises(ValueError, match="multiple of"): GroupSort(size)(torch.zeros(1, size + 1))


def test_orthogonal_layers_lose_nothing():
    torch.manual_seed(0)
    for inputs, outputs in ((30, 7), (7, 30), (12, 12), (1, 4), (4, 1)):
        layer = orthogonal(nn.Linear(inputs, outputs, dtype=torch.float64))
        values = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)
        assert np.abs(values - 1).max() < 1e-13
        assert (
            1 <= lipschitz_bound(layer, "l2", (inputs,)) * (1 + 1e-13)
            and lipschitz_bound(layer, "l2", (inputs,)) < 1 + 1e-8
        )
    again = copy.deepcopy(layer).float()
    again.load_state_dict(layer.state_dict())
    assert np.abs((again.weight - layer.weight).detach().numpy()).max() < 1e-6


def test_gradients_through_gram_schmidt():
    torch.manual_seed(1)
    for shape in ((5, 3), (3, 5), (4, 4)):
        layer = orthogonal(nn.Linear(*shape, bias=False, dtype=torch.float64))
        matrix = layer.parametrizations.weight.original.detach().clone().requires_grad_()
        assert torch.autograd.gradcheck(layer.parametrizations.weight[0], (matrix,))
    broken = torch.zeros(4, 3, dtype=torch.float64) # a matrix without rank stays harmless
    found = np.linalg.svd(layer.parametrizations.weight[0](broken).numpy(), compute_uv=False)
    assert found.max() <= 1 + 1e-12


def test_torchs_own_parametrisation_is_bounded_as_it_is():
    torch.manual_seed(2)
    for kind in ("matrix_exp", "cayley", "householder"):
        layer = parametrizations.orthogonal(nn.Linear(11, 6), orthogonal_map=kind)
        assert is_plain(layer, nn.Linear)
        true = np.linalg.svd(layer.weight.detach().double().numpy(), compute_uv=False).max()
        assert true <= lipschitz_bound(layer, "l2", (11,)) <= true * (1 + 1e-8)


def test_only_the_plain_layers_are_admitted():
    class Louder(GroupSort):
        def forward(self, x): return 30 * super().forward(x)

    hooked = GroupSort()
    hooked.register_forward_hook(lambda module, inputs, out: 30 * out)
    above = orthogonal(nn.Linear(4, 4))
    parametrize.register_parametrization(above, "weight", Thirty()) # on top of it: read as it is, not by its name
    for odd in (Louder(), hooked):
        assert not is_plain(odd, GroupSort)
        with pytest.raises(ValueError, match="must compute what GroupSort computes"): lipschitz_bound(odd, "l2", (4,))
    assert lipschitz_bound(above, "l2", (4,)) >= 29.9


class Thirty(nn.Module):
    def forward(self, weight): return 30 * weight


@pytest.mark.parametrize("seed", range(5))
def test_slopes_of_whole_extractors_stay_below_one(seed):
    torch.manual_seed(seed)
    net = isometric_features(30, 4, (16, 24))[:-1].double()
    x = torch.rand(300, 30).double()
    step = torch.randn_like(x) * 10 ** (-4 * torch.rand(300, 1).double())
    ratio = (net(x + step) - net(x)).norm(dim=1) / step.norm(dim=1)
    bound = lipschitz_bound(net, "l2", (30,))
    assert ratio.max() <= bound < 1 + 1e-7
    growing = isometric_features(30, 4, (40, 40))[:-1].double() # no layer but the last has fewer outputs than inputs
    jacobian = torch.autograd.functional.jacobian(growing[:-1], x[:1])[0, :, 0]
    assert (torch.linalg.svdvals(jacobian) - 1).abs().max() < 1e-9 # in every direction


# --------------------------------------------------------------------------------------------------------- bound and features

class _OtherInDouble(nn.Module):
    "A weight that is thirty times as large in double precision, in which features are computed."
    def forward(self, weight): return weight * (30 if weight.dtype == torch.float64 else 1)


def test_bound_and_features_come_from_one_copy():
    torch.manual_seed(0)
    features = nn.Sequential(nn.Flatten(), nn.Linear(6, 2), nn.Sigmoid())
    parametrize.register_parametrization(features[1], "weight", _OtherInDouble())
    net = Smoothed(features, nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)), 2).eval()
    found = net.certify(torch.rand(4, 6), progress=False)
    true = (
        30
        * np.linalg.svd(features[1].parametrizations.weight.original.detach().double().numpy(), compute_uv=False).max()
    )
    assert np.all(found.details["lipschitz"] >= true)
    plain = Smoothed(isometric_features(6, 2, (4,)), net.head, 2).eval()
    assert plain.certify(torch.rand(4, 6), progress=False).details["lipschitz"].max() < 1 + 1e-7 # float32 weights: 1e-6


# ---------------------------------------------------------------------------------------------------------------------- recipe

def pipeline(inputs, d, degree, hidden, seed=0):
    torch.manual_seed(seed)
    return Smoothed(isometric_features(inputs, d, hidden), head(d), degree, through=True)


def test_the_search_against_a_grid():
    "In one dimension the worst move is found by trying all of them."
    rng = np.random.default_rng(0)
    for _ in range(20):
        table, u = torch.as_tensor(3 * rng.normal(size=(3, 3))), torch.as_tensor(rng.normal(size=(6, 1)))
        y, lengths = torch.as_tensor(rng.integers(0, 3, 6)), torch.full((6, 1), 0.3, dtype=torch.float64)
        moves = worst_nearby(table, u, y, lengths, 20, torch.Generator().manual_seed(0))
        assert moves.abs().max() <= 0.3 + 1e-9
        loss = lambda delta: nn.functional.cross_entropy(evaluate(table, torch.sigmoid(u + delta)), y, reduction="none")
        every = torch.stack(
            [loss(torch.full((6, 1), float(t), dtype=torch.float64)) for t in np.linspace(-0.3, 0.3, 61)]
        )
        assert (loss(moves) >= loss(torch.zeros(6, 1, dtype=torch.float64)) - 0.05).all()
        assert (loss(moves) > every.amax(0) - 0.05).double().mean() >= 0.6 # a gradient search may stop at a local one


def test_the_recipe_repeats_itself_and_resumes(tmp_path):
    data = load("digits", "train", subset=200)
    recipe = ThroughSmoothing(noise=0.1, radius=0.5)
    how = dict(epochs=3, batch_size=50, progress=False, seed=3, optimizer=lambda p: torch.optim.Adam(p, 3e-3))
    first, second = pipeline(64, 3, 2, (16,)), pipeline(64, 3, 2, (16,))
    said = fit(first, data, recipe, **how)
    assert fit(second, data, recipe, checkpoint=tmp_path / "run", **how).fingerprint == said.fingerprint
    assert {"accuracy", "accuracy_unmoved", "loss"} <= set(said.rows[-1])
    assert said.rows[-1]["accuracy_unmoved"] >= said.rows[-1]["accuracy"]
    other = pipeline(64, 3, 2, (16,))
    assert fit(other, data, ThroughSmoothing(noise=0.2, radius=0.5), **how).fingerprint != said.fingerprint
    with pytest.raises(TypeError, match="Smoothed"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), data, recipe, **how)


def test_without_moves_it_is_the_cross_entropy_of_the_smoothed_head():
    data = load("digits", "train", subset=100)
    how = dict(epochs=2, batch_size=50, progress=False, seed=0, optimizer=lambda p: torch.optim.SGD(p, 0.1))
    first, second = pipeline(64, 3, 2, (16,)), pipeline(64, 3, 2, (16,))
    losses = [
        fit(net, data, recipe, **how).rows[-1]["loss"]
        for net, recipe in ((first, Standard()), (second, ThroughSmoothing()))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_proved_radii_on_digits_hold_and_are_larger_than_without():
    train, test = load("digits", "train"), load("digits", "test", subset=60)
    found = {}
    for name, recipe in dict(bare=Standard(), through=ThroughSmoothing(radius=0.6)).items():
        net = pipeline(64, 5, 1, (64, 64))
        fit(
            net, train, recipe, epochs=25, batch_size=64, progress=False, schedule=Cosine(warmup=1.0),
            optimizer=lambda p: torch.optim.Adam(p, 4e-3),
        )
        found[name] = net.certify(test, progress=False, rtol=2e-2, keep=True)
        broken, _ = attack_inside(net, test.images, found[name].radius, "l2", steps=40)
        assert not broken.any() and check(found[name]).all() and (found[name].alpha == 0)
        beyond, _ = attack_inside(net, test.images, 4 * found[name].radius, "l2", steps=40)
        assert beyond.mean() > 0.5 # the attack is no paper tiger
    accurate = {name: table.certified_accuracy(test.labels.numpy(), [0, 0.5]) for name, table in found.items()}
    assert accurate["through"][0] >= 0.85 and accurate["through"][1] > accurate["bare"][1]


@pytest.mark.skipif(
    not (SHARED / "MNIST").is_dir(), reason="the folder of real data sets (../shared/datasets) is not there"
)
def test_proved_radii_on_mnist_hold():
    train, test = load("mnist", "train", SHARED, subset=4000), load("mnist", "test", SHARED, subset=30)
    net = pipeline(784, 5, 1, (64, 64))
    fit(
        net, train, ThroughSmoothing(radius=1.0), epochs=6, batch_size=64, progress=False,
        schedule=Cosine(warmup=1.0),
        optimizer=lambda p: torch.optim.Adam(p, 4e-3),
    )
    found = net.certify(test, progress=False, rtol=5e-2)
    shares = found.certified_accuracy(test.labels.numpy(), [0, 0.5, 1.0])
    assert shares[0] >= 0.8 and shares[1] >= 0.6 and shares[2] >= 0.3
    broken, _ = attack_inside(net, test.images, found.radius, "l2", steps=40)
    assert not broken.any()
