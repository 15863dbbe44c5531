"What all wings share: values, hashes, places, seeds, files, certificates, records, the registry."
from importlib import import_module as _import_module

from ._table import FACES as _FACES


def _face(package):
    "`__getattr__` and `__dir__` of a wing that shows the names of its rooms, loaded when they are asked for."
    homes = _FACES[package.rpartition(".")[2]]

    def get(name):
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        room = _import_module(f"{package}.{homes[name]}")
        return room if name == homes[name] else getattr(room, name)

    return get, lambda: sorted(homes)


__getattr__, __dir__ = _face(__name__)
