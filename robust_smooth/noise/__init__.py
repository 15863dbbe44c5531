"Smoothing distributions: their settings, laws and draws."
from importlib import import_module as _import_module

from ..core._table import FACES as _FACES

_HOMES = _FACES["noise"]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = _import_module(f"{__name__}.{_HOMES[name]}")
    return room if name == _HOMES[name] else getattr(room, name)


def __dir__():
    return sorted(_HOMES)
