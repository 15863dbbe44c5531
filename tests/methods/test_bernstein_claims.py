"""What a Bernstein certificate may leave out: hooks and overrides of the pipeline, a head that changed, a witness that was edited."""
from __future__ import annotations

import copy
import math
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import robust_smooth as rs
from robust_smooth.lab.bernstein_models import attack_inside
from robust_smooth.methods import bernstein
from robust_smooth.training.lipschitz import layer_bound

# ------------------------------------------------------------------------------------------- what hangs on the extractor

def first_of_one(x: torch.Tensor) -> torch.Tensor:
    "Two logits: class 0 where the feature exceeds 1/2."
    return torch.cat([x, torch.full_like(x, 0.5)], 1)

class Threshold(nn.Module):
    def forward(self, x): return first_of_one(x)

def one_dimensional() -> bernstein.Smoothed:
    "Images of one number; the feature is its sigmoid."
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(0.0)
    return bernstein.Smoothed(nn.Sequential(layer, nn.Sigmoid()), Threshold(), 1, d=1).eval()

class Hot(nn.Sigmoid):
    def forward(self, x): return torch.sigmoid((x - 0.85) / 0.1)

class Shifted(nn.Sequential):
    def forward(self, x): return super().forward((x - 0.85) / 0.1)

def own_forward(module):
    module.forward = types.MethodType(lambda self, x: type(self).forward(self, (x - 0.85) / 0.1), module)

def swap_sigmoid(model): model.features[1] = Hot()

def swap_container(model): model.features = Shifted(*model.features)

TAMPER = {
    "pre-hook of the container": lambda m: m.features.register_forward_pre_hook(lambda _, a: ((a[0] - 0.85) / 0.1,)),
    "hook of the container": lambda m: m.features.register_forward_hook(
        lambda _, a, out: torch.sigmoid(20 * (out - 0.7))
    ),
    "forward of the container": lambda m: own_forward(m.features),
    "subclass of the container": swap_container,
    "subclass of the sigmoid": swap_sigmoid,
    "pre-hook of the sigmoid": lambda m: m.features[1].register_forward_pre_hook(lambda _, a: ((a[0] - 0.85) / 0.1,)),
    "forward of the sigmoid": lambda m: own_forward(m.features[1]),
    "forward of the layer": lambda m: own_forward(m.features[0]),
    "pre-hook of the whole": lambda m: m.register_forward_pre_hook(lambda _, a: ((a[0] - 0.85) / 0.1,)),
    "hook of the whole": lambda m: m.register_forward_hook(lambda _, a, out: -out),
    "forward of the whole": lambda m: own_forward(m),
}

def test_the_radius_in_one_dimension():
    certificates = one_dimensional().certify(torch.tensor([[0.9]]), progress=False)
    assert (
        certificates.label[0] == 0
        and certificates.radius[0] == pytest.approx(0.9, rel=2e-3)
        and certificates.radius[0] <= 0.9
    )

@pytest.mark.parametrize("what", TAMPER)
def test_what_hangs_on_the_pipeline_is_refused(what):
    model = one_dimensional()
    TAMPER[what](model)
    with pytest.raises(ValueError, match="must compute what"):
        model.certify(torch.tensor([[0.9]]), progress=False)

@pytest.mark.parametrize("change", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_layers_are_certified(change):
    model = one_dimensional()
    change(model.features[0])
    assert model.certify(torch.tensor([[0.9]]), progress=False).radius[0] == pytest.approx(0.9, rel=2e-3)

def test_a_sequential_with_a_constructor_of_its_own():
    "Cutting off the sigmoid makes a plain chain, whatever the class of the extractor needs to be made."
    features = rs.models.Classifier(nn.Flatten(), nn.Linear(4, 2), nn.Sigmoid(), num_classes=2)
    head = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
    certificates = bernstein.Smoothed(features, head, 2).eval().certify(torch.rand(3, 4), progress=False)
    assert set(certificates.details["space"]) == {"sigmoid"}

def random_pipeline(seed: int) -> tuple[bernstein.Smoothed, torch.Tensor]:
    torch.manual_seed(seed)
    activation = [nn.ReLU, nn.Tanh, nn.SiLU, nn.Identity][seed % 4]()
    features = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), activation, nn.Linear(8, 2), nn.Sigmoid())
    head = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad(): head[0].weight.mul_(4)
    return bernstein.Smoothed(features, head, 3).eval(), torch.rand(6, 1, 2, 3)

def pre_hook(module):
    module.register_forward_pre_hook(lambda _, inputs: (30 * (inputs[0] - inputs[0].mean(1, keepdim=True)),))

def hook(module):
    module.register_forward_hook(
        lambda _, inputs, out: torch.sigmoid(20 * (out - out.mean())) if out.shape[1] == 2 else 20 * out
    )

def method(module):
    inner = type(module).forward
    module.forward = types.MethodType(lambda self, x: inner(self, 20 * x), module)

def subclass(module):
    inner = type(module).forward
    module.__class__ = type("Odd", (type(module),), dict(forward=lambda self, x: inner(self, 20 * x)))

def called(module):
    inner = type(module).__call__
    module.__class__ = type("Odd", (type(module),), dict(__call__=lambda self, x: inner(self, 20 * x)))

@pytest.mark.parametrize("seed", range(32))
def test_no_certificate_of_a_tampered_pipeline_breaks(seed):
    model, images = random_pipeline(seed)
    plain = model.certify(images, progress=False, rtol=1e-2)
    assert not attack_inside(model, images, plain.radius, "l2", steps=10)[0].any()
    places = [model.features, *model.features, model, copy.deepcopy(model.head)]
    module = places[seed % (len(places) - 1)]
    (pre_hook, hook, method, subclass, called)[seed % 5](module)
    try: tampered = model.certify(images, progress=False, rtol=1e-2)
    except ValueError: return
    assert not attack_inside(model, images, tampered.radius, "l2", steps=10)[0].any()

# ------------------------------------------------------------------------------------------------------- a head that changes

class Tuned(nn.Module):
    "A head with attributes of every kind."
    scale = 1.0

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        self.power, self._secret = 1.0, 1.0

    def forward(self, x): return self.scale * self._secret * self.layers(x) ** self.power

def swap_activation(head): head.layers[1] = nn.Tanh()

def swap_slope(head): head.layers[1] = nn.LeakyReLU(0.7)

def set_class_attribute(head): type(head).scale = 3.0

def set_attribute(head): head.power = 2.0

def set_private_attribute(head): head._secret = -1.0

def set_instance_forward(head): head.forward = lambda x: -head.layers(x)

def add_hook(head): head.register_forward_hook(lambda module, inputs, out: out + 1)

def add_inner_pre_hook(head): head.layers[2].register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))

def replace_weights(head): head.layers[0].weight.data.mul_(-3.0)

@pytest.mark.parametrize(
    "change",
    [
        swap_activation, swap_slope, set_class_attribute, set_attribute, set_private_attribute,
        set_instance_forward, add_hook, add_inner_pre_hook, replace_weights,
    ],
)
def test_the_table_follows_every_change_of_the_head(change, monkeypatch):
    monkeypatch.setattr(Tuned, "scale", 1.0)
    torch.manual_seed(0)
    head = Tuned()
    model = bernstein.Smoothed(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Sigmoid()), head, (2, 3), d=2).eval()
    images = torch.rand(3, 4)
    before, logits = model.coefficients, model(images)
    assert model.coefficients is before
    change(head)
    assert np.array_equal(model.coefficients, bernstein.coefficients(head, 2, (2, 3))) and not np.array_equal(
        model.coefficients, before
    )
    assert not torch.equal(model(images), logits)
    kept = model.coefficients
    assert model.coefficients is kept

def test_another_head_or_degree_is_another_table():
    model, _ = random_pipeline(0)
    before = model.coefficients
    model.head = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
    assert np.array_equal(model.coefficients, bernstein.coefficients(model.head, 2, 3)) and not np.array_equal(
        model.coefficients, before
    )
    model.degrees = (1, 1)
    assert model.coefficients.shape == (3, 2, 2)

# ----------------------------------------------------------------------------------------------------------------- checking

@pytest.fixture(scope="module")
def kept():
    model, images = random_pipeline(1)
    made = {(norm, scope): model.certify(images, norm, scope, progress=False, keep=True, rtol=1e-2)
            for norm in ("l1", "l2", "linf") for scope in ("input", "features")}
    return made

def test_kept_certificates_are_checked(kept):
    for certificates in kept.values():
        assert (certificates.radius > 0).any() and rs.check(certificates).all()
        assert rs.check(certificates[[2, 0]]).all()

LIES = {
    "norm": lambda c: dict(norm={"l1": "l2", "l2": "linf", "linf": "l1"}[c.norm]),
    "scope": lambda c: dict(scope={"input": "features", "features": "input"}[c.scope]),
    "radius": lambda c: dict(radius=c.radius * 1.01),
    "label": lambda c: dict(label=(c.label + 1) % 3),
    "mode": lambda c: dict(mode="paper"),
    "alpha": lambda c: dict(alpha=0.01),
    "joint": lambda c: dict(alpha_scope="joint"),
    "index": lambda c: dict(index=c.index + 7),
    "lipschitz": lambda c: dict(
        radius=c.radius * 2, witness=dict(c.witness, lipschitz=c.witness["lipschitz"] * 0.4999, scope=c.witness["norm"])
    ),
}

@pytest.mark.parametrize("lie", LIES)
def test_claims_that_were_not_made_are_found(kept, lie):
    for certificates in kept.values():
        claimed = replace(certificates, **LIES[lie](certificates))
        row = certificates.radius > 0
        assert not rs.check(claimed)[row].any(), (lie, certificates)

def test_a_witness_is_needed_and_must_be_the_rows_own(kept):
    model, images = random_pipeline(1)
    with pytest.raises(ValueError, match="witness"): rs.check(model.certify(images, progress=False))
    certificates = kept["l2", "input"]
    rolled = {name: np.roll(column, 1, axis=0) for name, column in certificates.witness.items()}
    assert not rs.check(replace(certificates, witness=rolled))[
        certificates.radius > np.roll(certificates.radius, 1)
    ].any()

def test_a_constant_extractor_moves_nothing():
    table = np.array([[0.0, 1.0], [0.5, 0.5]])
    certificates = bernstein.certify(table, [[0.9]], lipschitz=0.0, keep=True)
    assert math.isinf(certificates.radius[0]) and rs.check(certificates).all()


class _Features(nn.Module):
    "Two features that are no function of their image alone."

    def __init__(self, kind):
        super().__init__()
        self.line, self.kind, self.calls = nn.Linear(4, 2), kind, 0

    def forward(self, x):
        self.calls += 1
        z = self.line(nn.functional.dropout(x, 0.5, training=True) if self.kind == "coins" else x)
        z = z - z.mean(0) if self.kind == "company" else z
        return torch.sigmoid(z + (0.3 * (-1)**self.calls if self.kind == "memory" else 0.0))


@pytest.mark.parametrize("scope", ["features", "input"])
@pytest.mark.parametrize(
    "kind, said", [("coins", "two answers"), ("memory", "two answers"), ("company", "depend on each other")]
)
def test_features_are_a_function_of_each_image_alone(kind, said, scope):
    torch.manual_seed(0)
    images = torch.rand(3, 4)
    layer_bound.register(_Features)(lambda layer, shape: (1.0, 1.0, 1.0))
    smooth = bernstein.Smoothed(_Features(kind), nn.Linear(2, 3), degree=2)
    with pytest.raises(ValueError, match=said): smooth.certify(images, scope=scope, progress=False)
    assert (
        len(
            bernstein.Smoothed(_Features("none"), nn.Linear(2, 3), degree=2).certify(
                images, scope=scope, progress=False
            )
        )
        == 3
    )


def test_features_that_look_at_the_batch_are_named():
    features = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2, track_running_stats=False), nn.Sigmoid())
    smooth = bernstein.Smoothed(features, nn.Linear(2, 3), degree=2)
    with pytest.raises(ValueError, match="keeps no running statistics"):
        smooth.certify(torch.rand(3, 4), scope="features", progress=False)
