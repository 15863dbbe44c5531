"One digit is changed in a scratch copy of the package: exactly the keys that use it change."
import ast
import os
import re
import shutil
from pathlib import Path

import pytest

from robust_smooth.lab import definitions, notebooks
from robust_smooth.lab.definitions import code_of, reached

PACKAGE = Path(definitions.__file__).resolve().parents[1]
VOTE = "robust_smooth.smoothed:Smoothed.vote"
FIT = "robust_smooth.training.train:fit"
PLAN = "robust_smooth.methods.sequential:plan"


def source_of(name):
    return "\n".join(cell["source"] for cell in notebooks.code_cells(notebooks.find_notebook(name)))


KEYS = {
    "votes gaussian": dict(roots=[VOTE, "robust_smooth.noise.additive:Gaussian"]),
    "votes uniform": dict(roots=[VOTE, "robust_smooth.noise.additive:Uniform"]),
    "votes splitting": dict(roots=[VOTE, "robust_smooth.noise.grid:Splitting"]),
    "votes radial": dict(roots=[VOTE, "robust_smooth.noise.shells:RadialGaussian"]),
    "votes planned": dict(roots=[VOTE, "robust_smooth.noise.additive:Gaussian", PLAN]),
    "network standard": dict(roots=[FIT, "robust_smooth.training.train:Standard", "robust_smooth.training.models:mlp"]),
    "network noise": dict(
        roots=[FIT, "robust_smooth.training.train:NoiseAugmentation", "robust_smooth.noise.additive:Gaussian"]
    ),
    "network adre": dict(roots=[FIT, "robust_smooth.training.adre:ADRE", "robust_smooth.noise.additive:Gaussian"]),
    "run gaussian_table1": dict(source=source_of("gaussian_table1"), registered=True),
    "run bernstein_figure3": dict(source=source_of("bernstein_figure3"), registered=True),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scratch")
    shutil.copytree(PACKAGE, folder / "robust_smooth", ignore=shutil.ignore_patterns("__pycache__", "assets"))
    before = {name: code_of(**ask, folder=folder) for name, ask in KEYS.items()}
    return folder, before


def definition(path, name):
    "First and last line of a top-level definition, or of a method 'Class.method'."
    nodes = ast.parse(path.read_text()).body
    for part in name.split("."):
        node = next(one for one in nodes if getattr(one, "name", "") == part
                    or isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == part)
        nodes = getattr(node, "body", [])
    return node


def room_of(folder, module, name):
    "The room of a wing that defines a name today; the one named first, if it does."
    wing = folder / "robust_smooth" / module.partition(".")[0]
    named = wing / f"{module.partition('.')[2]}.py"
    for path in [named, *sorted(wing.glob("*.py"))]:
        try:
            definition(path, name)
        except (StopIteration, OSError):
            continue
        return f"{wing.name}.{path.stem}"
    raise AssertionError(f"no room of {wing.name} defines {name}")


def changed(copy, module, edit):
    "The keys that differ after an edit of one module, which is undone."
    folder, before = copy
    path = folder / "robust_smooth" / f"{module.replace('.', '/')}.py"
    text = path.read_text()
    new = edit(path, text)
    assert new != text
    path.write_text(new)
    stamp = path.stat().st_mtime_ns + 10**9
    try:
        os.utime(path, ns=(stamp, stamp))
        return {name for name, ask in KEYS.items() if code_of(**ask, folder=folder) != before[name]}
    finally:
        path.write_text(text)
        os.utime(path, ns=(stamp + 10**9, stamp + 10**9))


def one_digit(name):
    "Another value for the last plain number of a definition; where it has none, one more statement."
    def edit(path, text):
        node = definition(path, name)
        lines = text.splitlines(keepends=True)
        numbers = [one for one in ast.walk(node) if isinstance(one, ast.Constant) and type(one.value) in (int, float)
                   and one.lineno == one.end_lineno and not re.search(r"annotation", str(type(one)))]
        if numbers:
            one = max(numbers, key=lambda number: (number.lineno, number.col_offset))
            row = lines[one.lineno - 1].encode()
            lines[one.lineno - 1] = (
                row[: one.col_offset] + str(one.value + 1).encode() + row[one.end_col_offset :]
            ).decode()
        else:
            last = node.body[-1]
            lines.insert(last.end_lineno, f"{' ' * last.col_offset}0 + 1\n")
        return "".join(lines)
    return edit


VOTES = {name for name in KEYS if name.startswith("votes")}
RUN = {"run gaussian_table1"}

CHANGES = [
    ("core.seeds", "chunk_seed", VOTES | RUN),
    ("core.values", "check_level", VOTES | RUN | {"run bernstein_figure3"}),
    ("maths.bounds", "binomial_lower", {"votes planned"} | RUN),
    ("maths.polynomials", "evaluate", {"run bernstein_figure3"}),
    ("noise.additive", "Uniform.sample", {"votes uniform"}),
    ("noise.additive", "Gaussian.sample", {"votes gaussian", "votes planned", "network noise", "network adre"} | RUN),
    ("training.train", "NoiseAugmentation.loss", {"network noise"} | RUN),
    ("training.train", "Standard.loss", {"network standard"}),
    ("training.train", "Cosine.__call__", {"network standard", "network noise", "network adre"} | RUN),
    ("training.adre", "ADRE.loss", {"network adre"}),
    ("training.models", "mlp", {"network standard"}),
    ("maths.looks", "plan", {"votes planned"} | RUN),
    ("methods.gaussian", "certify", RUN),
    ("lab.bernstein_models", "head", set()),
    ("lab.report", "build", set()),
]


@pytest.mark.parametrize("module, name, expected", CHANGES, ids=lambda value: value if isinstance(value, str) else "")
def test_one_digit_changes_exactly_the_keys_that_use_it(copy, module, name, expected):
    module = room_of(copy[0], module, name)
    found = changed(copy, module, one_digit(name))
    loose = {"run gaussian_table1", "run bernstein_figure3"} # a notebook's names may reach methods of other classes
    assert found - loose == expected - loose
    assert expected & loose <= found


def test_what_does_not_compute_changes_no_key(copy):
    def docstring(path, text):
        return text.replace('"""', '"""Another word. ', 1)

    def comment(path, text):
        return text + "\n# a remark\n"

    def plot_method(path, text):
        node = definition(path, "Gaussian")
        lines = text.splitlines(keepends=True)
        lines.insert(node.end_lineno, "\n    def plot_law(self):\n        return 17\n")
        return "".join(lines)

    assert changed(copy, "noise.additive", docstring) == set()
    assert changed(copy, "noise.additive", comment) == set()
    assert changed(copy, "noise.additive", plot_method) == set()


def test_a_new_room_changes_no_key(copy):
    folder, before = copy
    room = folder / "robust_smooth" / "noise" / "laplace.py"
    room.write_text(
        "from ..core.registry import register_noise\n\n@register_noise\nclass Laplace:\n    def sample(self, x): "
        "return x + 5\n\n"
        "def certify(record): return 7\n\nregister(name='laplace', noises=('Laplace',), norms=('l1',), "
        "certify=certify)\n"
    )
    try:
        assert {name for name, ask in KEYS.items() if code_of(**ask, folder=folder) != before[name]} == set()
    finally:
        room.unlink()


def test_a_definition_may_move_house(tmp_path):
    def key(helper, engine, more=""):
        place = tmp_path / f"p{len(list(tmp_path.iterdir()))}" / "robust_smooth"
        place.mkdir(parents=True)
        for name, text in dict(__init__="", helper=helper, engine=engine, other=more).items():
            (place / f"{name}.py").write_text(text)
        return code_of(["robust_smooth.engine:f"], folder=place.parent)
    first = key("def g(x): return x + 1\n", "from .helper import g\ndef f(x): return g(x)\n")
    assert first == key("", "from .other import g\ndef f(x): return g(x)\n", "def g(x): return x + 1\n")
    assert first != key("", "from .other import g\ndef f(x): return g(x)\n", "def g(x): return x + 2\n")


def test_every_wing_is_seen_somewhere():
    rooms = {
        (name.partition(":")[0] + ".").split(".")[1]
        for ask in KEYS.values()
        for name in reached(**ask)
        if name.startswith("robust_smooth")
    }
    assert {"core", "maths", "noise", "training", "voting", "methods", "lab"} <= rooms


def test_code_counts_and_comments_do_not(tmp_path):
    def version(text):
        place = tmp_path / f"p{len(list(tmp_path.iterdir()))}" / "robust_smooth"
        place.mkdir(parents=True)
        (place / "__init__.py").write_text("")
        (place / "extra.py").write_text(text)
        return code_of(["robust_smooth.extra"], folder=place.parent)
    plain = version('def f(x):\n    "Doc."\n    return x + 1\n')
    assert (
        version('# why\ndef f(x):\n    "Another doc."\n    return x + 1  # because\n')
        == plain
        != version("def f(x):\n    return x + 2\n")
    )
