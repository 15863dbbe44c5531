"""What nobody should keep by hand, written from the modules as they stand, which are read and never imported.

    python docs/export.py            after nbdev_export: `make export` does both
    python docs/export.py FOLDER     in another checkout

It writes the registry's table (core/_table.py), the type stubs of the faces (__init__.pyi), and under each public docstring the parameters from the
comments of its signature. Run twice, it changes nothing.
"""
import ast
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from pprint import pformat
from typing import Any

from docments import with_parameters

ROOT = Path(__file__).resolve().parents[1]
NAME = "robust_smooth"
FRONT = { # home -> the names that `rs.` brings; registered noises come by themselves
    "core.values": ("ABSTAIN",),
    "core.certificates": ("Certificates",),
    "core.record": ("Record",),
    "core.checks": ("check",),
    "core.registry": ("list_methods",),
    "training.models": ("wrap",),
    "methods.draws": ("draws_needed", "typical_radius"),
    "smoothed": ("Smoothed",),
    "lab.reproduce": ("sweep",),
}
OPEN_WINGS = ("maths", "training", "voting", "methods", "lab") # whose rooms are `rs.ROOM`
FACES = ("core", "noise")                                     # wings that show the names of their rooms
ENROL = ("register", "register_check", "register_noise")


class Unreadable(ValueError):
    "A value that only running the module would tell."


class Module:
    "A module, read: its imports, its constants, its registrations."

    def __init__(self, path: Path, package: Path):
        self.path = path
        self.name = ".".join(path.relative_to(package).with_suffix("").parts)
        self.tree = ast.parse(path.read_text(encoding="utf-8"))

    def _absolute(self, node: ast.ImportFrom) -> str:
        "The module that a `from ... import` names, from the package on."
        here = [NAME, *self.name.split(".")[:-1]]
        base = here[:len(here) - node.level + 1] if node.level else []
        return ".".join([*base, *([node.module] if node.module else [])])

    @cached_property
    def imports(self) -> dict[str, str]:
        "Local name -> dotted name of what it is."
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.split(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            if isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                found |= {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}
        return found

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        "Names that the module gives a value, once."
        given: dict[str, list[ast.expr]] = {}
        for node in self.tree.body:
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            for target in targets:
                if isinstance(target, ast.Name) and node.value is not None:
                    given.setdefault(target.id, []).append(node.value)
        return {name: values[0] for name, values in given.items() if len(values) == 1}

    @cached_property
    def public(self) -> list[str]:
        "The names in __all__."
        value = self.constants.get("__all__")
        return [part.value for part in ast.walk(value) if isinstance(part, ast.Constant)] if value is not None else []

    def dotted(self, node: ast.AST) -> str:
        "The dotted name that an expression such as `core.register` stands for, '' where it is none."
        if isinstance(node, ast.Name):
            return self.imports.get(node.id, "")
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return f"{base}.{node.attr}" if base else ""
        return ""

    def enrols(self, node: ast.AST) -> str:
        "'register', 'register_check' or 'register_noise' where an expression is that function of the registry, else ''."
        base, _, last = self.dotted(node).rpartition(".")
        return last if last in ENROL and base in (f"{NAME}.core", f"{NAME}.core.registry") else ""


class House:
    "All modules of the package."

    def __init__(self, root: Path):
        self.package = root / NAME
        paths = sorted(path for path in self.package.rglob("*.py") if not path.name.startswith("_"))
        self.modules = {module.name: module for module in (Module(path, self.package) for path in paths)}

    def value(self, module: Module, node: ast.expr) -> Any:
        "What an expression of literals and constants is worth. Raises Unreadable for anything else."
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            return tuple(self._items(module, node.elts))
        if isinstance(node, ast.Dict):
            keys = [None if key is None else self.value(module, key) for key in node.keys]
            return dict(zip(keys, [self.value(module, each) for each in node.values]))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
            return {each.arg: self.value(module, each.value) for each in node.keywords}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.value(module, node.left) + self.value(module, node.right)
        if isinstance(node, ast.Name):
            return self._constant(module, node.id)
        raise Unreadable(ast.unparse(node))

    def _items(self, module: Module, nodes: list[ast.expr]) -> Iterator[Any]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                yield from self.value(module, node.value)
            else:
                yield self.value(module, node)

    def _constant(self, module: Module, name: str) -> Any:
        if name in module.constants:
            return self.value(module, module.constants[name])
        home, _, origin = module.imports.get(name, "").removeprefix(f"{NAME}.").rpartition(".")
        if home in self.modules:
            return self._constant(self.modules[home], origin)
        raise Unreadable(name)


# ---- who registers what ----

class Table:
    "What the modules register, as far as it can be read."

    def __init__(self, house: House):
        self.house = house
        self.methods: dict[str, tuple[str, tuple | None, tuple]] = {}
        self.checks: dict[str, str] = {}
        self.noises: dict[str, str] = {}
        self.unread: list[str] = []
        for module in house.modules.values():
            if module.name != "core.registry":
                self._read(module)

    def _read(self, module: Module) -> None:
        "Note the registrations of a module; it is among the unread where one of them cannot be read."
        seen = 0
        for node in ast.walk(module.tree):
            try:
                seen += self._note(module, node)
            except Unreadable:
                continue
        mentioned = sum(
            bool(module.enrols(node)) for node in ast.walk(module.tree) if isinstance(node, (ast.Name, ast.Attribute))
        )
        if mentioned > seen:
            self.unread.append(module.name)

    def _note(self, module: Module, node: ast.AST) -> int:
        "How many registrations a node of the tree makes; they are noted."
        if isinstance(node, ast.ClassDef):
            marks = [mark for mark in node.decorator_list if module.enrols(mark) == "register_noise"]
            if marks:
                self._put(self.noises, node.name, module.name)
            return len(marks)
        kind = module.enrols(node.func) if isinstance(node, ast.Call) else ""
        if kind == "register_noise":
            return self._note_noise(module, node)
        if kind:
            given = {each.arg: each.value for each in node.keywords}
            first = given.get("name", node.args[0] if node.args and kind == "register_check" else None)
            if first is None or None in given:
                raise Unreadable(kind)
            self._note_method(module, kind, self.house.value(module, first), given)
            return 1
        return 0

    def _note_noise(self, module: Module, node: ast.Call) -> int:
        if len(node.args) != 1 or not isinstance(node.args[0], ast.Name):
            raise Unreadable("register_noise")
        self._put(self.noises, node.args[0].id, module.name)
        return 1

    def _note_method(self, module: Module, kind: str, name: str, given: dict[str, ast.expr]) -> None:
        if kind == "register":
            self._put(self.methods, name, (module.name, self._pairs(module, given), self._needs(module, given)))
        check = given.get("check")
        if kind == "register_check" or (
            check is not None and not (isinstance(check, ast.Constant) and check.value is None)
        ):
            self._put(self.checks, name, module.name)

    def _pairs(self, module: Module, given: dict[str, ast.expr]) -> tuple | None:
        "(noise, norm) pairs of a registration, None where they cannot be read."
        try:
            value = {
                key: self.house.value(module, given[key]) for key in ("noises", "norms", "certifies") if key in given
            }
        except Unreadable:
            return None
        wanted = {noise: value.get("norms", ()) for noise in value.get("noises", ())} | dict(
            value.get("certifies") or {}
        )
        return tuple(sorted((noise, norm) for noise, norms in wanted.items() for norm in norms))

    def _needs(self, module: Module, given: dict[str, ast.expr]) -> tuple:
        "What votes must hold for a method, () where it cannot be read: then it is asked itself."
        try:
            return tuple(self.house.value(module, given["needs"])) if "needs" in given else ()
        except Unreadable:
            return ()

    @staticmethod
    def _put(table: dict, name: str, value: Any) -> None:
        if name in table and table[name] != value:
            raise SystemExit(f"{name!r} is registered twice: {table[name]} and {value}")
        table[name] = value


# ---- the faces ----

def front(house: House, table: Table) -> dict[str, str]:
    "Name -> room, of the names that `rs.` brings."
    names = {name: room for room, each in FRONT.items() for name in each}
    names |= {name: room for name, room in table.noises.items() if not name.startswith("_")}
    for name, room in names.items():
        if room in house.modules and name not in house.modules[room].public:
            raise SystemExit(f"the front brings {name!r} from {room}, which has no such name")
    return {name: room for name, room in names.items() if room in house.modules}


def rooms(house: House) -> dict[str, str]:
    "Name -> module, of the rooms that `rs.` leads to."
    found = {name: name for name in ("core", "noise")} | {name: name for name in house.modules if "." not in name}
    for wing in OPEN_WINGS:
        for name in house.modules:
            if name.startswith(f"{wing}."):
                found.setdefault(name.rpartition(".")[2], name)
    return found


def faces(house: House, wing: str) -> dict[str, str]:
    "Name -> room, of all names that a wing shows; where two rooms have one, the first of the alphabet."
    found: dict[str, str] = {}
    for module in house.modules.values():
        if module.name.startswith(f"{wing}."):
            room = module.name.rpartition(".")[2]
            found[room] = room
            for name in module.public:
                found.setdefault(name, room)
    return found


def table_text(house: House, table: Table) -> str:
    "core/_table.py."
    parts = {
        "METHODS: dict[str, tuple[str, tuple[tuple[str, str], ...] | None, tuple[str, ...]]]": (
            table.methods,
            "name -> module, (noise, norm) pairs or None where they cannot be read, and what votes must hold",
        ),
        "CHECKS: dict[str, str]": (table.checks, "what certificates call their method -> module that re-proves them"),
        "NOISES: dict[str, str]": (table.noises, "class name -> module"),
        "UNREAD: tuple[str, ...]": (tuple(table.unread), "modules whose registrations could not be read"),
        "NAMES: dict[str, str]": (front(house, table), "name of the front -> module"),
        "ROOMS: dict[str, str]": (rooms(house), "name of the front -> module that it is"),
        "FACES: dict[str, dict[str, str]]": (
            {wing: faces(house, wing) for wing in FACES},
            "wing -> name that it shows -> room",
        ),
    }
    lines = ['"Who registers what, and where the names of the front are at home; written by `make export`."', ""]
    for head, (value, meaning) in parts.items():
        lines += [f"# {meaning}", f"{head} = {_laid_out(value)}", ""]
    return "\n".join(lines)


def _laid_out(value: Any) -> str:
    "A table with one entry a line; what is longer than a line is broken."
    if not value or not isinstance(value, (dict, tuple)):
        return repr(value)
    if isinstance(value, tuple):
        return "\n".join(["(", *(f"    {each!r}," for each in value), ")"])
    lines = ["{"]
    for name in sorted(value):
        text = pformat(value[name], width=96).splitlines()
        lines += [f"    {name!r}: {text[0]}", *(f"        {line}" for line in text[1:])]
        lines[-1] += ","
    return "\n".join([*lines, "}"])


def _import(path: str, name: str) -> str:
    wing, _, room = path.rpartition(".")
    return f"from .{wing} import {room} as {name}"


def front_stub(house: House, table: Table) -> str:
    "__init__.pyi of the package."
    names, places = front(house, table), rooms(house)
    lines = [
        "# Written by `make export`: what `import robust_smooth as rs` brings, for editors and type checkers.",
        "from pathlib import Path",
        "",
    ]
    lines += [_import(path, name) for name, path in sorted(places.items())]
    lines += [f"from .{room} import {name} as {name}" for name, room in sorted(names.items())]
    lines += ["", "__version__: str", "__all__: list[str]", "", "def load(path: str | Path) -> Record: ...", ""]
    return "\n".join(lines)


def wing_stub(house: House, wing: str) -> str:
    "__init__.pyi of a wing that shows the names of its rooms."
    lines = [f"# Written by `make export`: what `rs.{wing}` brings, for editors and type checkers."]
    for name, room in sorted(faces(house, wing).items()):
        lines.append(f"from . import {room} as {room}" if name == room else f"from .{room} import {name} as {name}")
    return "\n".join(lines) + "\n"


# ---- the whole ----

def put(path: Path, text: str) -> None:
    "Write a file where it is not yet as it should be."
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or any(each.startswith("-") for each in arguments):
        print(__doc__)
        return 0 if arguments == ["--help"] else 2
    root = Path(arguments[0]).resolve() if arguments else ROOT
    house = House(root)
    for module in house.modules.values():
        source = module.path.read_text(encoding="utf-8")
        put(module.path, with_parameters(source))
    table = Table(house)
    put(house.package / "core" / "_table.py", table_text(house, table))
    put(house.package / "__init__.pyi", front_stub(house, table))
    for wing in FACES:
        put(house.package / wing / "__init__.pyi", wing_stub(house, wing))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
