"Tables with provenance, the field's logs both ways, comparisons, figures and the report page."
import subprocess
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robust_smooth.lab import results
from robust_smooth.core.certificates import Certificates
from robust_smooth.core.values import ABSTAIN
from robust_smooth.lab.papers import printed
from robust_smooth.lab.results import (
    beside, compare, load, log_accuracy, read_certification_log, save, write_certification_log,
)

LOGS = "reference_logs/locuslab_smoothing/data/certify"


def certificates(radius, label, index=None):
    return Certificates(label=label, radius=radius, norm="l2", alpha=0.001, method="demo", index=index)


def test_tables_survive_exactly(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        dict(x=rng.random(200) * 10.0 ** rng.integers(-300, 300, 200), name=["a,b", 'c"d'] * 100, whole=np.arange(200))
    )
    back = load(save(frame, tmp_path / "deep" / "t", provenance=results.provenance(budget="quick")))
    pd.testing.assert_frame_equal(back, frame, check_exact=True)
    assert back.attrs["provenance"]["budget"] == "quick" and not list((tmp_path / "deep").glob("*.tmp"))


def test_provenance_names_no_place():
    text = json.dumps(results.provenance())
    assert "/" not in text.replace("\\/", "").replace("https://", "") and {"commit", "versions", "device"} <= set(
        results.provenance()
    )


def test_log_round_trip(tmp_path):
    rng = np.random.default_rng(1)
    label = rng.integers(-1, 10, 50)
    ours = certificates(rng.random(50) * 3, label, index=np.arange(50) * 20)
    write_certification_log(tmp_path / "log", ours, labels := rng.integers(0, 10, 50), seconds=rng.random(50))
    log = read_certification_log(tmp_path / "log")
    assert (
        (log.radius == ours.radius).all()
        and (log.idx == ours.index).all()
        and (log.predict == ours.label).all()
        and (log.correct == (label == labels)).all()
    )
    radii = np.linspace(0, 3, 31)
    np.testing.assert_array_equal(log_accuracy(log, radii), ours.certified_accuracy(labels, radii))


@pytest.mark.parametrize("digits", [1, 3, 6])
def test_rounded_radii_never_exceed_the_proved_ones(tmp_path, digits):
    radius = np.r_[
        0.0, 0.49999999, 0.5, 1e-7, 1 / 3, 123.456789, np.nextafter(1.0, 0), np.random.default_rng(2).random(300)
    ]
    ours = certificates(radius, np.zeros(len(radius), int))
    write_certification_log(tmp_path / "log", ours, np.zeros(len(radius), int), digits=digits)
    read = read_certification_log(tmp_path / "log").radius.to_numpy()
    assert (read <= radius).all() and (read >= radius * (1 - 10.0 ** (1 - digits))).all()


def test_abstentions_and_infinite_radii_in_a_log(tmp_path):
    write_certification_log(tmp_path / "log", certificates([np.inf, 5.0], [1, ABSTAIN]), [1, 0], digits=3)
    log = read_certification_log(tmp_path / "log")
    assert log.radius.tolist() == [np.inf, 0.0] and log.predict.tolist() == [1, -1] and log_accuracy(log, 100.0) == 0.5


HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


@pytest.mark.parametrize(
    "text, said",
    [
        ("a\tb\n1\t2\n", "not a certification log"),
        (HEADER + "0\t1\t2\t0.5\t1\t1.0\n", "predict == label"),
        (HEADER + "0\t1\t1\t-0.5\t1\t1.0\n", "radius must be >= 0"),
    ],
)
def test_broken_logs_are_refused(tmp_path, text, said):
    (tmp_path / "log").write_text(text)
    with pytest.raises(ValueError, match=said): read_certification_log(tmp_path / "log")


def test_kinds_of_logs(tmp_path):
    (tmp_path / "empty").write_text(HEADER)
    empty = read_certification_log(tmp_path / "empty")
    assert len(empty) == 0 and np.isnan(log_accuracy(empty, [0.0, 1.0])).all()
    (tmp_path / "two").write_text(
        "idx\tlabel\tcount\tpredict\tradius_LInf\tradius_L2\tradius_cohen\tcorrect\ttime\n1\t3\t9\t3\t0.004\t0.5\t0.45\t1\t0:00:01.5\n2\t3\t0\t5\t0\t0\t0\t0\t12.25\n"
    )
    two = read_certification_log(tmp_path / "two")
    assert (
        two.seconds.tolist() == [1.5, 12.25]
        and log_accuracy(two, 0.45, "radius_cohen") == 0.5
        and log_accuracy(two, 0.004, "radius_LInf") == 0.5
    )
    with pytest.raises(ValueError, match="column"): log_accuracy(two, 0.1)


def test_every_basic_cell_follows_from_the_published_logs(shared):
    table, seen = printed("adre", "table1", expand=True), 0
    for (dataset, sigma), cells in table[(table.method == "basic") & table.radius.notna()].groupby(
        ["dataset", "sigma"]
    ):
        folder = {"cifar10": "cifar10/resnet110", "imagenet": "imagenet/resnet50"}[dataset]
        log = read_certification_log(shared / LOGS / folder / f"noise_{sigma:.2f}" / "test" / f"sigma_{sigma:.2f}")
        assert np.abs(log_accuracy(log, cells.radius) - cells.value).max() <= 0.005 + 1e-9
        seen += len(cells)
    assert seen == 52 + 39


def test_all_published_logs_can_be_read(shared):
    counts = []
    for path in sorted((shared / "reference_logs").rglob("*")):
        if path.is_file() and "data/certify" in path.as_posix() and path.name != "LICENSE":
            if len(counts) % 7 == 0 or "JeetMo" in str(path) or "locuslab" in str(path):
                counts.append(len(read_certification_log(path)))
            else:
                counts.append(-1)
    assert len(counts) > 500 and {427, 500} <= set(counts)


def test_comparison_matches_on_what_describes_a_number():
    ours = pd.DataFrame(
        [
            dict(
                dataset="digits", method="basic", sigma=s, norm="l2", metric="certified_accuracy",
                radius=r, value=0.5, mode="sound",
            )
            for s in (0.25, 9.0)
            for r in (0.0, 0.5)
        ]
    )
    both = compare("adre", "table1", ours=ours)
    matched = both.dropna(subset=["ours", "printed"])
    assert (
        set(matched["printed dataset"]) == {"cifar10", "imagenet"}
        and len(matched) == 4
        and (matched["ours dataset"] == "digits").all()
    )
    np.testing.assert_allclose(matched.difference, 0.5 - matched.printed)
    assert both[both.sigma.astype(float) == 9.0].printed.isna().all() and both.ours.isna().any()
    with pytest.raises(ValueError, match="value"): beside(ours.drop(columns="value"), printed("adre", "table1"))
    with pytest.raises(FileNotFoundError, match="robust-smooth reproduce"): compare("bernstein", "table3")


def test_a_printed_number_stands_beside_one_of_ours():
    theirs = printed("bernstein", "table1", expand=True)
    ours = (
        theirs[["method", "n", "metric", "attack", "norm", "eps"]]
        .fillna({"norm": "", "eps": ""})
        .assign(value=theirs.value + 0.01)
    )
    both = beside(ours, theirs)
    assert len(both) == len(theirs) and both.n.nunique() == 7
    np.testing.assert_allclose(both.difference, 0.01)
    with pytest.raises(ValueError, match="tell them apart"): beside(ours, theirs, on=["method", "metric"])
    kept = sorted(Path("data/results").glob("*/*_beside.csv"))
    assert len(kept) > 20
    for frame in map(load, kept):
        if "printed" in frame.columns:
            assert not frame.duplicated(
                [name for name in frame.columns if name not in ("printed", "ours", "difference")]
            ).any()


def test_one_of_our_numbers_beside_two_printed_ones_counts_once():
    "52 numbers on digits stood beside 52 of CIFAR-10 and 39 of ImageNet: 91 of our numbers, said the last line of a run."
    ours = pd.DataFrame(dict(dataset="digits", sigma=[0.25, 0.5], radius=0.5, value=[0.7, 0.7]))
    theirs = pd.DataFrame(dict(dataset=["cifar10", "imagenet", "cifar10"], sigma=[0.25, 0.25, 1.0], radius=0.5, value=0.4))
    assert [results.matched(results.beside(ours, rows)) for rows in (theirs, theirs[:1], theirs[2:])] == [1, 1, 0]


def test_curves_that_promise_different_things_do_not_share_an_axis():
    from matplotlib import pyplot as plt
    from robust_smooth.lab.figures import bars, certified_curves, curve, lines
    truth = np.arange(10) % 3
    make = lambda **more: Certificates(
        **{**dict(label=truth, radius=np.linspace(0, 1, 10), norm="l2", alpha=0.001, method="demo"), **more}
    )
    for more, said in [
        (dict(norm="l1"), "norm"),
        (dict(mode="paper"), "mode"),
        (dict(scope="features"), "scope"),
        (dict(alpha_scope="joint"), "alpha_scope"),
    ]:
        with pytest.raises(ValueError, match=said): certified_curves({"a": make(), "b": make(**more)}, truth)
        ax = certified_curves({"a": make(), "b": make(**more)}, truth, annotate=True)
        assert all(", " in text.get_text() for text in ax.get_legend().get_texts())
        plt.close(ax.figure)
    with pytest.raises(ValueError, match="at least one"): certified_curves({}, truth)
    drawn = certified_curves({"a": make()}, truth).lines[0]
    steps = curve(make(), truth)
    assert drawn.get_ydata()[0] == 1.0 and set(steps.value) <= set(drawn.get_ydata())
    plt.close("all")
    long = pd.DataFrame(dict(radius=[0, 1, 0, 1], value=[1, 0.5, 1, 0.4], mode=["sound", "sound", "paper", "paper"]))
    for draw in (lines, lambda f, **k: bars(f, x="radius", **k)):
        with pytest.raises(ValueError, match="mode"): draw(long)
        plt.close(draw(long, hue="mode").figure)


def test_figures_are_the_same_bytes_in_another_process(tmp_path):
    import subprocess, sys
    code = (
        "import sys; from pathlib import Path; import numpy as np; from robust_smooth.lab.figures import "
        "certified_curves, save_figure; from robust_smooth.core.certificates import Certificates\n"
        "truth = np.zeros(9, int); c = Certificates(label=truth, radius=np.arange(9) / 9, norm='l2', alpha=0.001, "
        "method='demo')\n"
        "save_figure(certified_curves({'a': c}, truth).figure, Path(sys.argv[1]), formats=('png', 'pdf', 'svg'))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name)], env={**__import__("os").environ, "MPLBACKEND": "agg"}
        )
        for name in "ab"
    ]
    assert [p.wait(timeout=120) for p in running] == [0, 0]
    for kind in ("png", "pdf", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_what_runs_wrote_does_not_make_a_commit_dirty(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True, capture_output=True
        )

    kept, code = tmp_path / "data/results/a/table.csv", tmp_path / "code.py"
    for path in (kept, code):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "all")
    monkeypatch.setattr(results, "checkout", lambda: tmp_path)
    clean = results.provenance()["commit"]
    assert len(clean) == 12 and not clean.endswith("dirty")
    kept.write_text("2\n")
    assert results.provenance()["commit"] == clean
    code.write_text("2\n")
    assert results.provenance()["commit"] == f"{clean}-dirty"


def _cut(text, line, fields): # a line with other fields
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:line], fields, *lines[line + 1:]])


@pytest.mark.parametrize(
    "harm, said",
    [
        (lambda text: text[:-4], "line 4 has 2 fields|last line was cut"),
        (lambda text: text[:-1], "last line was cut"),
        (lambda text: _cut(text, 2, "2,b\n"), "line 3 has 2 fields, the first one 3"),
        (lambda text: _cut(text, 2, "2,b,0.5,\n"), "line 3 has 4 fields"),
        (lambda text: _cut(text, 2, "\n"), "line 3 has 0 fields"),
        (lambda text: _cut(text, 2, '2,"b,0.5\n'), "unexpected end"),
        (lambda text: text.encode() + b"\xed\xa0\x80,x,1\n", "utf-8"),
        (lambda text: "", "last line was cut"),
    ],
)
def test_a_damaged_table_is_refused_with_its_file_and_line(tmp_path, harm, said):
    "Before, a line that was cut came back as NaN, or its last number shorter, without a word."
    file = save(
        pd.DataFrame(dict(i=[1, 2, 3], name=["a", "b", "c"], value=[0.25, 0.5, 0.125])),
        tmp_path / "t",
        provenance=dict(seed=0),
    )
    wrong = harm(file.read_text())
    file.write_bytes(wrong if isinstance(wrong, bytes) else wrong.encode())
    with pytest.raises(ValueError, match=rf"t\.csv is no table as `save` writes it: .*({said})"): load(file)


def test_damaged_provenance_names_its_file(tmp_path):
    file = save(pd.DataFrame(dict(i=[1])), tmp_path / "t", provenance=dict(seed=0))
    (tmp_path / "t.json").write_text('{"seed": ')
    with pytest.raises(ValueError, match=r"t\.json is no provenance"): load(file)


def test_numbers_of_rows_are_not_written(tmp_path):
    "What was left of a larger table kept the numbers of its rows, as a first column without a name."
    frame = pd.DataFrame(dict(radius=[0.0, 0.5, 1.0], value=[0.9, 0.5, 0.1]))
    assert list(load(save(frame[frame.radius > 0], tmp_path / "t")).columns) == ["radius", "value"]
    assert (tmp_path / "t.md").read_text().splitlines()[0] == "| radius | value |"
    named = frame.rename_axis("n"), frame.set_axis(["a", "b", "c"])
    assert [len(load(save(each, tmp_path / "t")).columns) for each in named] == [3, 3]
