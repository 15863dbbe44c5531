"The certified network is the one that runs: layers that stand twice, shells, caches, numbers that become two logits, classes that never win."
import functools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import robust_smooth as rs
from robust_smooth.methods import bernstein
from robust_smooth.methods.splitting import audit, leading_linear
from robust_smooth.training.conduct import acts_alone, trial
from robust_smooth.training.lipschitz import Skip, lipschitz_bound
from robust_smooth.training.models import ResidualBlock, unwrapped, wrap
from robust_smooth.training.plain import is_plain
from robust_smooth.training.speed import optimise

SETTINGS = dict(n=100, n0=20, progress=False)


def flat(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), *layers).eval()


# ------------------------------------------------------------------------------------------ one number becomes two logits

@pytest.mark.parametrize("last, both", [([nn.Sigmoid()], 2.0), ([], 1.0)])
@pytest.mark.filterwarnings("ignore:the network returns one number")
def test_two_logits_of_one_number_move_together(last, both):
    net = wrap(flat(nn.Linear(4, 1), *last), mean=0, std=1)
    slope = 0.25 if last else 1.0
    with torch.no_grad(): net.net[1].weight.copy_(torch.tensor([[2.0, 0, 0, 0]])), net.net[1].bias.zero_()
    for norm, factor in (("l1", both), ("l2", math.sqrt(both)), ("linf", 1.0)):
        assert lipschitz_bound(net, norm, (4,)) == pytest.approx(2 * slope * factor, rel=1e-6)
    assert lipschitz_bound(nn.Sequential(net, nn.Linear(2, 3)).eval(), "l1", (4,)) > 0


def test_a_pipeline_behind_a_probability_is_certified_to_the_true_distance():
    features = wrap(flat(nn.Linear(1, 1), nn.Sigmoid()), mean=0, std=1)
    head = nn.Linear(2, 2)
    with torch.no_grad():
        features.net[1].weight.fill_(4.0), features.net[1].bias.fill_(-2.0) # the class changes at 1/2
        head.weight.copy_(torch.tensor([[-1.0, 1.0], [1.0, -1.0]])), head.bias.zero_()
    net = bernstein.Smoothed(features, head, 1).eval()
    for norm in ("l1", "l2", "linf"):
        found = net.certify(torch.tensor([[0.55], [0.6]]), norm, progress=False)
        assert (found.radius <= [0.05 + 1e-7, 0.1 + 1e-7]).all() and (found.radius > [0.04, 0.09]).all()


def test_a_sigmoid_that_stands_last_twice_or_does_not_come_last():
    shared = nn.Sigmoid()
    twice = flat(nn.Linear(4, 3), shared, nn.Linear(3, 1), shared)
    assert wrap(twice, mean=0, std=1)._probability

    class Gated(nn.Module):
        "Registers its gate last; what it returns is a logit."
        def __init__(self):
            super().__init__()
            self.line, self.gate = nn.Linear(4, 1), nn.Sigmoid()
        def forward(self, x): return 5 * (self.line(x) * self.gate(x[:, :1]) - 0.3)

    torch.manual_seed(0)
    net, x = Gated().eval(), torch.rand(64, 4)
    assert torch.equal(wrap(net, mean=0, std=1)(x).argmax(1), (net(x) > 0).flatten().long())


# ------------------------------------------------------------------------------------------------ what a layer computes with

class Steep(torch.Tensor):
    "A weight with an arithmetic of its own."
    @classmethod
    def __torch_function__(cls, function, kinds, arguments=(), keywords=None):
        out = super().__torch_function__(function, kinds, arguments, keywords or {})
        return 30 * out if function is nn.functional.linear else out


class AsSteep(nn.Module):
    def forward(self, weight): return weight.as_subclass(Steep)


def test_tensors_that_compute_in_their_own_way_wherever_they_hang():
    attribute = nn.Linear(2, 2)
    weight = attribute.weight.detach()
    del attribute.weight
    attribute.weight = weight.as_subclass(Steep)
    made = [nn.Linear(2, 2), nn.Linear(2, 2)]
    for layer, name in zip(made, ("weight", "bias")): parametrize.register_parametrization(layer, name, AsSteep())
    assert not is_plain(attribute, nn.Linear)
    for layer in (attribute, *made):
        with pytest.raises(ValueError, match="must compute what Linear computes"):
            lipschitz_bound(nn.Sequential(layer), "l2", (2,))


def test_constants_of_what_has_none():
    wide = nn.Conv2d(1, 1, 5, padding=2, padding_mode="circular", bias=False)
    wide.weight, wide.kernel_size, wide.padding = nn.Parameter(torch.ones(1, 1, 3, 3)), (3, 3), (1, 1)
    ones = torch.ones(1, 1, 6, 6)
    assert wide(ones).norm() / ones.norm() > 11 # the old padding is still laid around
    with pytest.raises(ValueError, match="keeps the size"): lipschitz_bound(wide, "l2", (1, 6, 6))
    for kernel in (3, (3, 5)):
        same = nn.Conv2d(1, 1, kernel, padding="same", padding_mode="circular", dilation=2)
        assert lipschitz_bound(same, "l2", (1, 12, 12)) > 0
    for layer in (nn.LeakyReLU(math.nan), nn.ELU(math.nan)):
        with pytest.raises(ValueError, match="must be numbers"): lipschitz_bound(layer, "l2", (2,))
    with pytest.raises(ValueError, match="must be real"): lipschitz_bound(nn.Linear(2, 2, dtype=torch.cfloat), "l2", (2,))
    with pytest.raises(ValueError, match="output size 1"): lipschitz_bound(nn.AdaptiveAvgPool2d(None), "l2", (1, 4, 4))


def test_a_cache_of_weights_does_not_outlive_its_layer():
    torch.manual_seed(0)
    features = nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(6, 2)), nn.Sigmoid())
    net = bernstein.Smoothed(features, nn.Linear(2, 3), 2).eval()
    layer = features[1].parametrizations.weight
    images = torch.rand(2, 6)
    with parametrize.cached():
        for size in (1.0, 10.0, 3.0):
            with torch.no_grad(): layer.original0.fill_(size)
            found = net.certify(images, progress=False)
            rows = layer.original1.detach().double()
            true = torch.linalg.matrix_norm(size * rows / rows.norm(dim=1, keepdim=True), 2)
            assert found.details["lipschitz"] == pytest.approx(float(true), rel=1e-6)
        assert parametrize._cache_enabled == 1


# ------------------------------------------------------------------------------------------------------------------- shells

class Negative(nn.DataParallel):
    def forward(self, *given, **named): return -super().forward(*given, **named)


class Holder(nn.Module):
    "Has the attribute by which compiled networks are known."
    def __init__(self, net):
        super().__init__()
        self._orig_mod = net
    def forward(self, x): return -self._orig_mod(x)


def _own_forward(net):
    shell = nn.DataParallel(net)
    shell.forward = lambda x: -net(x)
    return shell


def _compiled_otherwise(net):
    shell = torch.compile(net, backend="eager")
    shell.forward = lambda x: -net(x)
    return shell


def _compiled_with_hook(net):
    shell = torch.compile(net, backend="eager")
    shell.register_forward_hook(lambda module, inputs, out: -out)
    return shell


@pytest.mark.parametrize("make", [Negative, Holder, _own_forward, _compiled_otherwise, _compiled_with_hook])
def test_a_shell_that_computes_something_of_its_own_stays(make):
    torch.manual_seed(0)
    inner = flat(nn.Linear(4, 3))
    shell, x = make(inner).eval(), torch.rand(5, 4)
    assert unwrapped(shell) is shell
    assert torch.equal(wrap(shell, mean=0, std=1, num_classes=3)(x), shell(x))


def test_a_shell_that_says_only_how_goes():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(4, 3)
        def forward(self, x): return self.line(x)

    for net in (flat(nn.Linear(4, 3)), nn.Linear(4, 3), Own()):
        for shell in (nn.DataParallel(net), torch.compile(net, backend="eager"), torch.compile(nn.DataParallel(net))):
            assert unwrapped(shell) is net


# ------------------------------------------------------------------------------------------------------ rebuilt for speed

def test_what_hangs_on_a_base_classifier_is_not_lost_on_the_way_to_a_faster_one():
    "Nor is what the sample does not show: the hook below answers otherwise on bright images."
    def bright(module, inputs, out): return torch.where(inputs[0].flatten(1).mean(1, keepdim=True) > 0.9, -out, out)
    dark = torch.full((2, 1, 4, 4), 0.1)
    hooked = wrap(flat(nn.Linear(16, 3)), mean=[0.5], std=[0.5])
    hooked.register_forward_hook(bright)
    with pytest.raises(ValueError, match="model must compute what .* has forward hooks"):
        optimise(hooked, dark, backend="torch plain")
    own = rs.models.Classifier(rs.models.Centre(0.5), nn.Flatten(), nn.Linear(16, 3), num_classes=3).eval()
    own.register_forward_hook(bright)
    fast, light = optimise(own, dark, backend="torch plain"), torch.full((2, 1, 4, 4), 0.99)
    assert torch.allclose(fast(light), own(light), atol=1e-6)


def test_a_probability_stays_one_when_it_is_rebuilt():
    shared = nn.Sigmoid()
    net = wrap(flat(nn.Linear(16, 3), shared, nn.Linear(3, 1), shared), mean=[0.5], std=[0.5])
    images = torch.rand(8, 1, 4, 4)
    for backend in ("torch plain", "torch folded"):
        assert torch.allclose(optimise(net, images, backend=backend)(images), net(images), atol=1e-5)


# --------------------------------------------------------------------------------------------------- splits, cut in two parts

def _tied():
    relu, line = nn.ReLU(), nn.Linear(8, 8)
    return [
        flat(nn.Linear(4, 8), relu, nn.Linear(8, 8), relu, nn.Linear(8, 3)),
        flat(nn.Linear(4, 8), line, nn.Tanh(), line, nn.Linear(8, 3)),
        flat(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)),
        flat(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid()),
        flat(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double(),
    ]


@pytest.mark.parametrize("which", range(5))
def test_layers_that_stand_twice_are_asked_twice(which):
    torch.manual_seed(which)
    net = wrap(_tied()[which], mean=[0.5], std=[0.5])
    with torch.no_grad():
        for weight in net.parameters(): weight.mul_(3)
    x, noise = torch.randint(0, 5, (6, 1, 2, 2)) / 4, rs.Splitting(n_splits=12, q=4)
    parts = leading_linear(net, (1, 2, 2))
    assert (parts is not None) == (which < 2)
    if parts: assert torch.allclose(parts[2](parts[0](x)), net(x), atol=1e-5)
    fast, full = audit(net, x, noise), audit(net, x, noise, fast=False)
    assert np.array_equal(fast.steps, full.steps) and np.array_equal(fast.witness["kinds"], full.witness["kinds"])


# -------------------------------------------------------------------------------------------------------- company that hides

class Dead(nn.Module):
    "Each row is pushed from the mean of its batch; a third class never wins."
    num_classes, unit_input = 3, True

    def __init__(self, low):
        super().__init__()
        self.low = low

    def forward(self, x):
        m = x - 0.3 * (x - x.mean(0))
        return torch.cat([m - 0.5, 0 * m, 0 * m + self.low], 1)


@pytest.mark.parametrize("low", [-1.0, -30.0, -300.0, -900.0, -1e4, -1e9])
def test_company_does_not_hide_behind_a_class_that_never_wins(low):
    x = torch.linspace(0.1, 0.9, 4)[:, None]
    assert not acts_alone(Dead(low).eval(), x)
    with pytest.raises(ValueError, match="in other company"):
        rs.Smoothed(Dead(low).eval(), rs.Gaussian(sigma=0.5)).vote(x, **SETTINGS)


def test_rounding_beside_a_class_far_below_is_no_company():
    torch.manual_seed(0)
    net = flat(nn.Linear(64, 10))
    for low in (1e2, 1e3, 1e4, 1e5):
        far = lambda x: torch.cat([net(x), -low * x.flatten(1).sum(1, keepdim=True)], 1)
        assert trial(far, torch.rand(4, 1, 8, 8)).company < 1e-4


@pytest.mark.parametrize("name_of", [lambda x: (x.data_ptr(), len(x)), lambda x: (id(x), len(x))])
def test_a_network_that_knows_its_input_by_its_place(name_of):
    torch.manual_seed(0)
    net, answers = flat(nn.Linear(4, 3)), {}
    remembering = lambda x: answers.setdefault(name_of(x), net(x))
    with pytest.raises(ValueError, match="or remembers another|must return logits"):
        rs.Smoothed(remembering, rs.Gaussian(sigma=0.5)).vote(torch.rand(2, 4), **SETTINGS)


def test_truth_values_are_no_logits():
    net = flat(nn.Linear(4, 3))
    with pytest.raises(ValueError, match="truth values"):
        rs.Smoothed(lambda x: net(x) > 0, rs.Gaussian(sigma=0.5)).vote(torch.rand(2, 4), **SETTINGS)


# ---------------------------------------------------------------------------------------------------- heads that change by themselves

class Coins(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head
    def forward(self, z): return self.head(z) + 0.1 * torch.randn(len(z), 1)


class Counting(Coins):
    calls = 0
    def forward(self, z):
        self.calls += 1
        return self.head(z) * (1 + 0.1 * math.sin(self.calls))


@pytest.mark.parametrize("kind", [Coins, Counting])
def test_a_head_with_two_answers_is_no_table(kind):
    net = bernstein.Smoothed(flat(nn.Linear(6, 2), nn.Sigmoid()), kind(nn.Linear(2, 3)), 2, d=2).eval()
    for ask in (lambda: net.certify(torch.rand(2, 6), progress=False), lambda: net(torch.rand(2, 6))):
        with pytest.raises(ValueError, match="two answers to the same points"): ask()


def test_a_head_in_half_precision():
    net = bernstein.Smoothed(flat(nn.Linear(6, 2), nn.Sigmoid()), nn.Linear(2, 3).bfloat16(), 2).eval()
    assert (net.certify(torch.rand(2, 6), progress=False).radius >= 0).all()


# ------------------------------------------------------------------------------------------------------------------- copies

class Sharing(nn.Linear):
    "Its copy is itself."
    def __deepcopy__(self, memo): return self


class Renewing(nn.Linear):
    "Its copy is a hundredth of it."
    def __deepcopy__(self, memo):
        new = nn.Linear(self.in_features, self.out_features)
        with torch.no_grad(): new.weight.copy_(self.weight / 100)
        return new


def _computed(*sizes):
    layer = nn.Linear(*sizes)
    weight = layer.weight
    del layer.weight
    layer.weight = 2 * weight
    return layer


def _kept_as_attribute(*sizes):
    layer = nn.Linear(*sizes)
    weight = layer.weight.detach()
    del layer.weight
    layer.weight = weight
    return layer


def _by_its_own_way(*sizes):
    layer = nn.Linear(*sizes)
    layer.__deepcopy__ = lambda memo: nn.Linear(*sizes)
    return layer


@pytest.mark.parametrize("kind", [Sharing, Renewing, _computed, _kept_as_attribute, _by_its_own_way])
def test_a_copy_is_of_the_network_and_leaves_it_alone(kind):
    layer = kind(6, 2)
    net = bernstein.Smoothed(flat(layer, nn.Sigmoid()), nn.Linear(2, 3), 2).eval()
    for scope in ("input", "features"):
        with pytest.raises(ValueError, match="cop|attribute"): net.certify(torch.rand(2, 6), scope=scope, progress=False)
    assert layer.weight.dtype == torch.float32
    base = wrap(flat(kind(4, 2)), mean=[0.5], std=[0.5], num_classes=2)
    x, noise = torch.randint(0, 5, (2, 1, 2, 2)) / 4, rs.Splitting(n_splits=8, q=4)
    assert np.array_equal(audit(base, x, noise).steps, audit(base, x, noise, fast=False).steps)
    if kind is not _kept_as_attribute:
        with pytest.raises(ValueError, match="cop"): optimise(base, x, backend="torch folded")
    assert base.net[1].weight.dtype == torch.float32 and base.net[1].bias.requires_grad


# --------------------------------------------------------------------------------------------------------- sums that broadcast

@pytest.mark.parametrize("net, shape", [
    (Skip(nn.Linear(4, 1)), (4,)), (Skip(nn.AdaptiveAvgPool2d(1)), (2, 4, 4)), (Skip(nn.Conv2d(3, 1, 3, padding=1)), (3, 4, 4)),
    (Skip(nn.Linear(4, 4), shortcut=nn.Linear(4, 1)), (4,)), (Skip(nn.AdaptiveAvgPool2d(1), average=True), (1, 3, 5)),
])
def test_a_number_that_is_added_many_times_counts_as_often(net, shape):
    net, at = net.double().eval(), torch.rand(math.prod(shape), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x.view(1, *shape)).flatten(), at).numpy()
    for p in (1, 2, np.inf): assert np.linalg.norm(jacobian, p) <= lipschitz_bound(net, p, shape)


def test_a_residual_block_whose_branch_ends_in_another_shape():
    block = ResidualBlock(2, 2).eval()
    block.conv2, block.bn2 = nn.Conv2d(2, 1, 3, padding=1), nn.BatchNorm2d(1).eval()
    with pytest.raises(ValueError, match="shape of its shortcut"): lipschitz_bound(block, "l2", (2, 4, 4))
    for size in (8, 7, 1): assert lipschitz_bound(ResidualBlock(2, 4, 2).eval(), "l2", (2, size, size)) >= 1
    with pytest.raises(ValueError, match="number of axes"): lipschitz_bound(Skip(nn.Flatten()), "l2", (1, 2, 2))


@pytest.mark.parametrize("low", [-1.0, -30.0, -900.0, -1e9])
def test_nor_in_half_precision(low):
    net = Dead(low).eval()
    net.weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="in other company"):
        rs.Smoothed(net, rs.Gaussian(sigma=0.5)).vote(torch.linspace(0.1, 0.9, 4)[:, None], **SETTINGS)
    plain = wrap(flat(nn.Linear(16, 3)).bfloat16(), mean=[0.5], std=[0.5], num_classes=3)
    assert acts_alone(plain, torch.rand(4, 1, 4, 4), 2**-5)


# ----------------------------------------------------------------------------------------------- what others did to torch

def _steeper(function): return lambda *given, **named: 30 * function(*given, **named)


@pytest.mark.parametrize("room, name, layer", [
    (nn.functional, "linear", nn.Linear(2, 2)), (torch, "sigmoid", nn.Sigmoid()), (nn.functional, "relu", nn.ReLU()),
    (nn.functional, "batch_norm", nn.BatchNorm1d(2)), (nn.functional, "dropout", nn.Dropout()), (nn.functional, "gelu", nn.GELU()),
])
def test_a_function_of_torch_that_is_another_now(room, name, layer, monkeypatch):
    layer = layer.eval()
    before = layer(torch.ones(2, 2))
    assert is_plain(layer) and lipschitz_bound(layer, "l2", (2,)) > 0
    monkeypatch.setattr(room, name, _steeper(getattr(room, name)))
    assert not torch.allclose(layer(torch.ones(2, 2)), before) and not is_plain(layer)
    with pytest.raises(ValueError, match=f"calls torch.*{name}, which was patched"): lipschitz_bound(nn.Sequential(layer), "l2", (2,))


@pytest.mark.parametrize("wrap_it", [lambda f: functools.partialmethod(f), lambda f: torch.no_grad()(f), lambda f: functools.wraps(nn.Linear.forward)(f)])
def test_a_method_of_torch_that_is_another_now_however_it_is_wrapped(wrap_it, monkeypatch):
    inner = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", wrap_it(lambda self, x: 30 * inner(self, x)))
    with pytest.raises(ValueError, match="Linear whose forward was patched"): lipschitz_bound(nn.Linear(2, 2), "l2", (2,))


def test_a_method_of_ours_that_is_another_now(monkeypatch):
    layer, inner = rs.models.Normalize(0.5, 0.5), rs.models.Normalize.forward
    assert is_plain(layer)
    monkeypatch.setattr(rs.models.Normalize, "forward", lambda self, x: 30 * inner(self, x))
    with pytest.raises(ValueError, match="Normalize whose forward was patched"): lipschitz_bound(layer, "l2", (1, 2, 2))


def test_a_tensor_of_its_own_way_before_or_in_a_batch_normalisation():
    for place, name in ((0, "weight"), (0, "bias"), (1, "weight")):
        net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
        assert lipschitz_bound(net, "l2", (2,)) > 0
        parametrize.register_parametrization(net[place], name, AsSteep())
        with pytest.raises(ValueError, match="must compute what"): lipschitz_bound(net, "l2", (2,))
