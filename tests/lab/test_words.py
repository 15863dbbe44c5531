"No table that a reader sees has a raw name for a column: in notebooks, in the report, on the site's pages of results."
import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from robust_smooth.lab.claims import COLUMNS, Claims
from robust_smooth.lab.papers import PAPERS, printed
from robust_smooth.lab.report import build
from robust_smooth.lab.words import in_words, known, show_in_words, word

PLAIN = re.compile(r"-?[\d.]+(e[+-]?\d+)?|(r|n|x) = \S+|Unnamed: .*|FGSM|PGD-\d+|not smoothed") # says itself what it is


def tables_of(text): return re.findall(r"<table.*?</table>", text, re.S)

def heads(table):
    "What stands above the columns of a table."
    return [
        html.unescape(re.sub("<.*?>", "", cell))
        for cell in re.findall(r"<th[^>]*>(.*?)</th>", table.split("</thead>")[0], re.S)
    ]

def raw(names, experiment):
    "Names that have no words, or other words than those that are shown."
    return [name for name in names if name and ("_" in name or known(name, experiment) not in (None, name))]


def kept(root):
    "Experiment and file of each table that is kept."
    found = [(path.parent.name.partition("-")[0], path) for path in sorted((root / "data" / "results").glob("*/*.csv"))]
    assert len(found) > 200
    return found


def test_every_column_that_is_kept_or_printed_has_words(root):
    lacking = set()
    for experiment, path in kept(root):
        lacking |= {
            (experiment, name)
            for column in pd.read_csv(path, nrows=1).columns
            for name in re.sub(r", [\d.]+$", "", column).split(", ") # several levels, of which the last is a number
            if known(re.sub(r"\.\d+$", "", name), experiment) is None and not PLAIN.fullmatch(name)
        }
    for key in PAPERS:
        for item in printed(key)["item"].unique():
            lacking |= {
                (f"{key}_{item}", name)
                for name in printed(key, item, expand=True).columns
                if known(name, f"{key}_{item}") is None
            }
    assert not lacking, sorted(lacking)


def test_notebooks_show_words(root):
    seen, wrong = 0, []
    for path in sorted((root / "nbs" / "experiments").glob("*.ipynb")):
        outputs = [
            output
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            for output in cell.get("outputs", [])
        ]
        for table in tables_of("".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs)):
            seen += 1
            wrong += [(path.stem, name) for name in raw(heads(table), path.stem)]
    assert seen > 100 and not wrong, wrong


def test_pages_of_training_and_voting_show_no_short_names(root):
    wrong = []
    for path in [
        *sorted((root / "nbs" / "training").glob("*.ipynb")),
        *sorted((root / "nbs" / "voting").glob("*.ipynb")),
    ]:
        outputs = [
            output
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            for output in cell.get("outputs", [])
        ]
        tables = tables_of("".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs))
        wrong += [(path.stem, name) for table in tables for name in heads(table) if "_" in name]
    assert not wrong, wrong


def test_kept_tables_are_read_in_words(root):
    "The Markdown beside each CSV file is for eyes."
    wrong = []
    for experiment, path in kept(root):
        first = path.with_suffix(".md").read_text(encoding="utf-8").splitlines()[0]
        wrong += [
            (path.parent.name, path.stem, name)
            for name in raw([name.strip() for name in first.strip("|").split("|")], experiment)
        ]
    assert not wrong, wrong


def test_report_shows_words(root, tmp_path):
    page = build(root / "data" / "results", tmp_path / "report.html").read_text(encoding="utf-8")
    found = [
        (part[1], table)
        for part in re.finditer(r'<div id="(\w+)"></div>(.*?)(?=<div id="|<h2 )', page, re.S)
        for table in tables_of(part[2])
    ]
    assert len(found) > 100
    wrong = [(experiment, name) for experiment, table in found for name in raw(heads(table), experiment)]
    assert not wrong, wrong


def test_pages_of_results_show_words(root, monkeypatch):
    "The site writes Markdown: the first line of a table holds its columns."
    pytest.importorskip("nbformat")
    monkeypatch.syspath_prepend(str(root / "docs"))
    import build as site
    wrong = []
    for experiment, path in kept(root):
        lines = site.shown(pd.read_csv(path).head(50), experiment)
        first = next((line for line in "\n".join(lines).splitlines() if line.startswith("|")), "")
        wrong += [
            (path.parent.name, path.stem, name)
            for name in raw([name.strip() for name in first.strip("|").replace("\\", "").split("|")], experiment)
        ]
    assert not wrong, wrong


def test_a_table_keeps_its_kind_numbers_and_names():
    frame = Claims(
        [dict(claim="x " * 60, evidence="a_file", verdict="holds", dataset="digits", whose="ours")],
        columns=list(COLUMNS),
    )
    shown = in_words(frame, "gaussian_table1")
    assert isinstance(shown, Claims) and "..." not in shown._repr_html_() and "data set" in shown.columns
    assert shown["evidence"][0] == "a_file" and list(frame.columns) == list(COLUMNS)
    numbers = pd.DataFrame(
        {("certified_accuracy", 0.5): [0.25]}, index=pd.MultiIndex.from_tuples([("dssn", 1)], names=["method", "k"])
    )
    shown = in_words(numbers, "dssn_table1")
    assert (
        shown.columns.tolist() == [("certified accuracy", 0.5)]
        and shown.index.tolist() == [("DSSN", 1)]
        and shown.iloc[0, 0] == 0.25
    )
    empty = in_words(pd.DataFrame(columns=["mean_input_radius"]), "bernstein_figure4")
    assert list(empty.columns) == ["mean radius in the image"] and not len(empty)
    assert word("mean_input_radius.1", "bernstein_figure4") == "mean radius in the image" and word(None) is None


def test_only_a_notebook_is_changed():
    show_in_words("gaussian_table1") # no notebook here
    assert "certified_accuracy" in pd.DataFrame(dict(certified_accuracy=[1.0]))._repr_html_()
