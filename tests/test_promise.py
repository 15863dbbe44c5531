"""The promise: a new noise with its certificate is one new notebook, and no other file is edited by hand.

A scratch copy of the checkout gets such a notebook (Laplace noise, an l1 certificate); after `make export` it is found by everything."""
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest

CELLS = [
    ("markdown", "# Laplace noise\n> How far, in $\\ell_1$, may an input move under Laplace noise?"),
    ("code", "#| default_exp methods.laplace"),
    (
        "code",
        """#| export
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robust_smooth import core
from robust_smooth.core.certificates import Certificates
from robust_smooth.core.record import Record
from robust_smooth.core.values import ABSTAIN, check_positive
from robust_smooth.maths.bounds import binomial_lower, fewest_draws
from robust_smooth.noise.additive import Additive

if TYPE_CHECKING:
    from torch import Generator, Tensor""",
    ),
    (
        "code",
        """#| export
@core.register_noise
@dataclass(frozen=True, kw_only=True)
class Laplace(Additive):
    "Independent Laplace noise."
    b: float # scale, in input units, > 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "b", check_positive(self.b, "b"))

    def sample(self,
               out: Tensor,          # [m, ...] float: overwritten with m draws
               generator: Generator, # source of randomness
              ) -> Tensor:           # out
        "Fill `out` with the differences of two exponential draws."
        out.exponential_(1.0, generator=generator)
        other = out.clone().exponential_(1.0, generator=generator)
        return out.sub_(other).mul_(self.b)""",
    ),
    (
        "code",
        """#| export
def radius(p_lower: np.ndarray, # lower bounds of the top class's probability
           b: float,            # scale of the noise
          ) -> np.ndarray:      # l1 radius: -b log(2 (1 - p)), 0 where p <= 1/2
    "Certified l1 radius of Laplace noise: the likelihood ratio is at most exp(r / b)."
    return np.maximum(-b * np.log(2 * np.maximum(1 - p_lower, 1e-300)), 0.0) * (1 - 1e-12)

def certify(record: Record,       # votes under Laplace noise
            *,
            norm: str = "l1",     # only "l1"
            alpha: float = 0.001, # failure probability per image, in (0, 1)
           ) -> Certificates:
    "Certify every image of a Record."
    p = binomial_lower(record.hits, record.n, alpha)
    found = radius(p, record.noise.b)
    reason = np.where(found > 0, "", "lower bound of the selected class is not above 1/2")
    witness = dict(hits=record.hits, selected=record.selected, b=np.full(len(record), record.noise.b))
    return Certificates(label=np.where(found > 0, record.selected, ABSTAIN), radius=found, norm=norm, alpha=alpha, method="laplace",
                        p_lower=p, n=record.n, witness=witness, reason=reason)

def check(certificates: Certificates, # as `certify` made them
         ) -> np.ndarray:             # [B] bool
    "Re-prove each radius from its lower limit, which the door has proved from the votes."
    return certificates.radius <= radius(certificates.p_lower, certificates.witness["b"])""",
    ),
    (
        "code",
        """#| export
core.register(name="laplace", noises=("Laplace",), norms=("l1",), certify=certify, check=check, minimum_n=fewest_draws, counts_only=True)""",
    ),
    ("markdown", "Half of the votes certify nothing."),
    ("code", "assert radius(np.array([0.5]), 1.0)[0] == 0"),
]

VOTE = """
import torch, robust_smooth as rs
model = lambda x: torch.stack([0.5 - x.flatten(1)[:, 0], x.flatten(1)[:, 0] - 0.5], 1)
images = torch.full((3, 1, 2, 2), 0.5)
images[:, 0, 0, 0] = torch.tensor([0.0, 0.5, 1.0])
record = rs.Smoothed(model, rs.Laplace(b=0.2)).vote(images, n=2000, progress=False, save="some.votes")
"""
READ = """
import json, sys
import robust_smooth as rs
record = rs.load("some.votes")
assert "robust_smooth.methods.laplace" in sys.modules
table = record.certify("l1")
print(json.dumps(dict(noise=repr(record.noise), method=table.method, radius=table.radius.tolist(), checked=rs.check(table).tolist(), room=rs.laplace.__name__,
                      listed=rs.list_methods("Laplace")["method"].tolist(), names=[n for n in ("Laplace", "laplace") if n in dir(rs)])))
"""
PROPERTIES = """
import robust_smooth as rs
held = rs.testing.check_method("laplace", n=1000, rows=5)
assert held.to_numpy().sum() >= 10, held
"""


@pytest.fixture(scope="module")
def scratch(root, tmp_path_factory):
    "A copy of what a checkout tracks, with one notebook more, exported."
    copy = tmp_path_factory.mktemp("promise") / "checkout"
    for name in (
        "settings.ini", "pyproject.toml", "Makefile", "README.md", "robust_smooth", "docs", "nbs",
        "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE",
    ):
        if (root / name).is_dir():
            shutil.copytree(
                root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            )
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy2(root / name, copy / name)
    for name in ("data", "figures", "index_files"):
        (copy / name).symlink_to(root / name)
    book = nbformat.v4.new_notebook(
        metadata=dict(kernelspec=dict(display_name="python3", language="python", name="python3"))
    )
    make = dict(markdown=nbformat.v4.new_markdown_cell, code=nbformat.v4.new_code_cell)
    book.cells = [make[kind](source) for kind, source in CELLS]
    nbformat.write(book, copy / "nbs" / "methods" / "40_laplace.ipynb")
    before = contents(copy)
    export = "from nbdev.export import nb_export; nb_export('nbs/methods/40_laplace.ipynb', 'robust_smooth')"
    run(copy, "-c", export) # of `nbdev_export` the part that concerns the new notebook
    run(copy, "docs/export.py")
    return SimpleNamespace(path=copy, before=before)


def contents(copy):
    "Name -> bytes of the files of a folder, links and caches aside."
    files = [path for path in copy.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    names = {path: path.relative_to(copy) for path in files}
    return {
        name.as_posix(): path.read_bytes()
        for path, name in names.items()
        if name.parts[0] not in ("data", "figures", "index_files", "home")
    }


def run(copy, *command):
    "The output of a Python command in the copy."
    environment = {**os.environ, "PYTHONPATH": str(copy), "ROBUST_SMOOTH_HOME": str(copy / "home")}
    done = subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_a_votes_file_is_read_certified_and_checked_in_a_new_process(scratch):
    run(scratch.path, "-W", "ignore", "-c", VOTE)
    told = json.loads(run(scratch.path, "-c", READ).splitlines()[-1])
    assert told["noise"] == "Laplace(b=0.2)" and told["method"] == "laplace" and told["listed"] == ["laplace"]
    assert (
        0 < told["radius"][0] <= 0.5
        and told["radius"][1] == 0
        and 0 < told["radius"][2] <= 0.5
        and all(told["checked"])
    )
    assert told["room"] == "robust_smooth.methods.laplace" and told["names"] == ["Laplace", "laplace"]


def test_the_command_line_finds_it(scratch):
    run(scratch.path, "-W", "ignore", "-c", VOTE)
    said = run(
        scratch.path, "-W", "ignore", "-m", "robust_smooth.cli", "certify", "--votes", "some.votes", "--norm", "l1"
    )
    assert "laplace" in said


def test_the_property_table_holds_for_it(scratch):
    run(scratch.path, "-W", "ignore", "-c", PROPERTIES)


def test_the_site_and_editors_know_it(scratch):
    stub = (scratch.path / "robust_smooth" / "__init__.pyi").read_text(encoding="utf-8")
    assert (
        "from .methods.laplace import Laplace as Laplace" in stub and "from .methods import laplace as laplace" in stub
    )
    listed = run(
        scratch.path,
        "-c",
        "import sys; sys.path.insert(0, 'docs'); import build; print(build.sources()); "
        "print((build.SITE / 'index.ipynb').read_text())",
    )
    assert "methods/40_laplace" in listed
    assert "(methods/40_laplace.ipynb)" in (scratch.path / "_proc" / "site" / "map.md").read_text(encoding="utf-8")
    page = (scratch.path / "_proc" / "site" / "api" / "methods.laplace.md").read_text(encoding="utf-8")
    assert "{py:function} radius" in page and "scale of the noise" in page
    module = (scratch.path / "robust_smooth" / "methods" / "laplace.py").read_text(encoding="utf-8")
    assert (
        "Args:\n        p_lower: lower bounds of the top class's probability\n        b: scale of the noise" in module
    )


def test_no_other_file_was_edited_by_hand(scratch):
    "What the export changed or wrote is what it writes always: modules, table, stubs."
    after = contents(scratch.path)
    changed = {name for name in after if after[name] != scratch.before.get(name)} - {
        name for name in after if name.startswith("_proc/") or name.endswith(".votes")
    }
    written = {
        "robust_smooth/methods/laplace.py",
        "robust_smooth/core/_table.py",
        "robust_smooth/__init__.pyi",
        "robust_smooth/_modidx.py",
    }
    assert changed <= written and "robust_smooth/methods/laplace.py" in changed, changed
