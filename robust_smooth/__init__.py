"Certified adversarial robustness by smoothing: the front door. Rooms are imported by name, e.g. `rs.bernstein`."
__version__ = "0.1.0"

from importlib import import_module as _import_module

_HOMES = {
    "core.values": ("ABSTAIN",),
    "core.certificates": ("Certificates",),
    "core.record": ("Record",),
    "training.models": ("wrap",),
    "noise.additive": ("Gaussian", "Uniform"),
    "noise.grid": ("Splitting",),
    "noise.rounded": ("RoundedGaussian", "RoundedUniform"),
    "noise.shells": ("RadialGaussian", "MixedNormGaussian", "LinfGaussian"),
    "smoothed": ("Smoothed", "check"),
    "lab.reproduce": ("sweep",),
}
_ROOMS = {
    "maths": ("bounds",),
    "training": ("adre", "attacks", "data", "identity", "lipschitz", "models", "smoothadv", "speed", "train", "zoo"),
    "voting": ("votes",),
    "methods": ("bernstein", "gaussian", "higher_order", "sequential", "soap_bubbles", "splitting", "tcertify", "uniform"),
    "lab": ("figures", "papers", "report", "reproduce", "results"),
}
_NAME = {name: room for room, names in _HOMES.items() for name in names}
_ROOM = {room: f"{wing}.{room}" for wing, rooms in _ROOMS.items() for room in rooms}
_ROOM |= {name: name for name in ("core", "noise", "smoothed")}

__all__ = [*_NAME, "load", "reproduce"]


def load(path):
    "Read a Record that a vote or `Record.save` wrote; nothing in the file can execute code."
    return _import_module("robust_smooth.core.record").Record.load(path)


def __getattr__(name):
    if name in _NAME:
        return getattr(_import_module(f"robust_smooth.{_NAME[name]}"), name)
    if name in _ROOM:
        return _import_module(f"robust_smooth.{_ROOM[name]}")
    raise AttributeError(f"module 'robust_smooth' has no attribute {name!r}")


def __dir__():
    return sorted({*__all__, *_ROOM, "__version__"})
