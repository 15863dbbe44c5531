"The report shows what lies in a run's own folder, and counts verdicts under one name each."
import json

from robust_smooth.lab.report import VERDICT_ORDER, build, collect


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
