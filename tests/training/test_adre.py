"ADRE and SmoothAdv recipes: loss and gradient by hand, boundedness, stability at huge gaps, attacks within the ball, training, bad input."
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robust_smooth.training import attacks, data, models, train
from robust_smooth.training.adre import ADRE, adre_loss
from robust_smooth.noise.additive import Gaussian
from robust_smooth.training.smoothadv import SmoothAdv, worst_case

def logits(seed=0, batch=6, k=3, classes=5, dtype=torch.float64):
    return torch.randn(batch, k, classes, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 3

LABELS = torch.tensor([0, 1, 2, 3, 4, 0])

def seeded(seed=0): return torch.Generator().manual_seed(seed)

@pytest.fixture(scope="module")
def digits(): return data.load("digits", "train", subset=300)

@pytest.fixture(scope="module")
def net(digits):
    torch.manual_seed(0)
    made = models.mlp(64, 10, (32,))
    train.fit(made, digits, train.NoiseAugmentation(Gaussian(sigma=0.25)), epochs=15, batch_size=50, progress=False)
    return made

@pytest.mark.parametrize(
    "lam, per, cap, smoothing",
    [(0.3, "all", None, 0.0), (0.3, "one", 10.0, 0.0), (0.1, "all", 1.0, 0.1), (0.0, "all", 10.0, 0.2)],
)
def test_loss_by_the_definition(lam, per, cap, smoothing):
    z = logits()
    p = z.softmax(-1)
    total = 0.0
    for i, y in enumerate(LABELS.tolist()):
        copies = p[i] if per == "all" else p[i, :1]
        fit = np.mean([-(1 - smoothing) * math.log(c[y]) - smoothing / 5 * float(c.log().sum()) for c in copies])
        g = p[i].mean(0)
        term = -math.log(max(float(g[c]) for c in range(5) if c != y))
        total += fit - lam * (term if cap is None else min(term, cap))
    assert float(adre_loss(z, LABELS, lam, per, cap, smoothing)[0]) == pytest.approx(total / 6, rel=1e-12)

def test_gradient_by_finite_differences_and_closed_form():
    z = logits(1).requires_grad_(True)
    loss = lambda z: adre_loss(z, LABELS, 0.2, cap=None, smoothing=0.05)[0]
    assert torch.autograd.gradcheck(loss, z)
    z = torch.tensor([[[1.0, 2.0, 0.5]]], dtype=torch.float64, requires_grad=True)
    adre_loss(z, torch.tensor([0]), 0.3)[0].backward()
    assert z.grad.flatten().tolist() == pytest.approx([-0.8381432717, 0.7399722034, 0.0981710682], abs=1e-10)

@pytest.mark.parametrize("gap", [50.0, 110.0, 1e4])
def test_finite_at_huge_logit_gaps(gap):
    z = torch.tensor([[[gap, 0.0, -gap]]], requires_grad=True) # float32
    value, parts = adre_loss(z, torch.tensor([0]), 0.3, cap=None)
    value.backward()
    assert float(value.detach()) == pytest.approx(-0.3 * gap, rel=1e-6) and z.grad.flatten().tolist() == pytest.approx(
        [-0.3, 0.3, 0.0], abs=1e-6
    )
    assert float(parts["logit_gap"]) == gap
    z.grad = None
    value, parts = adre_loss(z, torch.tensor([0]), 0.3)
    value.backward()
    assert (
        float(value.detach()) == pytest.approx(-3.0, abs=1e-6)
        and z.grad.abs().max() < 1e-20
        and float(parts["capped"]) == 1
    )

def test_bounded_below_exactly_up_to_the_threshold():
    def far(lam, smoothing, gap):
        return float(
            adre_loss(
                torch.tensor([[[gap, 0.0, 0.0, 0.0]]], dtype=torch.float64),
                torch.tensor([0]), lam, cap=None, smoothing=smoothing,
            )[0]
        )
    threshold = 0.4 * 3 / 4
    assert far(threshold - 0.01, 0.4, 1e6) > 0 > far(threshold + 0.01, 0.4, 1e6)
    assert far(0.01, 0.0, 1e6) < -9000
    rng = np.random.default_rng(0)
    smallest = min(
        float(adre_loss(torch.tensor(rng.normal(0, scale, (1, 2, 4))), torch.tensor([0]), 0.3)[0])
        for scale in (1, 10, 1e3, 1e6)
        for _ in range(20)
    )
    assert smallest >= -3.0 - 1e-9

def test_lam_zero_is_cross_entropy_and_ties_go_to_the_smallest_class():
    z = logits(2)
    value, parts = adre_loss(z, LABELS, 0.0)
    assert (
        float(value) == pytest.approx(float(F.cross_entropy(z.flatten(0, 1), LABELS.repeat_interleave(3))), rel=1e-12)
        and "adre_term" not in parts
    )
    tied = torch.zeros(1, 1, 3, dtype=torch.float64, requires_grad=True)
    adre_loss(tied, torch.tensor([0]), 0.5)[0].backward()
    assert tied.grad[0, 0, 1] > tied.grad[0, 0, 2]

def test_recipes_reduce_to_each_other(net, digits):
    x, y = digits.images[:40], digits.labels[:40]
    value = lambda recipe: recipe.loss(net, x, y, seeded(3))[0].item()
    assert value(ADRE(0.25, 0.0, 1)) == pytest.approx(value(train.NoiseAugmentation(Gaussian(sigma=0.25))), rel=1e-6)
    assert value(SmoothAdv(0.25, 0.4, 3)) == pytest.approx(value(ADRE(0.25, 0.0, 3, eps=0.4)), rel=1e-6)
    assert value(SmoothAdv(0.25, 0.0, 3)) == pytest.approx(value(ADRE(0.25, 0.0, 3)), rel=1e-6)
    assert value(SmoothAdv(0.25, 0.4, 3, multi_noise=False)) != value(SmoothAdv(0.25, 0.4, 3))
    assert value(ADRE(0.25, 0.2, 3, cap=1e6)) == pytest.approx(value(ADRE(0.25, 0.2, 3, mode="paper")), rel=1e-6)

@pytest.mark.parametrize("kind", ["pgd", "ddn"])
def test_attacks_stay_in_the_ball_and_the_box_and_raise_the_objective(net, digits, kind):
    x, y = digits.images[:60], digits.labels[:60]
    noise = Gaussian(sigma=0.25).sample(torch.empty(60, 4, *x.shape[1:]), seeded(1))
    net.zero_grad(set_to_none=True)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    moved = worst_case(net, x, y, noise, 0.5, 4, kind)
    assert (moved - x).flatten(1).norm(dim=1).max() <= 0.5 * (1 + 1e-5) and moved.min() >= 0 and moved.max() <= 1
    def objective(z):
        with torch.no_grad():
            return attacks.attack_objective(net((z[:, None] + noise).flatten(0, 1)).reshape(60, 4, -1), y).mean().item()
    assert objective(moved) > objective(x) + 0.05
    assert torch.equal(worst_case(net, x, y, noise, 0.0, 4, kind), x)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in net.named_parameters())

def test_a_flat_network_is_not_moved(digits):
    class Flat(nn.Module):
        num_classes = 10
        def forward(self, x): return x.flatten(1).sum(1, keepdim=True) * torch.zeros(1, 10)
    x, y = digits.images[:5], digits.labels[:5]
    noise = torch.zeros(5, 2, *x.shape[1:])
    assert torch.equal(worst_case(Flat(), x, y, noise, 0.5, 3), x)

def test_warm_up_grows_eps(net, digits):
    for recipe in (ADRE(0.25, 0.1, 2, eps=1.0), SmoothAdv(0.25, 1.0, 2)):
        assert [recipe.at(t, 50).eps for t in (0, 2.5, 10, 49)] == [0, 0.25, 1, 1]
    assert ADRE(0.25, 0.1, 2, eps=1.0, warmup=0).at(0, 50).eps == 1.0

@pytest.mark.parametrize(
    "recipe",
    [
        ADRE(0.25, 0.2, 3),
        ADRE(0.25, 0.05, 2, cap=None, smoothing=0.2),
        ADRE(0.25, 0.1, 2, eps=0.3, warmup=1),
        SmoothAdv(0.25, 0.3, 2, warmup=1),
        SmoothAdv(0.25, 0.3, 2, attack="ddn", warmup=1),
    ],
    ids=repr,
)
def test_training_learns_and_repeats(recipe, digits):
    def run():
        torch.manual_seed(0)
        made = models.mlp(64, 10, (32,))
        return train.fit(made, digits, recipe, epochs=6, batch_size=50, progress=False)
    first, again = run(), run()
    assert first.fingerprint == again.fingerprint
    assert first.rows[-1]["loss"] < first.rows[0]["loss"] and first.rows[-1]["accuracy"] > 0.3
    assert first.settings["recipe"]["name"] == type(recipe).__name__

def test_the_printed_loss_runs_away_and_the_cap_holds_it(digits):
    rows = {}
    for mode in ("paper", "sound"):
        torch.manual_seed(0)
        made = models.mlp(64, 10)
        rows[mode] = train.fit(
            made, digits, ADRE(0.12, 0.3, 2, mode=mode), epochs=40,
            optimizer=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
            batch_size=50,
            progress=False,
        ).to_frame()
    assert (
        rows["sound"].logit_gap.max() < 100
        and rows["sound"].accuracy.iloc[-1] > 0.9
        and rows["sound"].capped.iloc[-1] > 0.1
    )
    assert rows["paper"].logit_gap.max() > 3 * rows["sound"].logit_gap.max()

@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(sigma=0.0), "sigma"), (dict(lam=-0.1), "lam"), (dict(k=0), "k must"),
        (dict(k=1.5), "k must"), (dict(per="two"), "per"), (dict(cap=0.0), "cap"),
        (dict(smoothing=1.0), "smoothing"),
        (dict(mode="verified"), "mode"),
        (dict(eps=-1.0), "eps"),
        (dict(steps=0), "steps"),
        (dict(cap=None), "bounded below"),
        (dict(cap=None, smoothing=0.1), "bounded below"),
    ],
)
def test_bad_settings_of_adre_are_refused(settings, words):
    with pytest.raises(ValueError, match=words): ADRE(**{**dict(sigma=0.25, lam=0.2, k=2), **settings})

@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(sigma=-1.0), "sigma"),
        (dict(eps=float("nan")), "eps"),
        (dict(k=0), "k must"),
        (dict(steps=0), "steps"),
        (dict(attack="fgsm"), "attack"),
        (dict(warmup=-1.0), "warmup"),
    ],
)
def test_bad_settings_of_smoothadv_are_refused(settings, words):
    with pytest.raises(ValueError, match=words): SmoothAdv(**{**dict(sigma=0.25, eps=0.5), **settings})

def test_bad_batches_are_refused(digits):
    with pytest.raises(ValueError, match="labels in 0..4"): adre_loss(logits(), LABELS + 1, 0.1)
    with pytest.raises(ValueError, match="shape"): adre_loss(logits()[:, 0], LABELS, 0.1)
    with pytest.raises(ValueError, match="shape"): adre_loss(logits()[..., :1], LABELS, 0.1)
    with pytest.raises(ValueError, match="y must have shape"): adre_loss(logits(), LABELS[:3], 0.1)
    with pytest.raises(ValueError, match="exceeds"):
        ADRE(0.25, 0.19, 2, cap=None, smoothing=0.2).loss(
            models.mlp(64, 10, (8,)), digits.images[:4], digits.labels[:4], seeded()
        )
