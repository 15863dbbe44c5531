"""Lipschitz bounds against dense matrices, attained examples, and slopes between points."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from robust_smooth.lab import bernstein_models
from robust_smooth.methods import bernstein
from robust_smooth.training import lipschitz
from robust_smooth.training.lipschitz import Concat, lipschitz_bound, Skip


def dense_matrix(layer, shape):
    "The matrix of a linear layer, one column per input number."
    eye = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    with torch.no_grad():
        return (layer.double()(eye) - layer(torch.zeros_like(eye))).flatten(1).T.numpy()


@torch.no_grad()
def steepest(net, x, y):
    "The largest slope between pairs of points."
    change = (net(x.clone()) - net(y.clone())).flatten(1).norm(dim=1)
    return float((change / (x - y).flatten(1).norm(dim=1)).max())


@pytest.mark.parametrize("seed", range(25))
def test_convolution_bounds_against_dense_matrices(seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    k, s, pad, n = int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.integers(0, 3)), int(rng.integers(4, 9))
    layer = nn.Conv2d(2 * int(rng.integers(1, 3)), 4, k, s, pad, groups=int(rng.integers(1, 3)))
    shape = (layer.in_channels, n, n)
    matrix = dense_matrix(layer, shape)
    for p in (1, 2, np.inf):
        assert np.linalg.norm(matrix, p) <= lipschitz_bound(layer, p, shape) * (1 + 1e-12)
    for p in (1.5, 4): # induced norms in between, from below
        v = rng.normal(size=(matrix.shape[1], 50))
        found = np.linalg.norm(matrix @ v, p, axis=0) / np.linalg.norm(v, p, axis=0)
        assert found.max() <= lipschitz_bound(layer, p, shape)


def test_the_published_rule_is_not_a_bound():
    ones = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(ones.weight)
    true = np.linalg.norm(dense_matrix(ones, (1, 8, 8)), 2)
    assert abs(true - 8.2909) < 1e-4 and abs(np.linalg.norm(np.ones(9)) - 3) < 1e-12
    assert lipschitz_bound(ones, "l2", (1, 8, 8)) >= true
    edge = nn.Conv2d(1, 1, (1, 3), padding=(0, 1), bias=False)
    with torch.no_grad(): edge.weight.copy_(torch.tensor([[[[1.0, 0.0, -1.0]]]]))
    assert lipschitz_bound(edge, 2, (1, 1, 2)) >= np.linalg.norm(dense_matrix(edge, (1, 1, 2)), 2) >= 1 - 1e-12


def test_batch_normalisation_is_folded():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
    ).eval()
    net[1].running_var.fill_(4.0)
    parts = [(nn.Sequential(net[0]), (1, 4, 4)), (nn.Sequential(net[1]), (4, 4, 4)), (net[4], (64,))]
    separate = math.prod(lipschitz_bound(part, 2, shape) for part, shape in parts)
    assert lipschitz_bound(net, 2, (1, 4, 4)) <= separate * (1 + 1e-6)


def test_network_bounds():
    chain = nn.Sequential(*[Skip(nn.Identity()) for _ in range(6)])
    assert abs(lipschitz_bound(chain, 2, (5,)) - 64) < 1e-5
    with pytest.raises(ValueError, match="LayerNorm"): lipschitz_bound(nn.LayerNorm(4), 2, (4,))
    reflecting = nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")
    with pytest.raises(ValueError, match="padding_mode"): lipschitz_bound(reflecting, 2, (1, 5, 5))
    assert bernstein.lipschitz_bound is lipschitz.lipschitz_bound
    net = bernstein_models.conv_features(1, 8, 3, 8, "exact").eval()
    assert lipschitz_bound(net, "l2", (1, 8, 8)) <= 0.25 * (1 + 1e-5)


def test_a_module_used_twice_counts_twice():
    triple = nn.Linear(2, 2)
    with torch.no_grad(): triple.weight.copy_(3 * torch.eye(2))
    assert lipschitz_bound(nn.Sequential(triple, nn.Identity(), triple), "l2", (2,)) == pytest.approx(9)
    assert lipschitz_bound(nn.utils.parametrizations.weight_norm(triple), "l2", (2,)) == pytest.approx(3)


def test_layers_that_compute_something_else_are_refused():
    class Residual(nn.Sequential):
        def forward(self, x): return x + super().forward(x)

    class Twice(nn.Linear):
        def forward(self, x): return 2 * super().forward(x)

    hooked = nn.Linear(2, 2)
    hooked.register_forward_hook(lambda module, inputs, out: 5 * out)
    for odd in (
        Residual(nn.Linear(2, 2)),
        nn.Sequential(Twice(2, 2)),
        nn.Sequential(hooked),
        nn.Sequential(nn.Softplus(threshold=0.0)),
    ):
        with pytest.raises(ValueError, match="overrides|threshold"): lipschitz_bound(odd, "l2", (2,))
    for wrong in (nn.Softplus(1e-3), nn.Softplus(-1e-3)): # jumps by 2e-6 where it becomes linear
        with pytest.raises(ValueError, match="jump"): lipschitz_bound(wrong, "l2", (2,))
    assert lipschitz_bound(nn.Softplus(2.0), "l2", (2,)) == pytest.approx(1)


@pytest.mark.parametrize(
    "layer", [nn.SiLU(inplace=True), nn.LeakyReLU(3.0, inplace=True), nn.ELU(3.0, inplace=True), nn.ELU(-5.0)]
)
def test_in_place_layers_beside_a_shortcut(layer):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(500, 4, generator=generator) for _ in range(2))
    for net in (Skip(nn.Sequential(layer, nn.Linear(4, 4))), Concat(nn.Sequential(layer))):
        assert steepest(net, x, y) <= lipschitz_bound(net, "l2", (4,)) * (1 + 1e-6) # float32


def test_batch_normalisation_along_another_axis():
    # [B, 4, 8]: along the first axis, not along the outputs
    net = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)).eval()
    with torch.no_grad(): net[1].running_var.copy_(torch.tensor([1e-4, 1.0, 1.0, 1.0]))
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(500, 4, 8, generator=generator) for _ in range(2))
    assert steepest(net, x, y) <= lipschitz_bound(net, "l2", (4, 8))
