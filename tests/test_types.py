"What editors and type checkers see: the package is typed, a wrong word is reported, and every parameter is explained."
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import robust_smooth as rs

LINES = Path(__file__).parent / "typing"
FLAGS = ("--ignore-missing-imports", "--check-untyped-defs", "--warn-unused-ignores")
# without an error; elsewhere ignores carry a reason
TYPED = ("core", "maths", "noise", "methods", "smoothed.py", "testing.py", "options.py", "cli.py", "__init__.pyi")


@pytest.fixture(scope="module")
def errors(root, tmp_path_factory) -> list[str]:
    "What mypy reports of the package and of the README's lines, in one run: most of its time goes into torch."
    pytest.importorskip("mypy", reason="needs mypy (extra [dev])")
    paths = [
        *(f"robust_smooth/{part}" for part in TYPED),
        str(LINES / "readme_lines.py"),
        str(LINES / "wrong_lines.py"),
    ]
    command = [sys.executable, "-m", "mypy", *FLAGS, "--cache-dir", str(tmp_path_factory.mktemp("mypy")), *paths]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=1200)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def marked(path: Path) -> set[int]:
    "Numbers of the lines that say they are wrong."
    return {
        number for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if "# wrong: " in line
    }


def test_the_package_is_typed(errors):
    own = [line for line in errors if line.startswith(tuple(f"robust_smooth/{part}" for part in TYPED))]
    assert not own, "\n".join(own)


def test_ignores_have_a_reason(root):
    bare = [f"{path.relative_to(root)}:{number}" for path in (root / "robust_smooth").rglob("*.py")
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if "type: ignore" in line and not re.search(r"type: ignore\[[\w, -]+\] +# \S", line)]
    assert not bare, f"say which error is ignored and why: {bare}"


def test_readme_lines_are_right_and_wrong_ones_are_reported(errors):
    wrong = LINES / "wrong_lines.py"
    assert not [line for line in errors if "readme_lines" in line], errors
    found = {int(re.search(r"wrong_lines\.py:(\d+)", line)[1]) for line in errors if "wrong_lines" in line}
    assert found == marked(wrong), (sorted(found ^ marked(wrong)), errors)


def pyright(*arguments: str) -> str:
    "What pyright says; skips where neither it nor npm's runner is there, or the runner cannot fetch it."
    command = ["pyright"] if shutil.which("pyright") else ["npx", "--yes", "pyright"]
    if shutil.which(command[0]) is None:
        pytest.skip("needs pyright, an npm package, and npm is absent")
    done = subprocess.run(
        [*command, "--pythonpath", sys.executable, *arguments], capture_output=True, text=True, timeout=900
    )
    if not re.search(r"\d+ errors?, \d+ warnings?", done.stdout):
        pytest.skip(f"pyright could not be fetched or run: {(done.stderr or done.stdout)[-200:]}")
    return done.stdout


def test_pyright_agrees(root, monkeypatch):
    monkeypatch.chdir(root)
    right, wrong = LINES / "readme_lines.py", LINES / "wrong_lines.py"
    said = pyright(str(right), str(wrong))
    errors = [line for line in said.splitlines() if " - error: " in line]
    assert not [line for line in errors if "readme_lines" in line], errors
    found = {int(re.search(r"wrong_lines\.py:(\d+)", line)[1]) for line in errors if "wrong_lines" in line}
    assert found == marked(wrong), (sorted(found ^ marked(wrong)), errors)


@pytest.mark.parametrize(
    "function",
    [
        rs.Smoothed.vote, rs.Smoothed.estimate, rs.Record.certify, rs.Record.from_counts, rs.wrap,
        rs.check, rs.gaussian.certify, rs.bounds.binomial_lower, rs.testing.check_method,
    ],
    ids=lambda each: each.__qualname__,
)
def test_help_explains_every_parameter(function):
    said = inspect.getdoc(function)
    for name in inspect.signature(function).parameters:
        if name not in ("self", "cls"):
            assert re.search(rf"^ +\**{name}: \S", said, re.M), f"{name} is not explained:\n{said}"


def test_help_of_a_class_explains_its_settings():
    for kind, names in (
        (rs.Gaussian, ("sigma",)),
        (rs.Certificates, ("label", "radius", "alpha_scope")),
        (rs.Record, ("selection", "labels", "domain")),
    ):
        for name in names:
            assert re.search(rf"^ +{name}: \S", inspect.getdoc(kind), re.M), f"{kind.__name__}.{name}"
