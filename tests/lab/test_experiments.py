"Every experiment notebook runs to its end at the smoke budget, each in its own kernel, into an empty home."
import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robust_smooth.lab import reproduce
from robust_smooth.lab import claims
from robust_smooth.lab import notebooks

NOTEBOOKS = Path(__file__).parents[2] / "nbs" / "experiments"
METHODS = {path.stem for path in (Path(__file__).parents[2] / "robust_smooth" / "methods").glob("*.py")}


def test_all_experiments_run_at_smoke(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(tmp_path / "home"))
    names = notebooks.experiments()
    assert len(names) >= 37
    outcome = reproduce.run("all", budget="smoke", out=tmp_path / "out", jobs=min(2, os.cpu_count() or 1))
    assert not outcome.failed, "\n".join(f"{r['experiment']}: {r['error']}" for r in outcome.failed)
    for task in outcome.tasks:
        facts = json.loads((task.folder / "result.json").read_text())
        # each says what it found, and shows it
        assert facts["claims"] and (facts["tables"] or facts["figures"]), task.experiment
        assert {c["verdict"] for c in facts["claims"]} <= set(claims.VERDICTS)
        # a page shows these sizes
        assert set(facts["own"]) == set(notebooks.own_sizes(task.experiment)), task.experiment
    again = reproduce.run("all", budget="smoke", out=tmp_path / "out", jobs=1)
    assert all(r["status"] == "cached" for r in again.reports)
    slow = sorted(((r["seconds"], r["experiment"]) for r in outcome.reports), reverse=True)[:5]
    with capsys.disabled(): print("\nslowest at smoke:", ", ".join(f"{name} {seconds:.0f} s" for seconds, name in slow))


def test_text_where_a_list_belongs_is_refused_with_the_right_spelling():
    "As papermill's -p hands it over."
    from robust_smooth.lab.experiment import parameters_of
    from robust_smooth.lab.notebooks import default_parameters, find_notebook
    known = default_parameters(find_notebook("gaussian_table1"))
    assert parameters_of("gaussian_table1", known) == known
    for text in ("0.25, 0.5", "[0.25, 0.5]"):
        with pytest.raises(ValueError, match=r"sigmas must be a list .*-y '\{sigmas: \[0.25, 0.5\]\}'"):
            parameters_of("gaussian_table1", known | dict(sigmas=text))


def test_every_experiment_names_its_method():
    "A default may change; a table of a paper may not change with it."
    named = 0
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = [cell["source"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        for node in ast.walk(ast.parse("\n".join("".join(source) for source in cells))):
            if not (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "certify"
            ):
                continue
            by = ast.unparse(node.func.value)
            if by in METHODS or by == "net": # a method's own room, or a network that has one certificate
                continue
            assert "method" in {keyword.arg for keyword in node.keywords}, f"{path.name}: {ast.unparse(node)}"
            named += 1
    assert named >= 9


def test_the_lab_starts_without_what_only_some_need():
    "Each notebook is a process of its own, and pays for every import."
    code = ("import sys; from robust_smooth.lab import cache, experiment, notebooks, reproduce; "
            "notebooks.default_parameters(notebooks.find_notebook('gaussian_table1')); "
            "print(*({'torch', 'seaborn', 'scipy.stats', 'papermill', 'nbformat', 'jsonschema'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=NOTEBOOKS.parents[1])
    assert done.returncode == 0 and done.stdout == "\n", done


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '"words"', '{"nbformat": 4}', '{"nbformat": 4, "cells": [1]}', '{"nbformat": "4", "cells": []}'],
)
def test_what_is_no_notebook_is_refused_by_name(tmp_path, text):
    (tmp_path / "some.ipynb").write_text(text)
    with pytest.raises(ValueError, match="some.ipynb is not a notebook: "):
        notebooks.code_cells(tmp_path / "some.ipynb")


def test_notebooks_of_an_older_format_are_read(tmp_path):
    import nbformat
    old = nbformat.v3.new_notebook(
        worksheets=[nbformat.v3.new_worksheet(cells=[nbformat.v3.new_code_cell("a = 1\nb = 2")])]
    )
    (tmp_path / "some.ipynb").write_text(nbformat.writes(old, version=3))
    assert notebooks.code_cells(tmp_path / "some.ipynb") == [dict(source="a = 1\nb = 2", tags=[])]


def test_what_papermill_hands_over_is_answered_with_its_own_spelling():
    from robust_smooth.lab.experiment import parameters_of, Settings
    from robust_smooth.lab.notebooks import default_parameters, find_notebook
    known = default_parameters(find_notebook("gaussian_table1"))
    for value in (0.5, 1, "[0.5]"):
        with pytest.raises(ValueError, match=r"sigmas must be a list .*-y '\{sigmas: \["):
            parameters_of("gaussian_table1", known | dict(sigmas=value))
    with pytest.raises(ValueError, match="seed must be a whole number"): Settings(seed="x")


def test_a_notebook_lists_the_choices_that_it_takes():
    from robust_smooth.core.registry import find_methods
    from robust_smooth.lab.bernstein_networks import _FULL
    from robust_smooth.lab.experiment import parameters_of
    from robust_smooth.lab.notebooks import CHOICES, default_parameters, experiments, find_notebook
    from robust_smooth.lab.tasks import make_task
    assert set(CHOICES["certifier"]) == {method.name for method in find_methods("Gaussian", "l2") if not method.needs}
    assert set(CHOICES["networks"]) == set(_FULL)
    asked = set()
    for name in experiments():
        known = default_parameters(find_notebook(name))
        for parameter, value in known.items():
            words = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
            if not words or parameter in ("dataset", "budget", "checkpoint", "data_dir"):
                continue
            assert set(words) <= set(CHOICES[parameter]), (name, parameter) # every word of ours is one of several
            asked.add(parameter)
            wrong = ["foo"] if isinstance(value, list) else "foo"
            for call in (
                lambda: parameters_of(name, known | {parameter: wrong}),
                lambda: make_task(name, {parameter: wrong}),
            ):
                with pytest.raises(
                    ValueError,
                    match=f"{parameter} of {name}.ipynb must .* of {', '.join(CHOICES[parameter])}, got 'foo'",
                ):
                    call()
            for one in CHOICES[parameter]:
                parameters_of(name, known | {parameter: [one] if isinstance(value, list) else one})
    assert asked == set(CHOICES)


def test_no_experiment_asks_who_votes_where_it_means_sizes(tmp_path, monkeypatch):
    "`budget.name in ('gpu', 'paper')` is false at gpu-int8, whose networks are to be the same."
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        assert "budget.name" not in "\n".join(cell["source"] for cell in notebooks.code_cells(path)), path.name
    from robust_smooth.lab import experiment
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(tmp_path))
    monkeypatch.setattr(experiment.fast, "check_installed", lambda voting: None)
    sizes = [experiment.Experiment("demo", budget=name).sizes for name in ("quick", "quick-int8", "quick-openvino")]
    assert sizes == ["quick"] * 3
