"""Layers that do not compute what their class computes: each door by itself, then thrown at random networks."""
from __future__ import annotations

import copy
import math
import types

import pytest
import torch
from torch import nn
from torch.nn.modules import module as base
from torch.nn.utils import parametrizations

from robust_smooth.methods.splitting import leading_linear
from robust_smooth.noise.additive import Gaussian
from robust_smooth.smoothed import Smoothed as Votes
from robust_smooth.training.lipschitz import Concat, Skip, layer_bound, lipschitz_bound, lipschitz_report
from robust_smooth.training.models import wrap
from robust_smooth.training.plain import deviation, is_plain

STEEP = 30.0 # by how much the tampered layers below magnify

# --------------------------------------------------------------------------------------------- doors: functions that tamper

def pre_hook(module):
    module.register_forward_pre_hook(lambda _, inputs: (STEEP * inputs[0],))

def hook(module):
    module.register_forward_hook(lambda _, inputs, out: STEEP * out)

def hook_with_keywords(module):
    module.register_forward_hook(lambda _, inputs, keywords, out: STEEP * out, with_kwargs=True)

def hook_always(module):
    module.register_forward_hook(lambda _, inputs, out: STEEP * out, always_call=True)

def instance_forward(module):
    inner = type(module).forward
    module.forward = types.MethodType(lambda self, x: STEEP * inner(self, x), module)

def instance_call_impl(module):
    inner = nn.Module._call_impl
    module._call_impl = types.MethodType(lambda self, x: STEEP * inner(self, x), module)

def compiled(module):
    inner = nn.Module._call_impl
    module._compiled_call_impl = types.MethodType(lambda self, x: STEEP * inner(self, x), module)

def _subclass(module, **methods):
    module.__class__ = type(f"Odd{type(module).__name__}", (type(module),), methods)

def subclass_forward(module):
    inner = type(module).forward
    _subclass(module, forward=lambda self, x: STEEP * inner(self, x))

def subclass_call(module):
    inner = type(module).__call__
    _subclass(module, __call__=lambda self, x: STEEP * inner(self, x))

def subclass_wrapped_call(module):
    inner = type(module)._wrapped_call_impl
    _subclass(
        module,
        _wrapped_call_impl=lambda self, x: STEEP * inner(self, x),
        __call__=lambda self, x: self._wrapped_call_impl(x),
    )

def mixin(module):
    inner = type(module).forward
    first = type("First", (), dict(forward=lambda self, x: STEEP * inner(self, x)))
    module.__class__ = type("Beside", (first, type(module)), {})

def after_parametrisation(module):
    "A method put on the class that a parametrisation made."
    parametrizations.weight_norm(module)
    inner = type(module).forward
    type(module).forward = lambda self, x: STEEP * inner(self, x)

DOORS = [
    pre_hook, hook, hook_with_keywords, hook_always, instance_forward, instance_call_impl, compiled,
    subclass_forward, subclass_call, subclass_wrapped_call, mixin,
]

@pytest.mark.parametrize("door", [*DOORS, after_parametrisation])
def test_each_door_is_seen_and_opens(door):
    layer = nn.Linear(2, 2)
    before = layer(torch.ones(1, 2))
    assert is_plain(layer) and is_plain(layer, nn.Linear)
    door(layer)
    assert not torch.allclose(layer(torch.ones(1, 2)), before) # the function is another
    assert not is_plain(layer, nn.Linear) and deviation(layer, nn.Linear)
    with pytest.raises(
        ValueError, match="Linear must compute what Linear computes|OddLinear|Beside|ParametrizedLinear"
    ):
        lipschitz_bound(nn.Sequential(nn.ReLU(), layer), "l2", (2,))

@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("make", [lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU()), lambda: Skip(nn.Linear(2, 2)),
                                  lambda: Concat(nn.Linear(2, 2)), nn.Sigmoid, lambda: nn.LeakyReLU(0.1)])
def test_doors_of_containers_and_activations(door, make):
    network = make()
    door(network)
    with pytest.raises(ValueError, match="must compute what"):
        lipschitz_bound(nn.Sequential(network, nn.ReLU()), "l2", (2,))

def test_global_hooks_are_seen():
    net = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
    for register in (base.register_module_forward_hook, base.register_module_forward_pre_hook):
        handle = register(lambda module, inputs, *out: None)
        try:
            assert not is_plain(net[0])
            with pytest.raises(ValueError, match="global forward"): lipschitz_bound(net, "l2", (2,))
        finally: handle.remove()
    assert lipschitz_bound(net, "l2", (2,)) > 0

def test_inner_methods_of_a_convolution():
    class Wide(nn.Conv2d):
        def _conv_forward(self, x, weight, bias): return STEEP * super()._conv_forward(x, weight, bias)

    own = nn.Conv2d(1, 1, 3)
    own._conv_forward = lambda x, weight, bias: STEEP * nn.functional.conv2d(x, weight, bias)
    for layer in (Wide(1, 1, 3), own):
        assert not is_plain(layer, nn.Conv2d)
        with pytest.raises(ValueError, match="_conv_forward"): lipschitz_bound(layer, "l2", (1, 5, 5))

def test_dropout_that_stays_awake():
    class Awake(nn.Dropout):
        def train(self, mode=True): return super().train(True)

    own = nn.Dropout()
    own.train = lambda mode=True: own
    for layer in (Awake(), own):
        with pytest.raises(ValueError, match="train"): lipschitz_bound(nn.Sequential(layer), "l2", (2,))

    class Always(nn.Module):
        "A class with a rule, whose part does not go to sleep."
        def __init__(self):
            super().__init__()
            self.part = Awake()
        def forward(self, x): return self.part(x)

    layer_bound.register(Always)(lambda layer, shape: (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="evaluation mode"): lipschitz_bound(Always(), "l2", (2,))

def test_a_slope_behind_a_property_and_a_patched_class(monkeypatch):
    class Sloped(nn.LeakyReLU):
        negative_slope = property(lambda self: STEEP, lambda self, value: None)

    assert not is_plain(Sloped(), nn.LeakyReLU)
    with pytest.raises(ValueError, match="negative_slope"): lipschitz_bound(Sloped(), "l2", (2,))
    monkeypatch.setattr(nn.Sigmoid, "forward", lambda self, x: torch.sigmoid(STEEP * x))
    with pytest.raises(ValueError, match="patched"): lipschitz_bound(nn.Sigmoid(), "l2", (2,))

def test_a_weight_with_its_own_arithmetic():
    class Steeper(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, kinds, arguments=(), keywords=None):
            out = super().__torch_function__(function, kinds, arguments, keywords or {})
            return STEEP * out if function is nn.functional.linear else out

    layer = nn.Linear(2, 2)
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Steeper))
    with pytest.raises(ValueError, match="weight as a"): lipschitz_bound(layer, "l2", (2,))

def test_a_random_parametrisation_is_refused():
    class Noisy(nn.Module):
        def forward(self, weight): return weight + torch.randn_like(weight)

    layer = nn.Linear(2, 2)
    nn.utils.parametrize.register_parametrization(layer, "weight", Noisy())
    with pytest.raises(ValueError, match="same at each look"): lipschitz_bound(layer, "l2", (2,))

def test_what_is_plain():
    class Labelled(nn.Linear):
        kind = "labelled"
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.label = "mine"
        def describe(self): return self.label

    layers = [
        Labelled(3, 3),
        nn.Linear(3, 3).double(),
        copy.deepcopy(nn.Linear(3, 3)),
        nn.Linear(3, 3).eval().requires_grad_(False),
        parametrizations.weight_norm(nn.Linear(3, 3)),
        parametrizations.spectral_norm(nn.Linear(3, 3)),
        parametrizations.orthogonal(nn.Linear(3, 3)),
        copy.deepcopy(parametrizations.weight_norm(nn.Linear(3, 3))),
    ]
    assert [deviation(layer, nn.Linear) for layer in layers] == [""] * len(layers)
    for layer in layers[:-1]: assert lipschitz_bound(layer, "l2", (3,)) > 0
    assert not is_plain(nn.ReLU(), nn.Linear) and not is_plain(None) and is_plain(nn.ReLU6(), nn.Hardtanh)

# --------------------------------------------------------------------------------------------------------- numbers that lie

def test_statistics_and_weights_that_are_no_numbers():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    net[1].running_var[0] = -1.0
    for model, shape in ((net, (2,)), (net[1], (2,))):
        with pytest.raises(ValueError, match="running_var"): lipschitz_bound(model, "l2", shape)
    net[1].running_var[0] = math.nan
    with pytest.raises(ValueError, match="running_var"): lipschitz_bound(net, "l2", (2,))
    with torch.no_grad(): net[0].weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="finite"): lipschitz_bound(net[:1], "l2", (2,))
    class Unknown(nn.Module):
        def forward(self, x): return x
    layer_bound.register(Unknown)(lambda layer, shape: (math.nan, 1.0, 1.0))
    with pytest.raises(ValueError, match="must be numbers"): lipschitz_report(Unknown(), "l1", (2,))

# ----------------------------------------------------------------------------------------------------- an attack on networks

def _network(generator):
    "A small random chain, with the places where something can be tampered with."
    wide = int(torch.randint(2, 6, (), generator=generator))
    kinds = [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Identity, nn.Dropout, lambda: nn.LeakyReLU(0.2)]
    layers = [nn.Flatten(), nn.Linear(4, wide)]
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        layers.append(kinds[int(torch.randint(len(kinds), (), generator=generator))]())
        layers.append(
            [
                nn.Linear(wide, wide),
                Skip(nn.Linear(wide, wide)),
                nn.Sequential(nn.Linear(wide, wide), nn.BatchNorm1d(wide)),
            ][int(torch.randint(3, (), generator=generator))]
        )
    return nn.Sequential(*layers).eval()

def _steepest(net, generator):
    "The largest slope found between pairs of near points, some of them moved along the gradient."
    net = copy.deepcopy(net).double() if all(is_plain(m) for m in net.modules()) else net
    like = next(net.parameters())
    x = 2 * torch.randn(400, 4, generator=generator).to(like)
    v = torch.randn(400, 4, generator=generator).to(like)
    best = 0.0
    for size in (1e-2, 1e-1):
        y = x + size * v / v.norm(dim=1, keepdim=True)
        with torch.no_grad(): best = max(best, float(((net(x) - net(y)).norm(dim=1) / (x - y).norm(dim=1)).max()))
    return best

@pytest.mark.parametrize("seed", range(64))
def test_no_bound_of_a_tampered_network_is_below_its_slope(seed):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = _network(generator)
    assert _steepest(net, generator) <= lipschitz_bound(net, "l2", (4,)) * (1 + 1e-6)
    places = [module for module in net.modules() if not isinstance(module, nn.BatchNorm1d)]
    module = places[int(torch.randint(len(places), (), generator=generator))]
    DOORS[seed % len(DOORS)](module)
    try: bound = lipschitz_bound(net, "l2", (4,))
    except ValueError as error: assert "must compute what" in str(error)
    else: assert _steepest(net, generator) <= bound * (1 + 1e-4)

# -------------------------------------------------------------------------------------------------------------- other readers

def test_splitting_reads_only_plain_first_layers():
    for door in DOORS:
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        assert leading_linear(net, (1, 2, 2)) is not None
        door(net[1])
        assert leading_linear(net, (1, 2, 2)) is None
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        door(net)
        assert leading_linear(net, (1, 2, 2)) is None

@pytest.mark.parametrize("change", [
    nn.utils.spectral_norm, nn.utils.weight_norm, parametrizations.spectral_norm, parametrizations.weight_norm, hook,
    instance_forward, subclass_forward,
])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_vote_reads_no_layer(change):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    change(net[1])
    base_classifier = wrap(net.eval(), num_classes=2, mean=[0.5], std=[0.5])
    record = Votes(base_classifier, Gaussian(sigma=0.5)).vote(torch.rand(2, 1, 2, 2), n=50, n0=10, progress=False)
    assert record.counts.sum(1).tolist() == [50, 50]
