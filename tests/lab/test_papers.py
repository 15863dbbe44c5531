"The papers' printed numbers: complete, plain, and equal to what the transcriptions and the published logs say."
import json

import numpy as np
import pandas as pd
import pytest

from robust_smooth.core import places
from robust_smooth.lab import papers
from robust_smooth.core.places import assets, checkout
from robust_smooth.lab.papers import COLUMNS, expand_settings, PAPERS, pivot, printed

ITEMS = dict(
    adre={"table1": 341, "text": 38},
    bernstein={"table1": 16, "table2": 15, "table3": 16, "table4": 24, "table5": 24, "table6": 21, "text": 29},
    dssn={"table1": 64, "figure6": None, "figure7": None, "figure8": None, "text": 21},
    higher_order={"table1": 11, "figure2": None, "released_logs": 52, "text": 15},
    soap_bubbles={"table1": 18, "table2": 14, "table3": 12, "table4": 54, "text": None},
)


@pytest.mark.parametrize("key", sorted(PAPERS))
def test_every_table_is_there_in_the_ten_columns(key):
    frame = printed(key)
    assert (
        list(frame.columns) == COLUMNS
        and (frame.key == key).all()
        and set(frame.source) <= {"printed", "derived", "paraphrased"}
    )
    for item, rows in ITEMS[key].items(): assert len(printed(key, item)) == (rows or len(printed(key, item))) > 0
    for text in frame.setting: assert isinstance(json.loads(text), dict)
    assert frame.radius.dropna().ge(0).all()
    accuracies = pd.to_numeric(frame[frame.metric == "certified_accuracy"].value)
    assert accuracies.between(0, 1).all()


@pytest.mark.parametrize("key", sorted(PAPERS))
def test_the_values_are_those_of_the_transcription(key, shared):
    folder = shared / "papers" / key / "tables"
    theirs = [
        str(v)
        for path in sorted(folder.glob("*.csv"))
        for column in ("value", "as_printed")
        if column in (frame := pd.read_csv(path, dtype=str, keep_default_na=False)).columns
        for v in frame[column]
    ]
    ours = pd.read_csv(assets("papers") / f"{key}.csv", dtype=str, keep_default_na=False)
    ours = ours[~ours["item"].isin(["noise_levels"]) & (ours.metric != "notation")]
    assert sorted(ours.value) == sorted(theirs)


def test_values_are_numbers_where_they_can_be():
    assert printed("adre", "table1").value.dtype == np.float64 and printed("dssn", "table1").value.dtype == np.float64
    assert printed("higher_order", "table1").value.str.contains("sqrt").any()


def test_known_cells():
    table = printed("adre", "table1", expand=True)
    cell = lambda **want: table[np.logical_and.reduce([table[k] == v for k, v in want.items()])].value.tolist()
    assert cell(dataset="cifar10", method="basic", sigma=0.25, radius=0.5) == [0.43]
    assert cell(dataset="imagenet", method="basic", sigma=0.25, radius=0.0) == [0.67]
    ssn = printed("dssn", "table1", expand=True)
    assert ssn[
        (ssn.method == "dssn")
        & (ssn.stability_training == 1)
        & (ssn.radius == 4.0)
        & (ssn.metric == "certified_accuracy")
    ].value.tolist() == [0.3646]
    higher = printed("higher_order", "figure2", expand=True)
    assert higher[
        (higher.norm == "l2")
        & (higher.sigma == 0.12)
        & (higher.radius == 0.25)
        & (higher.method == "zeroth_order_cohen")
    ].value.tolist() == [0.605606]
    assert (printed("higher_order", "figure2").source == "derived").all() and (
        printed("dssn", "figure8").source == "derived"
    ).all()


def test_misprints_are_named():
    noted = printed("adre", "table1", expand=True)
    sure = noted[(noted.dataset == "cifar10") & (noted.method == "basic")]
    assert len(sure) == 56 and sure.radius.notna().sum() == 52 and sure[sure.radius.isna()].note.notna().all()
    soap = printed("soap_bubbles", "table2", expand=True)
    assert soap.note.notna().sum() >= 8 and set(soap.radius) == {0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5}
    assert (
        printed("soap_bubbles", "table3", expand=True)
        .query("method == 'salman'")
        .note.str.contains("no published log")
        .all()
    )


def test_pivot_is_a_paper_table():
    wide = pivot(printed("soap_bubbles", "table1"), ["method"])
    assert list(wide.columns) == [0.25 * i for i in range(1, 10)] or wide.shape[1] == 9
    assert wide.loc["cohen", 0.25] == 0.60 and wide.loc["ours", 0.25] == 0.61
    with pytest.raises(ValueError, match="nothing"): pivot(printed("adre", "table1"), ["nothing"])


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: printed("nobody"), "key"),
        (lambda: printed("adre", "table7"), "item"),
        (lambda: assets("toys"), "kind"),
        (lambda: expand_settings(pd.DataFrame(dict(setting=['{"value": 1}'], value=[1]))), "repeat"),
    ],
)
def test_bad_arguments(call, said):
    with pytest.raises(ValueError, match=said): call()


def test_a_table_cannot_be_changed_by_its_reader():
    mine = printed("adre", "table1")
    mine["value"] = 7.0
    assert printed("adre", "table1").value[0] == 0.81


def test_the_package_copies_serve_outside_a_checkout(tmp_path, monkeypatch):
    inside = tmp_path / "site" / "robust_smooth"
    (inside / "assets" / "papers").mkdir(parents=True)
    (inside / "assets" / "papers" / "adre.csv").write_bytes((assets("papers") / "adre.csv").read_bytes())
    monkeypatch.setattr(places, "package_folder", lambda: inside)
    monkeypatch.setattr(places, "__file__", str(inside / "places.py"))
    monkeypatch.chdir(tmp_path)
    assert (
        checkout() is None
        and assets("papers") == inside / "assets" / "papers"
        and len(printed("adre", "table1")) == 341
    )
    with pytest.raises(FileNotFoundError, match="neither in a checkout"): assets("experiments")
    (tmp_path / "lot" / "robust_smooth").mkdir(parents=True)
    (tmp_path / "lot" / "settings.ini").write_text("[DEFAULT]\nlib_name = robust_smooth\n")
    (tmp_path / "lot" / "data" / "papers").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "lot")
    assert assets("papers") == tmp_path / "lot" / "data" / "papers"     # a checkout's own copies win
