"Smoothing distributions: their settings, laws and draws."
from importlib import import_module as _import_module

_ROOMS = ('additive', 'grid', 'shells', 'rounded')


def __getattr__(name):
    if name in _ROOMS:
        return _import_module(f"{__name__}.{name}")
    for room in () if name.startswith("__") else _ROOMS:
        module = _import_module(f"{__name__}.{room}")
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
