"Are these the same? Networks, functions, recipes, optimisers, data: every place in which a difference can hide is seen, nothing else is."
import copy
import enum
import functools
import io
import operator
import random
import re
import subprocess
import sys
import types
from collections import deque
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robust_smooth.noise.additive import Gaussian
from robust_smooth.smoothed import Smoothed
from robust_smooth.training.identity import _Tour, fingerprint, identity, own_generators, settings_of
from robust_smooth.training.models import mlp, seeded, small_convnet, wrap
from robust_smooth.training.recipes import Cosine, crop_flip, NoiseAugmentation, Stability
from robust_smooth.training.unseen import unseen


def closed(value):
    return lambda x: x * value


def nested(value):
    def outer(x):
        def inner(y):
            return y + value
        return inner(x)
    return outer


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Inherits(Slotted):
    __slots__ = ("other",)


class Cached:
    def __init__(self, value):
        self.value = value

    @functools.cached_property
    def square(self):
        return self.value ** 2


class Net(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return x * self.value


def counted_by(value):
    class Counting(type):
        def __len__(cls):
            return value
    return Counting


def class_with(value):
    return type("Made", (), dict(factor=value, __call__=lambda self, x: x * self.factor))


def hooked(value):
    net = nn.Linear(2, 2, bias=False)
    nn.init.ones_(net.weight)
    net.register_forward_hook(lambda module, inputs, output: output * value)
    return net


def inherits(value):
    made = Inherits(1)
    made.other = value
    return made


def filled(value):
    "A layer with nothing but this number for weights."
    net = nn.Linear(2, 2).eval()
    for weight in net.parameters():
        nn.init.constant_(weight, float(value))
    return net


class Scaled(nn.Module):
    scale: float

    def __init__(self, value):
        super().__init__()
        self.net, self.scale = filled(1), float(value)

    def forward(self, x):
        return self.net(x) * self.scale


class Inline(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = float(value)

    def forward(self, x):
        return x + torch.tensor([self.value, 0.0])


def scripted(net):
    return torch.jit.script(net.eval())


def loaded(script):
    file = io.BytesIO()
    torch.jit.save(script, file)
    return torch.jit.load(io.BytesIO(file.getvalue()))


@torch.jit.script
def doubled(x):
    return x * 2


@torch.jit.script
def tripled(x):
    return x * 3


class Hides(nn.Module):
    "A layer that keeps something in a private attribute."

    def __init__(self, value):
        super().__init__()
        self._value, self._calls, self._cache = value, 0, {}

    def forward(self, x):
        return self._scaled(x)

    def _scaled(self, x):
        self._calls += 1
        self._cache[len(x)] = self._calls
        return x * self._value


def layer_with(**attributes):
    return type("Made", (nn.Module,), dict(forward=lambda self, x: x, **attributes))()


def quantised(value):
    "Two classes of a network in 8-bit integers, in this order or the other: its scales are the same."
    layers = nn.Sequential(
        torch.ao.quantization.QuantStub(), nn.Linear(2, 2), torch.ao.quantization.DeQuantStub()
    ).eval()
    with torch.no_grad():
        layers[1].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]])[[value - 1, 2 - value]])
        nn.init.zeros_(layers[1].bias)
    layers.qconfig = torch.ao.quantization.QConfig(
        activation=torch.ao.quantization.MinMaxObserver.with_args(dtype=torch.quint8),
        weight=torch.ao.quantization.default_weight_observer,
    )
    prepared = torch.ao.quantization.prepare(layers)
    prepared(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    return torch.ao.quantization.convert(prepared)


class Listed(list):
    "A list that can do more."

    def __init__(self, value):
        super().__init__([1])
        self.value = value


PLACES = {
    "weights that TorchScript froze": lambda v: torch.jit.freeze(scripted(filled(v))),
    "weights that TorchScript froze, in a file": lambda v: loaded(torch.jit.freeze(scripted(filled(v)))),
    "attribute of a file of TorchScript": lambda v: loaded(scripted(Scaled(v))),
    "attribute of a file of TorchScript, inside": lambda v: nn.Sequential(loaded(scripted(Scaled(v)))),
    "constant of a trace": lambda v: torch.jit.trace(Inline(v), torch.ones(1, 2)),
    "function of TorchScript": lambda v: (None, doubled, tripled)[v],
    "packed weights": quantised,
    "private number": Hides,
    "private tensor": lambda v: Hides(torch.tensor(float(v))),
    "private layers": lambda v: Hides([filled(v)]),
    "in place of a private method": lambda v: _with(seeded(lambda: nn.Conv2d(1, 1, 1)), "_conv_forward", closed(v)),
    "list of a class": lambda v: layer_with(scales=[v]),
    "array of a class": lambda v: layer_with(scales=np.array([v])),
    "dictionary of a class": lambda v: layer_with(settings=dict(scale=v)),
    "layer of a class": lambda v: layer_with(act=filled(v)),
    "none, or a class": lambda v: layer_with(flag=(None, None, 2.0)[v]),
    "compiled function of a class": lambda v: layer_with(act=(None, torch.relu, torch.sigmoid)[v]),
    "property": lambda v: layer_with(scale=property(closed(v))),
    "cached property": lambda v: layer_with(scale=functools.cached_property(closed(v))),
    "partial method": lambda v: layer_with(scale=functools.partialmethod(closed(1), v)),
    "partial of a class": lambda v: layer_with(scale=functools.partial(torch.mul, other=v)),
    "enumeration of a class": lambda v: layer_with(kind=enum.Enum("Kind", "A B")(v)),
    "list that can do more": Listed,
    "table of pandas": lambda v: pd.DataFrame(dict(path=[f"{v}.png"], label=[v])),
    "column of pandas": lambda v: Net(pd.Series([v])),
    "categories of pandas": lambda v: pd.Series(["a", "b"][v - 1:v], dtype="category"),
    "masked array": lambda v: np.ma.array([1, 1], mask=[v == 1, True]),
    "view of a dictionary": lambda v: closed(dict(a=v).values()),
    "bytes in place": lambda v: memoryview(bytes([v])),
    "sparse tensor": lambda v: torch.tensor([0.0, float(v)]).to_sparse(),
    "partial": lambda v: functools.partial(crop_flip, padding=v),
    "partial, by position": lambda v: functools.partial(operator.add, v),
    "closure": closed,
    "closure of a closure": lambda v: closed(closed(v)),
    "nested function": nested,
    "default": lambda v: eval(f"lambda x, value={v}: x"),
    "keyword default": lambda v: eval(f"lambda x, *, value={v}: x"),
    "constant": lambda v: eval(f"lambda x: x + {v}"),
    "tuple constant": lambda v: eval(f"lambda x: (1, {v})"),
    "tuple in a tuple": lambda v: eval(f"lambda x: (1, ({v}, 2))"),
    "set constant": lambda v: eval(f"lambda x: x in {{'a', {v}}}"),
    "attribute of a layer": Net,
    "tensor that is no buffer": lambda v: Net(torch.tensor(float(v))),
    "bound method": lambda v: Net(v).forward,
    "hook": hooked,
    "forward on the instance": lambda v: _with(nn.Flatten(), "forward", closed(v)),
    "class attribute": lambda v: class_with(v)(),
    "class": class_with,
    "slot": Slotted,
    "inherited slot": inherits,
    "itemgetter": operator.itemgetter,
    "regular expression": lambda v: re.compile(str(v)),
    "deque": lambda v: deque([v]),
    "range": range,
    "array": lambda v: np.array([v]),
    "array of objects": lambda v: np.array([Slotted(v), None]),
    "dictionary": lambda v: dict(a=dict(b=[v])),
    "kind of a key": lambda v: Net({1 if v == 1 else "1": 0}),
    "class of a class": lambda v: counted_by(v)("Counted", (), {}),
    "lru_cache": lambda v: functools.lru_cache(closed(v)),
}


def _with(thing, name, value):
    setattr(thing, name, value)
    return thing


@pytest.mark.parametrize("place", PLACES)
def test_a_value_is_seen_wherever_it_hides(place):
    make = PLACES[place]
    assert identity(make(1)) == identity(make(1)) != identity(make(2))


def test_what_is_cached_or_counted_is_not_part_of_an_identity():
    used = Cached(3)
    assert used.square == 9 and identity(used) == identity(Cached(3)) != identity(Cached(4))
    net = seeded(small_convnet).eval()
    before = identity(net)
    net(torch.rand(2, 1, 8, 8))
    assert identity(net) == before == identity(copy.deepcopy(net))


def test_private_state_is_told_from_private_settings():
    "What `forward` writes to, also through other methods, is a counter or a cache; everything else that the class speaks of is a setting."
    used, before = Hides(2.0), identity(Hides(2.0))
    used(torch.ones(3))
    assert used._calls == 1 and used._cache and identity(used) == before != identity(Hides(3.0))
    frame = pd.DataFrame(dict(a=[1, 2]), index=["x", "y"])
    before = identity(Net(frame))
    assert frame.loc["x", "a"] == 1 and identity(Net(frame)) == before, "pandas keeps what it looked up"


def test_votes_of_another_frozen_network_are_not_taken_for_ones_own(tmp_path):
    "A network whose weights are constants of its graph was given the votes of another one, and a certificate of the wrong class."
    x, path = torch.full((1, 2), 0.5), tmp_path / "a.votes"
    nets = [torch.jit.freeze(scripted(seeded(lambda: nn.Linear(2, 2), seed))) for seed in (0, 1)]
    first, second = (Smoothed(wrap(net, num_classes=2), Gaussian(sigma=0.5)) for net in nets)
    settings = dict(n=200, batch_size=100, progress=False)
    kept = first.vote(x, save=path, **settings)
    assert np.array_equal(first.vote(x, save=path, **settings).counts, kept.counts)
    with pytest.raises(ValueError, match="model differs"):
        second.vote(x, save=path, **settings)


def test_a_vote_that_is_kept_warns_where_a_network_cannot_be_seen(tmp_path, monkeypatch, recwarn):
    "Two sessions of a compiled library look alike."
    library = types.ModuleType("compiled_library")
    library.__file__ = str(tmp_path / "site-packages" / "compiled_library.so")
    monkeypatch.setitem(sys.modules, "compiled_library", library)

    def refuse(self, protocol):
        raise TypeError("cannot pickle a session")
    session = type("Session", (), dict(__slots__=(), __module__="compiled_library", __reduce_ex__=refuse))()

    def asked(x):
        return torch.stack([x[:, 0], x[:, 1]], 1) if session else x
    assert (
        unseen(asked) == ["compiled_library.Session@installed"]
        and unseen(closed(1)) == unseen(seeded(small_convnet)) == []
    )
    smooth, settings = Smoothed(asked, Gaussian(sigma=0.5)), dict(n=100, batch_size=50, progress=False)
    smooth.vote(torch.ones(1, 2), **settings)
    assert not [one for one in recwarn if "cannot tell" in str(one.message)]
    with pytest.warns(
        UserWarning, match="cannot tell this network from another of its kind, since what compiled_library.Session"
    ):
        smooth.vote(torch.ones(1, 2), save=tmp_path / "a.votes", **settings)


@pytest.mark.parametrize("name", ["test", "this"])
def test_a_file_that_is_called_as_one_of_the_standard_library_is_ones_own(name, tmp_path):
    code = (
        "import sys; sys.path.insert(0, {folder!r}); import {name}; from robust_smooth.training.identity import "
        "identity; print(identity({name}.Net(2)))"
    )
    seen = []
    for factor in (1, 2, 1):
        folder = tmp_path / str(len(seen))
        folder.mkdir()
        (folder / f"{name}.py").write_text(
            f"class Net:\n    def __init__(self, k): self.k = k\n    def __call__(self, x): return x * {factor}\n"
        )
        seen.append(
            subprocess.run(
                [sys.executable, "-c", code.format(folder=str(folder), name=name)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
    assert seen[0] == seen[2] != seen[1]


def test_circles_end():
    loop = []
    loop.append(loop)
    one, two = Net(1), Net(2)
    one.other, two.other = [two], [one]
    assert identity(loop) == identity(loop) and identity(one) != identity(two)


def test_a_network_without_its_weights_is_an_architecture():
    a, b = (seeded(lambda: mlp(4, 2), seed) for seed in (0, 1))
    assert identity(a) != identity(b) and identity(a, weights=False) == identity(b, weights=False) != identity(
        mlp(4, 3), weights=False
    )


def test_the_identity_is_the_same_in_another_process():
    code = """
import functools, torch
from robust_smooth.training.identity import identity, settings_of
from robust_smooth.training.models import seeded, small_convnet
from robust_smooth.training.recipes import crop_flip
f = lambda x: x in {"a", "b", "c", 1, (2, "d")}
print(identity(seeded(small_convnet)), identity(f), identity({"a", "b", "c"}), settings_of(functools.partial(crop_flip, padding=2)))
"""
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    ours = settings_of(functools.partial(crop_flip, padding=2))
    assert runs[0].split()[0] == identity(seeded(small_convnet)) and runs[0].strip().endswith(ours)


def test_names_carry_no_room():
    text = str(settings_of(NoiseAugmentation(Gaussian(sigma=0.5))))
    assert "training" not in text and "noise.additive" not in text
    moved = type("Linear", (nn.Linear,), dict(__module__="robust_smooth.somewhere.else"))
    again = type("Linear", (nn.Linear,), dict(__module__="robust_smooth.training.networks"))
    nets = [seeded(lambda kind=kind: kind(2, 2)) for kind in (moved, again, nn.Linear)]
    prints = list(map(fingerprint, nets))
    assert prints[0] == prints[1] != prints[2]
    assert identity(nets[0]) == identity(nets[1]) != identity(nets[2])


# -- what a checkpoint says ---------------------------------------------------


def test_settings_are_readable_where_they_are_plain():
    assert settings_of(NoiseAugmentation(Gaussian(sigma=0.5), 2)) == dict(
        name="NoiseAugmentation", noise=dict(name="Gaussian", sigma=0.5), draws=2, label_smoothing=0.0)
    assert settings_of(Stability(Gaussian(sigma=0.5)))["variant"] == "clean_noisy"
    assert settings_of(Cosine(warmup=2)) == dict(name="Cosine", warmup=2)
    assert settings_of(None) is None and settings_of((1, "a")) == [1, "a"]


@pytest.mark.parametrize(
    "place", [place for place in PLACES if place != "list that can do more"]
)  # a list is told entry by entry
def test_settings_see_what_identity_sees(place):
    make = PLACES[place]
    assert settings_of(make(1)) == settings_of(make(1)) != settings_of(make(2))


def recipe_of(code):
    "A recipe of somebody's own: the same fields, another loss."
    names = {}
    exec(f"def loss(self, model, x, y, generator): return {code}", names)
    return dataclass(frozen=True)(
        type("Mine", (), dict(loss=names["loss"], __annotations__=dict(weight=float), weight=1.0))
    )


def test_a_recipe_of_ones_own_counts_with_its_code():
    one, other = (settings_of(recipe_of(code)()) for code in ("model(x).sum()", "model(x).mean()"))
    assert one["name"] == other["name"] == "Mine" and one["weight"] == other["weight"] == 1.0 and one != other
    assert settings_of(recipe_of("model(x).sum()")()) == one


def optimiser(rates=(0.1, 0.1), order=(0, 1), **options):
    layers = seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
    groups = [dict(params=layers[i].parameters(), lr=rate) for i, rate in zip(order, rates)]
    return torch.optim.SGD(groups, lr=1.0, **options)


def test_an_optimiser_counts_with_its_groups():
    base = settings_of(optimiser())
    assert base == settings_of(optimiser()) and base["groups"][0]["lr"] == 0.1
    for other in (optimiser((0.1, 0.2)), optimiser(order=(1, 0)), optimiser(momentum=0.9), optimiser((0.1,), (0,))):
        assert settings_of(other) != base
    assert settings_of(torch.optim.Adam(nn.Linear(2, 2).parameters())) != settings_of(
        torch.optim.AdamW(nn.Linear(2, 2).parameters())
    )


# -- generators ---------------------------------------------------------------

OWN = [torch.Generator(), np.random.default_rng(0), np.random.RandomState(0), random.Random(0)]


@pytest.mark.parametrize("own", OWN, ids=lambda own: type(own).__name__)
def test_own_generators_are_found(own):
    for holder in (
        own, [own], dict(a=own), closed(own), functools.partial(F.relu, own), Slotted(own), Net(own),
        closed(Net([own])),
    ):
        assert own_generators(holder) == [own]
    before = identity(closed(own))
    getattr(own, "random", lambda: torch.rand(1, generator=own))() if not isinstance(
        own, np.random.RandomState
    ) else own.rand()
    assert identity(closed(own)) == before, "the state of a generator is not part of an identity"


def test_global_generators_are_nobodys_own():
    for used in (random.random, random.shuffle, np.random.normal, np.random.rand, torch.rand, torch.default_generator):
        assert own_generators([closed(used), used]) == []


def test_compiled_functions_count_by_their_name():
    "Their type is called after the version of Cython, and belongs to no module in some."
    drawn = (np.random.rand, np.random.normal, np.random.shuffle)
    assert len({identity(closed(used)) for used in drawn}) == 3
    for used in drawn:
        assert _Tour().tell(used)[0] == f"numpy.random.RandomState.{used.__name__}"


# -- whose code counts --------------------------------------------------------

LAM = 1.0


class HasLam:
    def __init__(self, lam):
        self.LAM = lam

    def weight(self):
        return self.LAM


def reads_the_global():
    return LAM


def test_an_attribute_is_no_global_of_the_same_name(monkeypatch):
    before = identity(HasLam.weight), identity(reads_the_global)
    monkeypatch.setitem(globals(), "LAM", 2.0)
    assert identity(HasLam.weight) == before[0] and identity(reads_the_global) != before[1]


def test_installed_packages_count_by_name_and_version():
    import pandas
    import sklearn.base
    assert identity(sklearn.base.clone) == identity(sklearn.base.clone)
    told = identity(sklearn.base.BaseEstimator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sklearn.base.BaseEstimator, "somewhat", lambda self: 1, raising=False)
        assert identity(sklearn.base.BaseEstimator) == told, "its code is not read"
    assert identity(lambda frame: pandas.concat(frame)) == identity(lambda frame: pandas.concat(frame))


def test_a_module_of_ones_own_counts_with_what_is_used_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    prints = []
    for number, code in enumerate(("x + 1", "x + 2", "x + 1")):
        (tmp_path / f"own_room_{number}.py").write_text(f"def step(x): return {code}\ndef unused(x): return {number}\n")
        __import__(f"own_room_{number}")
        module = sys.modules[f"own_room_{number}"]
        module.__name__ = "own_room"
        names = dict(room=module)
        exec("def run(x): return room.step(x)", names)
        prints.append(identity(names["run"]))
    assert prints[0] == prints[2] != prints[1]
