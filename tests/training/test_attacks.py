"""Attacks: known answers, the spec's objective, budgets, boxes, and a network left as it was."""
import math

import pytest
import torch
from torch import nn

from robust_smooth.training import attacks, models
from robust_smooth.training.attacks import (
    attack_objective, ddn, fgsm, frozen, pgd, smoothed_log_scores,
)
from robust_smooth.noise.additive import Gaussian


def images(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 8, 8, generator=generator), torch.randint(0, 10, (count,), generator=generator)


@pytest.fixture(scope="module")
def net():
    return models.seeded(models.small_convnet).eval()


def loss(net, x, y):
    with torch.no_grad():
        return nn.functional.cross_entropy(net(x), y, reduction="none")


@pytest.mark.parametrize("norm, order", [("l2", 2), ("linf", math.inf), (2, 2), (math.inf, math.inf)])
@pytest.mark.parametrize(
    "extra",
    [
        dict(),
        dict(noise=Gaussian(sigma=0.25), draws=3),
        dict(noise=Gaussian(sigma=0.25), draws=4, lam=0.5),
        dict(random_start=True),
        dict(normalise=False),
    ],
)
def test_budget_box_and_gain(net, norm, order, extra):
    x, y = images()
    worse = pgd(net, x, y, eps=0.3, norm=norm, steps=5, **extra)
    size = torch.linalg.vector_norm((worse - x).flatten(1), order, dim=1)
    assert (size <= 0.3 * (1 + 1e-5)).all() and worse.min() >= 0 and worse.max() <= 1
    if "lam" not in extra and extra != dict(normalise=False):
        assert (loss(net, worse, y) > loss(net, x, y)).float().mean() > 0.8
    assert not worse.requires_grad


def test_objective_is_the_printed_one():
    logits = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 3])
    g = logits.softmax(-1).mean(1)
    runner_up = torch.stack([max(g[i, c] for c in range(4) if c != y[i]) for i in range(3)])
    for lam in (0.0, 0.3, 1.0):
        want = -g[torch.arange(3), y].log() + (lam * runner_up.log() if lam else 0)
        torch.testing.assert_close(attack_objective(logits, y, lam), want)
    torch.testing.assert_close(smoothed_log_scores(logits).exp(), g)
    assert torch.isfinite(attack_objective(torch.tensor([[[0.0, 1e4, -1e4]]]), torch.tensor([0]), 1.0)).all()


def test_one_step_by_hand(net):
    """M = 1: x + 2 eps g / |g|, clamped, projected around x; with the noises given as a tensor."""
    x, y = images(3)
    held = Gaussian(sigma=0.5).sample(torch.empty(3, 4, 1, 8, 8), torch.Generator().manual_seed(7))
    point = x.clone().requires_grad_(True)
    logits = net((point[:, None] + held).flatten(0, 1)).reshape(3, 4, 10)
    gradient, = torch.autograd.grad(attack_objective(logits, y, 0.7).sum(), point)
    moved = (x + 2 * 0.4 * gradient / gradient.flatten(1).norm(dim=1).reshape(3, 1, 1, 1)).clamp(0, 1)
    delta = moved - x
    want = x + delta * (0.4 / delta.flatten(1).norm(dim=1).clamp_min(0.4)).reshape(3, 1, 1, 1)
    torch.testing.assert_close(pgd(net, x, y, eps=0.4, norm="l2", steps=1, noise=held, lam=0.7), want)


def test_smoothadv_is_lam_zero_and_noise_is_reproducible(net):
    x, y = images()
    settings = dict(eps=0.5, norm="l2", steps=3, noise=Gaussian(sigma=0.5), draws=2)
    a, b = (pgd(net, x, y, generator=torch.Generator().manual_seed(s), **settings) for s in (3, 3))
    assert torch.equal(a, b) and torch.equal(pgd(net, x, y, **settings), pgd(net, x, y, lam=0.0, **settings))
    assert not torch.equal(a, pgd(net, x, y, generator=torch.Generator().manual_seed(4), **settings))
    zero = torch.zeros(len(x), 1, *x.shape[1:])
    assert torch.equal(pgd(net, x, y, eps=0.5, steps=3, noise=zero), pgd(net, x, y, eps=0.5, steps=3))


def test_images_do_not_influence_each_other(net):
    x, y = images()
    together = pgd(net, x, y, eps=0.3, norm="l2", steps=4)
    alone = torch.cat([pgd(net, x[i:i + 1], y[i:i + 1], eps=0.3, norm="l2", steps=4) for i in range(len(x))])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_nothing_to_do(net):
    x, y = images()
    for settings in (dict(eps=0), dict(eps=0.5, steps=0)):
        assert torch.equal(pgd(net, x, y, **settings), x)
    assert torch.equal(fgsm(net, x, y, 0), x)


def test_zero_and_broken_gradients_move_nothing():
    class Half(nn.Module):
        """A flat score, except a NaN gradient for images that begin with 1."""

        def forward(self, x):
            v = x.flatten(1)
            broken = torch.where(v[:, 0] == 1, torch.sqrt(v[:, 1] * 0), v[:, 0] * 0)
            return torch.stack([broken, 0 * v[:, 0]], 1)

    x = torch.tensor([[0.5, 0.5], [1.0, 0.5]])
    for norm in ("l2", "linf"):
        assert torch.equal(pgd(Half(), x, torch.tensor([0, 0]), eps=0.5, norm=norm, steps=3), x)


def test_tiny_gradients_still_use_the_budget():
    linear = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1e-25, 0, 0, 0], [0, 0, 0, 0]]))
    x = torch.full((1, 4), 0.5)
    assert (x - pgd(linear, x, torch.tensor([0]), eps=0.2, norm="l2", steps=2)).norm() == pytest.approx(0.2, rel=1e-5)


def test_network_is_left_as_it_was():
    net = models.seeded(models.small_convnet).train()
    net[2].eval()
    net[1].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    modes, wants = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    x, y = images()
    for attack in (
        lambda: pgd(net, x, y, eps=0.2, steps=2),
        lambda: fgsm(net, x, y, 0.2),
        lambda: ddn(net, x, y, steps=3),
    ):
        attack()
        assert [m.training for m in net.modules()] == modes and [p.requires_grad for p in net.parameters()] == wants
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and all(
            p.grad is None for p in net.parameters()
        )
    with pytest.raises(RuntimeError), frozen(net):
        raise RuntimeError
    assert [m.training for m in net.modules()] == modes
    with torch.no_grad():
        pgd(net, x, y, eps=0.2, steps=1)


def test_ddn_finds_the_known_distance():
    """A linear classifier: the distance to the hyperplane, where the box does not matter."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(16, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(0.1 * torch.randn(2, 16, generator=generator))
    x = 0.4 + 0.2 * torch.rand(20, 16, generator=generator)
    with torch.no_grad():
        y = linear(x).argmax(1)
        w = linear.weight[0] - linear.weight[1]
        want = (x @ w).abs() / w.norm()
    found, distance = ddn(linear, x, y, steps=300, clip=None)
    torch.testing.assert_close(distance, want, rtol=0.02, atol=0.003)
    assert (linear(found).argmax(1) != y).all()
    constant = nn.Linear(16, 2)
    with torch.no_grad():
        constant.weight.zero_(), constant.bias.copy_(torch.tensor([1.0, 0]))
    found, distance = ddn(constant, x, torch.zeros(20, dtype=torch.long), steps=5)
    assert torch.isinf(distance).all() and torch.equal(found, x)


def test_ddn_beats_pgd_of_half_its_distance(net):
    x, _ = images(20)
    y = net(x).argmax(1)
    found, distance = ddn(net, x, y, steps=60)
    assert torch.isfinite(distance).all() and found.min() >= 0 and found.max() <= 1
    assert (net(found).argmax(1) != y).all()
    torch.testing.assert_close((found - x).flatten(1).norm(dim=1), distance, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "settings, match",
    [
        (dict(eps=-1), "eps"),
        (dict(eps=math.nan), "eps"),
        (dict(eps=1, norm="l1"), "norm"),
        (dict(eps=1, steps=-1), "steps"),
        (dict(eps=1, steps=1.5), "steps"),
        (dict(eps=1, lam=-1), "lam"),
        (dict(eps=1, step=0), "step"),
        (dict(eps=1, clip=(1, 0)), "clip"),
        (dict(eps=1, noise=Gaussian(sigma=1), draws=0), "draws"),
        (dict(eps=1, draws=2), "draws"),
        (dict(eps=1, noise=torch.zeros(6, 64)), "noise"),
        (dict(eps=1, noise=torch.zeros(5, 1, 1, 8, 8)), "noise"),
    ],
)
def test_pgd_refuses(net, settings, match):
    x, y = images()
    with pytest.raises(ValueError, match=match):
        pgd(net, x, y, **settings)


def test_other_bad_input(net):
    x, y = images()
    with pytest.raises(ValueError, match="y must"):
        fgsm(net, x, y[:3], 0.1)
    with pytest.raises(ValueError, match="x must"):
        fgsm(net, (x * 255).to(torch.uint8), y, 0.1)
    with pytest.raises(TypeError, match="additive"):
        pgd(net, x, y, eps=1, noise="gaussian")
    for settings, match in ((dict(steps=0), "steps"), (dict(gamma=0), "gamma"), (dict(start_radius=0), "start_radius")):
        with pytest.raises(ValueError, match=match):
            ddn(net, x, y, **settings)


def test_random_start_is_uniform_in_the_ball():
    x = torch.full((4000, 3), 0.5)
    for norm, order in (("l2", 2), ("linf", math.inf)):
        start = attacks._start(x, 0.2, norm, torch.Generator().manual_seed(0)) - x
        size = torch.linalg.vector_norm(start, order, dim=1)
        assert size.max() <= 0.2 * (1 + 1e-5)
        assert abs(float((size < 0.1).float().mean()) - 1 / 8) < 0.02
        assert start.mean(0).abs().max() < 0.01
