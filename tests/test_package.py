"The package: an sdist that can build the wheel, a wheel that works in an environment of its own, outside the checkout, with all that it promises."
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path
from types import SimpleNamespace

import pytest

QUIET = dict(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", OMP_NUM_THREADS="1")


def call(*command, cwd: Path, **env: str) -> str:
    "The output of a command; fails with what it said."
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ROBUST_SMOOTH", "PIP_"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env={**clean, **QUIET, **env}, capture_output=True, text=True, timeout=300,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def settings(root):
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(root / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


@pytest.fixture(scope="module")
def package(root, tmp_path_factory):
    "An sdist of a copy of the checkout, the wheel built from that sdist, and both installed nowhere yet."
    folder = tmp_path_factory.mktemp("package")
    copy = folder / "checkout"
    if (root / ".git").exists():
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root, capture_output=True, text=True, check=True,
        ).stdout.split("\0")
        names = [name for name in names if name and (root / name).is_file()]
    else: names = [p.relative_to(root).as_posix() for top in ("*", "robust_smooth/**/*", "data/papers/*", "nbs/experiments/*") for p in root.glob(top) if p.is_file()]
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, copy / name)
    call(sys.executable, "-c", f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})", cwd=copy)
    sdist, = folder.glob("*.tar.gz")
    shutil.rmtree(copy)
    call(
        sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w",
        folder, sdist, cwd=folder,
    )
    wheel, = folder.glob("*.whl")
    return SimpleNamespace(folder=folder, sdist=sdist, wheel=wheel)


@pytest.fixture(scope="module")
def installed(package):
    "The wheel in a new environment, beside the dependencies that are here; commands run in an empty folder."
    venv, empty = package.folder / "venv", package.folder / "elsewhere"
    empty.mkdir()
    call(sys.executable, "-m", "venv", "--without-pip", venv, cwd=empty)
    python = venv / ("Scripts" if os.name == "nt" else "bin") / "python"
    own = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=empty).strip())
    (own / "dependencies.pth").write_text(
        "\n".join(dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])) + "\n"
    )  # a plain path: an editable install there stays asleep
    call(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index",
        "--quiet", "--ignore-installed", package.wheel, cwd=empty,
    )
    return SimpleNamespace(
        python=python, site=own, empty=empty, script=python.parent / "robust-smooth", home=package.folder / "home"
    )


def stays(name):
    "Whether a file of the zoo is found in a checkout only: twins, and networks that have seen no noise."
    return "-int8." in name or "-clean." in name


def test_sdist_and_wheel_hold_what_they_promise(package, settings, root):
    with tarfile.open(package.sdist) as archive: inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE", "constraints.txt",
        "robust_smooth/py.typed",
    } <= inside
    with zipfile.ZipFile(package.wheel) as archive:
        names = set(archive.namelist())
        meta = Parser().parsestr(archive.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode())
        entry = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"robust_smooth"}, top
    assert {p.relative_to(root).as_posix() for p in (root / "robust_smooth").rglob("*.py")} | {
        "robust_smooth/py.typed"
    } <= names
    for kind, files in dict(
        papers="data/papers/*.csv", experiments="nbs/experiments/*.ipynb", zoo="data/zoo/*.*"
    ).items():
        wanted = {f"robust_smooth/assets/{kind}/{p.name}" for p in root.glob(files) if not stays(p.name)}
        assert wanted and wanted <= names, sorted(wanted - names)
    assert (
        meta["Version"] == settings["version"]
        and meta["License-Expression" if meta["License-Expression"] else "License"] == "Apache-2.0"
    )
    extras = {name.removesuffix("_requirements") for name in settings if name.endswith("_requirements")}
    assert set(meta.get_all("Provides-Extra")) == extras >= {"repro", "cluster", "docs", "dev"}
    wanted = {part.split(">")[0].split("=")[0].split("<")[0].lower() for part in settings["requirements"].split()}
    plain = {
        line.split(";")[0].strip().split(">")[0].split("=")[0].split("<")[0].lower()
        for line in meta.get_all("Requires-Dist")
        if "extra ==" not in line
    }
    assert plain == wanted
    assert not plain & {"nbdev", "jupyterlab", "papermill", "ipykernel", "pytest"}, "the core carries no notebook stack"
    assert "robust-smooth=robust_smooth.cli:main" in entry.replace(" ", "")
    carried = [name for name in names if name.startswith("robust_smooth/assets/zoo/")]
    with zipfile.ZipFile(package.wheel) as archive: size = sum(archive.getinfo(name).file_size for name in carried)
    assert not any(map(stays, [*carried, *inside])) and 1e6 < size <= 6e6
    assert package.wheel.stat().st_size < 10_000_000


def test_front_door_works_outside_the_checkout(installed, root):
    program = """
import json, sys
before = set(sys.modules)
import robust_smooth as rs
bare = sorted(set(sys.modules) - before)
door = {name: getattr(rs, name) for name in rs.__all__}
heavy = sorted({name.split(".")[0] for name in set(sys.modules) - before})
import torch
from importlib.resources import files
from robust_smooth.core import places
from robust_smooth.lab import papers, notebooks
model = rs.wrap(rs.models.mlp(64, 10))
record = rs.Smoothed(model, rs.Gaussian(sigma=0.25)).vote(torch.rand(2, 1, 8, 8), n=1000, alpha=None, progress=False, save="some.votes")
again = rs.load("some.votes").certify("l2")
print(json.dumps(dict(file=rs.__file__, typed=files("robust_smooth").joinpath("py.typed").is_file(), bare=bare, heavy=heavy, names=sorted(door), rows=len(papers.printed("adre", "table1")),
    papers=str(places.assets("papers")), experiments=notebooks.experiments(), checkout=str(places.checkout()), certified=len(again), zoo=sorted(rs.models.zoo()), version=rs.__version__)))
"""
    told = json.loads(
        call(
            installed.python, "-W", "ignore", "-c", program, cwd=installed.empty, ROBUST_SMOOTH_HOME=str(installed.home)
        ).splitlines()[-1]
    )
    assert Path(told["file"]).resolve().is_relative_to(installed.site.resolve()), told["file"]
    assert told["checkout"] == "None" and Path(told["papers"]).resolve().is_relative_to(installed.site.resolve())
    assert told["zoo"] == sorted(p.stem for p in (root / "data" / "zoo").glob("*.safetensors") if not stays(p.name))
    assert told["typed"] and told["rows"] > 100 and told["certified"] == 2
    assert set(told["experiments"]) == {
        p.stem for p in (root / "nbs" / "experiments").glob("*.ipynb") if not p.stem.startswith("_")
    }
    assert {
        "wrap", "Smoothed", "Record", "load", "Certificates", "ABSTAIN", "Gaussian", "Uniform",
        "Splitting", "sweep", "reproduce",
    } <= set(told["names"])
    foreign = sorted({name.split(".")[0] for name in told["bare"]} - {"robust_smooth"})
    ours = [name for name in told["bare"] if name.startswith("robust_smooth")]
    assert len(ours) <= 5 and not set(foreign) & {"torch", "numpy", "scipy", "pandas", "matplotlib"}, (
        f"the bare import loads {ours} and {foreign}"
    )
    late = {"nbformat", "nbclient", "papermill", "IPython", "distributed", "sklearn", "openvino", "timm"}
    assert not late & set(told["heavy"]), f"the front door loads {sorted(late & set(told['heavy']))}"


def test_console_script_speaks_from_any_folder(installed):
    said = call(installed.script, "--help", cwd=installed.empty)
    for word in ("reproduce", "sweep", "certify", "report", "doctor"): assert word in said, said
    done = subprocess.run(
        [installed.script, "reproduce", "no_such_table"],
        cwd=installed.empty, capture_output=True, text=True, timeout=120,
        env={"PATH": os.environ["PATH"], "HOME": str(installed.empty), "ROBUST_SMOOTH_HOME": str(installed.home)},
    )
    assert done.returncode == 2 and "no_such_table" in done.stderr and "Traceback" not in done.stderr, (
        done.returncode,
        done.stderr,
    )


def test_requirements_fit_together(installed):
    assert "No broken requirements" in call(
        sys.executable, "-m", "pip", "--python", installed.python, "check", cwd=installed.empty
    )
