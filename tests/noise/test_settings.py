"Settings of a smoothing distribution go by name: what is said where they do not, and that nothing else of the class changes."
import copy
import dataclasses
import inspect
import pickle

import pytest

import robust_smooth as rs
from robust_smooth.core.registry import load_noises, register_noise
from robust_smooth.noise.additive import Noise
from robust_smooth.training.identity import identity

SETTINGS = dict(sigma=0.5, lam=0.25, q=255, n_splits=27, k=3, seed=1, shifts=None)
NOISES = sorted(name for name, kind in load_noises().items() if kind.__module__.startswith("robust_smooth."))


def settings_of(kind: type) -> dict:
    return {name: SETTINGS[name] for name in inspect.signature(kind).parameters}


@pytest.mark.parametrize("name", NOISES)
def test_a_setting_without_its_name_is_refused_with_the_line_to_write(name):
    kind = getattr(rs, name)
    given = settings_of(kind)
    with pytest.raises(TypeError, match="by name: write") as refused:
        kind(*given.values())
    line = str(refused.value).partition("write ")[2]
    assert eval(line, {name: kind}) == kind(**given)       # what is advised works, and means what was meant
    first = next(iter(given))
    with pytest.raises(TypeError, match=f"{name}\\({first}={given[first]}"):
        kind(given[first])


def test_what_is_still_needed_is_named():
    with pytest.raises(TypeError, match=r"RadialGaussian\(sigma=0.5, k=\.\.\.\)"):
        rs.RadialGaussian(0.5)
    with pytest.raises(TypeError, match=r"RadialGaussian\(k=3, sigma=0.5\)"):
        rs.RadialGaussian(3, sigma=0.5)


@pytest.mark.parametrize("name", NOISES)
def test_a_noise_is_the_dataclass_that_it_was(name):
    kind = getattr(rs, name)
    one, other = kind(**settings_of(kind)), kind(**settings_of(kind))
    assert one == other and hash(one) == hash(other) and repr(one).startswith(f"{name}(") and isinstance(one, Noise)
    for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), dataclasses.replace(one)):
        assert again == one and type(again) is kind
    parameters = inspect.signature(kind).parameters.values()
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in parameters)
    assert [each.name for each in parameters] == [part.name for part in dataclasses.fields(kind) if part.init]
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.seed = 3


def test_a_noise_of_ones_own_keeps_its_code_and_so_its_identity():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Own(rs.Gaussian):
        width: float = 1.0

    make, known = Own.__init__, identity(Own)
    try:
        register_noise(Own)
    finally:
        load_noises().pop("Own", None)
    assert Own.__init__ is make and identity(Own) == known
    assert Own(sigma=0.5, width=2.0).width == 2.0

    class Plain(rs.Gaussian):
        def __init__(self, sigma): super().__init__(sigma=sigma)
    assert Plain(0.5).sigma == 0.5
