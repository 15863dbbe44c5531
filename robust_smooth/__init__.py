"Certified adversarial robustness by smoothing: the front door. Rooms are imported by name, e.g. `rs.bernstein`."
__version__ = "0.2.0"

from importlib import import_module as _import_module

from .core._table import NAMES as _NAMES, ROOMS as _ROOMS

__all__ = [*_NAMES, "load", "reproduce"]


def load(path):
    """Read a Record or Certificates that a vote or `save` wrote, told apart by the first line; nothing in it can run.

    Typed as a Record: `Certificates.load` is typed as the other.
    """
    if _import_module("robust_smooth.core.certificate_file").holds_certificates(path):
        return _import_module("robust_smooth.core.certificates").Certificates.load(path)
    return _import_module("robust_smooth.core.record").Record.load(path)


def __getattr__(name):
    if name in _NAMES:
        return getattr(_import_module(f"robust_smooth.{_NAMES[name]}"), name)
    if name in _ROOMS:
        return _import_module(f"robust_smooth.{_ROOMS[name]}")
    from difflib import get_close_matches
    near = [] if name.startswith("_") else get_close_matches(name, __dir__(), 1)
    raise AttributeError(f"module 'robust_smooth' has no attribute {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))


def __dir__():
    return sorted({*__all__, *_ROOMS, "__version__"})
