"Certified adversarial robustness by smoothing: the front door. Method modules are imported by name, e.g. `robust_smooth.bernstein`."
__version__ = "0.1.0"

from importlib import import_module as _import_module

_HOMES = {
    "core": ("ABSTAIN", "Certificates", "Record"),
    "models": ("wrap",),
    "noise": ("Gaussian", "RoundedGaussian", "Uniform", "RadialGaussian", "MixedNormGaussian", "LinfGaussian", "Splitting"),
    "smoothed": ("Smoothed", "check"),
    "reproduce": ("sweep",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = ("adre", "attacks", "bernstein", "bounds", "core", "data", "figures", "gaussian", "higher_order", "models", "noise", "papers", "report", "reproduce",
            "results", "sequential", "smoothadv", "smoothed", "soap_bubbles", "splitting", "tcertify", "train", "uniform", "votes")

__all__ = [*_HOME, "load", "reproduce"]


def load(path):
    "Read a Record that a vote or `Record.save` wrote; nothing in the file can execute code."
    return _import_module("robust_smooth.core").Record.load(path)


def __getattr__(name):
    if name in _HOME: return getattr(_import_module(f"robust_smooth.{_HOME[name]}"), name)
    if name in _MODULES: return _import_module(f"robust_smooth.{name}")
    raise AttributeError(f"module 'robust_smooth' has no attribute {name!r}")


def __dir__():
    return sorted({*__all__, *_MODULES, "__version__"})
