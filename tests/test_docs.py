"The site builds with warnings as errors, and every internal link of it leads somewhere."
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

NEEDED = ("sphinx", "myst_nb", "furo", "sphinx-mathjax-offline")


@pytest.fixture
def build(root):
    for module in NEEDED: pytest.importorskip(module, reason=f"needs {module} (extra [docs])")
    sys.path.insert(0, str(root / "docs"))
    try: yield importlib.import_module("build")
    finally: sys.path.pop(0)


def test_site(root, build, tmp_path):
    done = subprocess.run([sys.executable, "docs/build.py", str(tmp_path / "site")], cwd=root, capture_output=True, text=True, timeout=900,
                          env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    site = tmp_path / "site"
    for path in (root / "nbs").rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in path.parts: assert (site / path.relative_to(root / "nbs").with_suffix(".html")).is_file(), path.name
    for path in (root / "robust_smooth").rglob("[a-z]*.py"): assert (site / "api" / f"{build.module_name(path)}.html").is_file(), path
    for path in (root / "data" / "papers").glob("*.csv"): assert (site / "tables" / f"{path.stem}.html").is_file(), path.name
    reference = (site / "api" / "methods.gaussian.html").read_text(encoding="utf-8")
    assert 'id="robust_smooth.methods.gaussian.radius"' in reference and "p_lower" in reference
    outside = [line for page in site.glob("*.html") for line in page.read_text(encoding="utf-8").splitlines() if "<script" in line and "src=\"http" in line]
    assert not outside, outside[:3] # the site needs no network


def test_broken_links_are_found(build, tmp_path):
    (tmp_path / "a.html").write_text('<p id="x"></p><a href="b.html#y">1</a><a href="#x">2</a><a href="b.html#z">3</a><img src="gone.png"><a href="https://example.org/">4</a>')
    (tmp_path / "b.html").write_text('<p id="y"></p><a href="a.html">1</a>')
    assert build.broken_links(tmp_path) == ["a.html -> b.html#z", "a.html -> gone.png"]


def test_reference_reads_signatures_and_comments(build, tmp_path, monkeypatch):
    module = tmp_path / "some.py"
    module.write_text('"What is this?"\n__all__ = ["double", "Pair"]\n\ndef double(x: float, # a number | any\n           *, times: int = 2, # how often\n          ) -> float: # the result\n'
                      '    "Twice `x`, or more_than that."\n    return x * times\n\nclass Pair:\n    "Two."\n    left: int = 1 # the first\n\n    @property\n    def sum(self) -> int: "Both."; return 2\n')
    monkeypatch.setattr(build, "PACKAGE", tmp_path)
    page = build.module_page(module, "")
    assert "{py:function} double(x, *, times=2)" in page and "| `x` | `float` |  | a number \\| any |" in page and "| `times` | `int` | `2` | how often |" in page
    assert "| `returns` | `float` |  | the result |" in page and "Twice `x`, or more\\_than that." in page
    assert "{py:class} Pair" in page and "| `left` | `int` | `1` | the first |" in page and "{py:property} sum" in page
