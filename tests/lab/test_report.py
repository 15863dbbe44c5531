"The report shows what lies in a run's own folder, and counts verdicts under one name each."
import json

import pandas as pd
import pytest

from robust_smooth.lab.report import VERDICT_ORDER, build, collect, shape


def write_run(folder, **facts):
    run = folder / "run"
    run.mkdir(parents=True)
    (run / "result.json").write_text(json.dumps(facts))
    entry = dict(experiment="adre_table1", folder=str(run), status="done", error="", notebook="")
    (folder / "last_run.json").write_text(json.dumps(dict(runs=[entry])))
    return run


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    "A table called ../secret was read and shown."
    folder = tmp_path / "a"
    run = write_run(folder, tables=["../secret", "t", str(tmp_path / "secret"), "..\\secret", ".."],
                    figures=["../secret", "figure", "../../secret"])
    for place in (tmp_path, folder, run):
        (place / "secret.csv").write_text("secret\nprecious\n")
        (place / "secret.png").write_bytes(b"precious")
    (run / "t.csv").write_text("shown\nhere\n")
    (run / "figure.png").write_bytes(b"a picture")
    page = build(folder / "last_run.json", tmp_path / "report.html").read_text()
    assert "precious" not in page and "cHJlY2lvdXM=" not in page
    assert "<td>here</td>" in page and page.count("data:image/png") == 1


def test_verdicts_of_older_runs_are_counted_with_todays(tmp_path):
    said = ["holds", "does not hold", "does not hold here", "not decided", "proved false", "not testable here", "holds"]
    claims = [dict(claim=f"claim {i}", evidence="", verdict=verdict) for i, verdict in enumerate(said)]
    write_run(tmp_path, claims=claims)
    facts = collect(tmp_path / "last_run.json")
    assert facts["counts"] == {"holds": 2, "proved false": 1, "does not hold here": 2, "not decided": 1,
                               "not testable here": 1}
    page = build(tmp_path / "last_run.json", tmp_path / "report.html").read_text()
    assert all(f"claims: {verdict}<" in page for verdict in VERDICT_ORDER)


BUDGET = dict(dataset="digits", name="quick", images=10, n=100)
WHOLE = dict(
    budget=BUDGET,
    parameters=dict(alpha=0.001),
    provenance=dict(versions=dict(numpy="2")),
    claims=[dict(claim="a claim", evidence="", verdict="holds")],
    tables=["t"],
)


@pytest.mark.parametrize(
    "damage, said",
    [
        (dict(budget=[1]), "its budget must be a dict"),
        (dict(budget=dict(dataset="digits", name="quick", images=10)), "must say n"),
        (dict(budget=BUDGET | dict(n="many")), "must say n"),
        (dict(claims=3.0), "its claims must be a list"),
        (dict(claims=["holds"]), "its claims must each be"),
        (dict(parameters=[]), "its parameters"),
        (dict(tables="t"), "its tables"),
        (dict(figures=[[1]]), "its figures"),
        (dict(provenance=dict(versions=["2"])), "its versions"),
    ],
)
def test_a_run_whose_facts_are_damaged_is_named_and_the_others_are_shown(damage, said, tmp_path):
    "One wrong value in one file, and there was no page at all."
    for name, facts in dict(whole=WHOLE, torn=WHOLE | damage).items():
        run = write_run(tmp_path / name, **facts)
        (run / "t.csv").write_text("shown\nhere\n")
    runs = [json.loads((tmp_path / name / "last_run.json").read_text())["runs"][0] for name in ("whole", "torn")]
    (tmp_path / "last_run.json").write_text(json.dumps(dict(runs=runs)))
    page = build(tmp_path / "last_run.json", tmp_path / "report.html").read_text()
    assert page.count("<td>here</td>") == 1 and said in page and 'id="failed"' in page
    assert collect(tmp_path / "last_run.json")["counts"] == {"holds": 1}


@pytest.mark.parametrize("text", [None, "", "{", "[]"])
def test_a_finished_run_that_says_nothing_of_itself_is_no_finished_run(text, tmp_path):
    run = write_run(tmp_path, **WHOLE)
    (run / "result.json").unlink() if text is None else (run / "result.json").write_text(text)
    assert [entry["experiment"] for entry in collect(tmp_path / "last_run.json")["failed"]] == ["adre_table1"]


@pytest.mark.parametrize(
    "text, said",
    [
        ("a,value\n1,0.25\n2,0.", "last line was cut"),
        ("a,value\n1,0.25\n2\n", "line 3 has 1 fields"),
        ("", "empty or damaged"),
    ],
)
def test_a_damaged_table_is_not_shown_as_if_it_were_whole(text, said, tmp_path):
    "A number that was cut came out shorter, a field that was cut as none."
    run = write_run(tmp_path, **WHOLE)
    (run / "t.csv").write_text(text)
    page = build(tmp_path / "last_run.json", tmp_path / "report.html").read_text()
    assert said in page and "0.25" not in page and str(tmp_path) not in page.replace("robust-smooth", "")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"runs": 3}',
        '{"runs": [{"experiment": "a"}]}',
        '{"runs": [{"experiment": "a", "folder": [], "status": "done", "error": "", "notebook": ""}]}',
    ],
)
def test_a_list_of_runs_that_cannot_be_read_is_named(text, tmp_path):
    (tmp_path / "last_run.json").write_text(text)
    with pytest.raises(ValueError, match="last_run.json.*give the command again"):
        build(tmp_path / "last_run.json", tmp_path / "report.html")


def test_half_a_character_does_not_stop_the_page(tmp_path):
    write_run(tmp_path, **WHOLE | dict(claims=[dict(claim="half \ud800", evidence="", verdict="holds")]))
    assert "half \\ud800" in build(tmp_path / "last_run.json", tmp_path / "report.html").read_text()


def test_the_folder_of_all_runs_may_be_moved(tmp_path):
    "A folder that was moved, with its last_run.json, was reported as failed runs."
    run = tmp_path / "before" / "runs" / "adre_table1" / "0123abcd"
    run.mkdir(parents=True)
    (run / "result.json").write_text(json.dumps(dict(claims=[dict(claim="c", evidence="", verdict="holds")])))
    entry = dict(
        experiment="adre_table1", folder=str(run), status="done", error="", notebook=str(run / "notebook.ipynb")
    )
    (tmp_path / "before" / "last_run.json").write_text(json.dumps(dict(runs=[entry])))
    (tmp_path / "before").rename(tmp_path / "after")
    facts = collect(tmp_path / "after" / "last_run.json")
    assert facts["counts"] == {"holds": 1} and not facts["failed"]


def test_runs_of_one_experiment_are_told_apart(tmp_path):
    "Of a sweep over seeds the page named both runs alike, and its links led to the first."
    claims = [dict(claim="noise helps", evidence="0.8 > 0.7", verdict="holds")]
    for seed in (0, 1):
        write_run(tmp_path / str(seed), claims=claims)
    runs = [
        json.loads((tmp_path / str(seed) / "last_run.json").read_text())["runs"][0] | dict(chosen=dict(seed=seed))
        for seed in (0, 1)
    ]
    (tmp_path / "last_run.json").write_text(json.dumps(dict(runs=runs)))
    page = build(tmp_path / "last_run.json", tmp_path / "report.html").read_text()
    name = runs[0]["experiment"]
    assert (
        page.count(f'id="{name}"') == page.count(f'id="{name}-2"') == 1
        and f'href="#{name}-2">{name}, seed = 1</a>' in page
    )


def test_a_run_without_provenance_shows_no_empty_words(tmp_path):
    write_run(tmp_path)
    run = json.loads((tmp_path / "last_run.json").read_text())["runs"][0] | dict(status="FAILED")
    (tmp_path / "last_run.json").write_text(json.dumps(dict(runs=[run])))
    (tmp_path / "result.json").unlink(missing_ok=True)
    page = build(tmp_path / "last_run.json", tmp_path / "report.html").read_text()
    assert "none: FAILED" in page and ",  cores" not in page


def test_a_second_number_in_each_row_is_no_heading():
    "A table with a printed number in each row was laid out by radius all the same: 57 rows, nine cells of ten empty."
    from itertools import product
    sigmas, radii = (0.25, 0.5), (0.0, 0.5, 1.0, 1.5)
    rows = [dict(sigma=s, radius=r, value=1 / (1 + r), printed=s / (2 + r)) for s, r in product(sigmas, radii)]
    frame = pd.DataFrame(rows)
    assert list(shape(frame)[0].columns) == ["sigma", "radius", "value", "printed"]
    numbered = frame.drop(columns="printed").rename_axis("Unnamed: 0").reset_index() # as older results hold them
    assert list(shape(numbered)[0].columns) == ["sigma", "r = 0", "r = 0.5", "r = 1", "r = 1.5"]
