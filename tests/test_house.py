"The house's figures: pages that fit, cells that fit half a screen. What `make export` writes under docstrings is not counted."
import ast
import builtins
import importlib
import json
import re
import statistics
import sys
import warnings

import pytest

MOST_LINES = 550    # of a module
PAGE, WIDEST = 120, 140 # characters of a line
WIDE_SHARE = 0.01   # of lines over a page
HALF_A_SCREEN = 15  # median of an exported cell
LONG, LONG_CELLS = 60, 10 # lines of a long cell, and how many there may be


def paths(root):
    "The modules of the package; generated tables begin with an underscore."
    found = [path for path in sorted((root / "robust_smooth").rglob("*.py")) if not path.name.startswith("_")]
    assert len(found) >= 60, f"only {len(found)} modules were seen"
    return found


def code_cells(root):
    "(notebook, id of the cell) and source of every cell of code."
    for path in (root / "nbs").rglob("*.ipynb"):
        if ".ipynb_checkpoints" in path.parts:
            continue
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                yield (path.stem, cell["id"]), "".join(cell["source"])


def test_no_module_is_long(root):
    sys.path.insert(0, str(root / "docs"))
    try:
        docments = importlib.import_module("docments")
    finally:
        sys.path.pop(0)
    lines = {
        path.name: docments.without_parameters(path.read_text(encoding="utf-8")).splitlines() for path in paths(root)
    }
    long = {name: len(each) for name, each in lines.items() if len(each) > MOST_LINES}
    assert not long, long


def test_lines_fit_a_page(root):
    lines = [
        (path.stem, line)
        for path in paths(root)
        for line in path.read_text(encoding="utf-8").splitlines()
        if not line.startswith("__all__")
    ]
    wide = [(name, len(line)) for name, line in lines if len(line) > PAGE]
    assert not [each for each in wide if each[1] > WIDEST], [each for each in wide if each[1] > WIDEST][:10]
    assert len(wide) <= WIDE_SHARE * len(lines), f"{len(wide)} of {len(lines)} lines are wider than {PAGE}"


def test_cells_of_notebooks_fit_a_page(root):
    "Nobody scrolls sideways to read an experiment or a proof; a directive to the site may not be broken."
    wide = []
    for name, source in code_cells(root):
        lines = source.splitlines()
        if "#| export" in lines:
            continue # what is exported is asked above
        wide += [(*name, line) for line in lines if len(line) > PAGE and not line.startswith("#|")]
    assert not wide, wide[:10]


def signature_lines(source):
    "Numbers of the lines in which a signature explains one parameter each."
    numbers = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.body:
            numbers |= set(range(node.lineno + 1, node.body[0].lineno))
    return numbers


def test_exported_cells_fit_half_a_screen(root):
    sizes = {}
    for name, source in code_cells(root):
        if re.search(r"^#\|\s*export\s*$", source, re.M):
            explained = signature_lines(source)
            sizes[name] = sum(
                bool(line.strip()) and not line.startswith("#|") and number not in explained
                for number, line in enumerate(source.splitlines(), 1)
            )
    assert len(sizes) >= 400, f"only {len(sizes)} exported cells were seen"
    long = {name: size for name, size in sizes.items() if size > LONG}
    assert statistics.median(sizes.values()) <= HALF_A_SCREEN and len(long) <= LONG_CELLS, (
        statistics.median(sizes.values()),
        long,
    )


def test_modules_compile_without_a_warning(root):
    "A backslash in a title is an invalid escape in the module's docstring, and is warned of on every first import."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sorted((root / "robust_smooth").rglob("*.py")):
            compile(path.read_text(encoding="utf-8"), str(path), "exec")


def test_names_in_signatures_are_known(root):
    "`Sequence[int]` in a module that does not import it: nothing fails until a tool or a reader asks what it is."
    unknown = []
    for path in paths(root):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = list(ast.walk(tree))
        bound = set(dir(builtins)) | {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        bound |= {
            (name.asname or name.name).partition(".")[0]
            for node in nodes
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in node.names
        }
        bound |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        said = [getattr(node, field, None) for node in nodes for field in ("annotation", "returns")]
        names = [
            name for part in said if isinstance(part, ast.AST) for name in ast.walk(part) if isinstance(name, ast.Name)
        ]
        unknown += [(path.name, name.lineno, name.id) for name in names if name.id not in bound]
    assert not unknown, unknown


def test_checks_of_errors_are_entered(root):
    "`expect_fail(lambda: ...)` makes a context that nobody enters: the check cannot fail."
    left = []
    for name, source in code_cells(root):
        if "expect_fail" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            called = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
            left += [name] * (isinstance(called, ast.Name) and called.id == "expect_fail")
    assert not left, left
