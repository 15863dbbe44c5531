"What one reaches for after certifying: a glance, a picture, a file that another process proves again, a log."
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest

import robust_smooth as rs
from robust_smooth import testing
from robust_smooth.core.certificates import Certificates
from robust_smooth.core.registry import load_methods, method_named, own_norms
from robust_smooth.core.values import ABSTAIN

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def votes(shares=(0.99, 0.8, 0.5, 1.0), n=10_000, labels=(0, 1, 0, 0), noise=None):
    hits = np.array([int(share * n) for share in shares])
    return rs.Record.from_counts(
        np.tile([90, 10], (len(hits), 1)),
        np.stack([hits, n - hits], 1),
        n,
        noise or rs.Gaussian(sigma=0.5),
        dim=64,
        index=np.arange(len(hits))[::-1] * 20,
        labels=None if labels is None else list(labels),
    )


def cases():
    "One pair of each method that certifies a Record: the first noise and norm."
    for name in sorted(load_methods()):
        noise, norm = sorted(method_named(name).pairs)[0]
        yield testing.Case(name, noise, norm, n=1000, rows=3)


PROVE = """
import json, sys
import robust_smooth as rs
table = rs.load(sys.argv[1])
print(json.dumps(dict(kind=type(table).__name__, checked=rs.check(table).tolist(), radius=[float(r).hex() for r in table.radius],
                      reason=table.reason.tolist(), torch="torch" in sys.modules)))
"""


@pytest.mark.parametrize("case", [case for case in cases() if not method_named(case.method).deterministic], ids=str)
def test_a_saved_certificate_is_proved_again_in_another_process(case, tmp_path):
    table = case.votes.certify(case.norm, method=case.method, alpha=0.01)
    path = table.save(tmp_path / "a.certificates")
    done = subprocess.run([sys.executable, "-c", PROVE, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["kind"] == "Certificates" and said["checked"] == rs.check(table).tolist() and all(said["checked"])
    assert said["radius"] == [float(r).hex() for r in table.radius] and said["reason"] == table.reason.tolist()
    assert not said["torch"]


def test_a_file_changes_nothing_and_hides_nothing(tmp_path):
    table = votes().certify()
    again = Certificates.load(table.save(tmp_path / "a"))
    for name in ("label", "radius", "index", "labels", "n", "reason"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    assert again.noise == table.noise and again.claim["alpha"] == table.claim["alpha"] and again.stands().all()
    forged = Certificates.load(rs.core.certificates.replace(table, norm="l1").save(tmp_path / "b"))
    assert not rs.check(forged).any() # what was claimed at birth travels with it
    bare = Certificates.load(table.save(tmp_path / "c", witness=False))
    with pytest.raises(ValueError, match="no witness"): rs.check(bare)


def test_damage_and_other_files_are_refused(tmp_path):
    path = votes().certify().save(tmp_path / "a")
    data = path.read_bytes()
    for cut in (len(data) - 1, len(data) // 2):
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match="damaged"): rs.load(path)
    votes().save(tmp_path / "v")
    with pytest.raises(ValueError, match="first line"): Certificates.load(tmp_path / "v")
    assert isinstance(rs.load(tmp_path / "v"), rs.Record)
    trap = np.array([{"code": 1}, 0, 0, 0], dtype=object)
    with pytest.raises(ValueError, match="witness=False"):
        rs.core.certificates.replace(votes().certify(), witness=dict(trap=trap)).save(tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("space", ["features", "sigmoid"])
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_bernstein_certificates_are_kept_with_their_trees(tmp_path, norm, space):
    rng = np.random.default_rng(0)
    coefficients, points = rng.normal(size=(4, 4, 4)), rng.uniform(0.05, 0.95, (12, 2))
    flat = np.stack([np.zeros((4, 4)), np.ones((4, 4))]) # no boundary anywhere: a row without a tree
    for table in (coefficients, flat):
        made = rs.bernstein.certify(table, points, norm, lipschitz=0.5, keep=True, space=space)
        again = rs.load(made.save(tmp_path / f"{norm}{len(table)}"))
        np.testing.assert_array_equal(again.radius, made.radius)
        assert rs.check(made).all() and rs.check(again).all() and rs.check(again[[3, 1]]).all()
    again = rs.load(tmp_path / f"{norm}4")
    finite = np.isfinite(again.radius) & (again.radius > 0)
    assert finite.sum() >= 6
    more = replace(again, radius=again.radius * 1.01)
    raised = dict(again.witness, lower=again.witness["lower"] * 1.01)
    cut = dict(again.witness, searched=np.zeros(12, bool))
    assert not rs.check(more)[finite].any() and not rs.bernstein.recheck(replace(more, witness=raised))[finite].any()
    with pytest.raises(ValueError, match="keep=True"): rs.bernstein.recheck(replace(again, witness=cut))
    bare = rs.load(made.save(tmp_path / "bare", witness=False))
    with pytest.raises(ValueError, match="witness"): rs.check(bare)


def test_a_pipelines_certificates_are_proved_again_after_a_file(tmp_path):
    import torch
    torch.manual_seed(0)
    extractor = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2), torch.nn.Sigmoid())
    smooth = rs.bernstein.Smoothed(extractor, torch.nn.Sequential(torch.nn.Linear(2, 3)), degree=3).eval()
    for norm in ("l1", "linf"):
        made = smooth.certify(torch.rand(4, 1, 4, 4), norm, keep=True, progress=False)
        again = rs.load(made.save(tmp_path / norm))
        assert rs.check(made).all() and rs.check(again).all()
        finite = np.isfinite(again.radius) & (again.radius > 0)
        assert not rs.bernstein.recheck(replace(again, radius=again.radius * 1.01))[finite].any()


def test_the_log_is_read_back_as_it_was_written(tmp_path):
    table = votes().certify()
    log = rs.logs.read_certification_log(table.write_log(tmp_path / "a.tsv", seconds=1.5))
    np.testing.assert_array_equal(log["radius"], table.radius)
    np.testing.assert_array_equal(log["idx"], table.index)
    assert log["correct"].tolist() == (table.label == table.labels).tolist() and set(log["seconds"]) == {1.5}
    radii = np.linspace(0, 2, 9)
    np.testing.assert_array_equal(rs.logs.log_accuracy(log, radii), table.certified_accuracy(radii=radii))
    with pytest.raises(ValueError, match="labels must be given"): votes(labels=None).certify().write_log(tmp_path / "b")


def test_the_summary_counts_what_is_there():
    table = votes().certify()
    said = table.summary()
    np.testing.assert_array_equal(said.accuracy, table.certified_accuracy(radii=said.radii))
    assert said.images == 4 and sum(said.reasons.values()) == (table.label == ABSTAIN).sum() == 1
    assert (
        said.unanimous == 0.25
        and said.p.tolist() == np.quantile([0.99, 0.8, 0.5, 1.0], [0, 0.25, 0.5, 0.75, 1]).tolist()
    )
    text = repr(said)
    assert "certified accuracy" in text and "abstain: 1" in text and "share of votes" in text
    assert "certified accuracy" not in repr(votes(labels=None).certify().summary())
    assert "lower limit of p" in repr(votes().certify(method="gaussian").summary())
    assert "NOT PROVED" in repr(votes().certify(method="tcertify", mode="paper").summary())
    assert votes()[[]].certify().summary().images == 0


def test_the_summary_says_of_which_perturbed_images_it_speaks():
    def last(noise, **question):
        record = rs.Record.from_counts([[9, 1]], [[900, 100]], 1000, noise, 4, domain=question.pop("domain", (0, 1)))
        return repr(record.certify(**question).summary()).splitlines()[-1]
    on_grid = rs.RoundedGaussian(sigma=0.5, q=16)
    assert last(on_grid).startswith("perturbed images: on the grid of 1/16;")
    assert last(on_grid, adversary="continuous") == "perturbed images: all, rounded to the grid of 1/16"
    assert "RoundedGaussian" in last(rs.Gaussian(sigma=0.5))
    for other in (last(rs.Gaussian(sigma=0.5), domain=None), last(rs.Uniform(lam=0.5))):
        assert other.startswith("share of votes")


def test_the_picture_is_the_curve():
    for table in (
        votes().certify(),
        votes(labels=None).certify(method="gaussian"),
        votes().certify(method="tcertify", mode="paper"),
    ):
        axes = table.plot()
        line = axes.lines[0]
        truth = table.label if table.labels is None else table.labels
        np.testing.assert_array_equal(line.get_ydata(), table.certified_accuracy(truth, line.get_xdata()))
        assert line.get_linestyle() == ("--" if table.mode == "paper" else "-") and "l2" in axes.get_xlabel()
        again, axes = plt.subplots()
        assert table.plot(axes=axes) is axes
    plt.close("all")


def test_the_picture_of_an_image_shows_its_votes():
    record = votes()
    axes = record.plot(1, image=np.zeros((1, 8, 8)), names=["cat", "dog"])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog"]
    assert [bar.get_width() for bar in axes.patches] == [0.8, 0.2]
    title = axes.figure.get_suptitle()
    assert "image 40" in title and "true class dog" in title and f"{record[1].certify().radius[0]:.4g}" in title
    with pytest.raises(IndexError, match="row of the 4 images"): record.plot(4)
    with pytest.raises(ValueError, match="64 values"): record.plot(0, image=np.zeros((3, 8, 8)))
    plt.close("all")


def test_top_votes():
    table = votes().top_votes(9) # no more than there are
    assert len(table) == 8 and table["votes"].tolist()[:2] == [9900, 100] and table["share"].max() == 1
    with pytest.raises(ValueError, match="k must be"): votes().top_votes(0)


@pytest.mark.parametrize(
    "noise, norm",
    [
        (rs.Gaussian(sigma=0.5), "l2"),
        (rs.Uniform(lam=0.5), "l1"),
        (rs.RoundedUniform(lam=1.0, q=255), "l1"),
        (rs.LinfGaussian(sigma=0.5, k=4), "linf"),
        (rs.RadialGaussian(sigma=0.5, k=4), "l2"),
    ],
    ids=repr,
)
def test_without_a_norm_the_noise_s_own_is_meant(noise, norm):
    record = votes(noise=noise)
    assert own_norms(record)[0] == norm == record.certify().norm
    np.testing.assert_array_equal(record.certify().radius, record.certify(norm).radius)


def test_a_wrong_norm_is_answered_with_the_right_ones():
    with pytest.raises(ValueError, match=r"norms that are certified: \['l1'\]"):
        votes(noise=rs.Uniform(lam=0.5)).certify("linf")
    with pytest.raises(ValueError, match=r"\['l2', 'l1', 'linf'\]"): votes().certify("l3")
    assert (
        votes().certify(method="tcertify").norm == "l2"
        and votes(noise=rs.Uniform(lam=0.5)).certify(method="exact").norm == "l1"
    )


def test_reading_certificates_waits_neither_for_pandas_nor_for_pictures(tmp_path):
    path = votes().certify().save(tmp_path / "a")
    code = (
        f"import sys, robust_smooth as rs; t = rs.load({str(path)!r}); repr(t.summary()); print([m for m in ('torch', "
        "'pandas', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_votes_and_radii_in_the_wrong_place_get_their_line():
    record = rs.Record.from_counts([[90, 10]], [[950, 50]], 1000, rs.Gaussian(sigma=0.5), 4)
    certificates = record.certify()
    with pytest.raises(ValueError, match=r"labels must be whole numbers.*radii=\.\.\."):
        certificates.certified_accuracy([0, 0.25, 0.5])
    with pytest.raises(ValueError, match="labels must be whole numbers") as caught:
        certificates.certified_accuracy(["cat"])
    assert "radii" not in str(caught.value)
    with pytest.raises(TypeError, match=r"got Record; .*record\.certify"): rs.check(record)
    with pytest.raises(TypeError, match=r"got list; .*one by one"): rs.check(record.certify(["l1", "l2"]))
    with pytest.raises(TypeError, match="got int$"): rs.check(5)
    with pytest.raises(ValueError, match="names must be one a class, 2, got 1"): record.plot(0, names=["cat"])
    with pytest.raises(IndexError, match="i must be a row of the 1 images, got 'x'"): record.plot("x")


def test_a_file_of_something_else_or_with_more_votes_is_not_lost(tmp_path):
    record = votes()
    certificates, file = record.certify(), record.save(tmp_path / "d.votes")
    kept = file.read_bytes()
    for write in (certificates.save, certificates.write_log): # quickly made again: refused
        with pytest.raises(ValueError, match="choose another name"): write(file)
        assert file.read_bytes() == kept
    for number, less in enumerate((record[:1], record[1:]), 1): # votes are dear: both are kept
        with pytest.warns(UserWarning, match=f"is kept as d.votes.before-{number}"): less.save(file)
        assert len(rs.load(file)) == len(less)
    assert (tmp_path / "d.votes.before-1").read_bytes() == kept
    log, proof = certificates.write_log(tmp_path / "a.tsv"), certificates.save(tmp_path / "a.certificates")
    for write, place in ((certificates.save, log), (certificates.write_log, proof)):
        with pytest.raises(ValueError): write(place)
    with pytest.warns(UserWarning, match="no votes that can be read"):
        record.save(tmp_path / shutil.copy(proof, tmp_path / "b.certificates"))
    assert rs.load(tmp_path / "b.certificates.before-1").radius.tolist() == certificates.radius.tolist()
    assert rs.load(proof).radius.tolist() == certificates.radius.tolist()
    certificates.write_log(log), certificates.save(proof), record.save(file) # the same kind again, whole
    more = rs.Record.concat([record, replace(record, index=record.index + 1)])
    more.save(file)
    assert len(rs.load(file)) == 8


def test_true_classes_that_are_none_of_the_networks(tmp_path):
    import dataclasses
    votes = rs.Record.from_counts(
        [[9, 1, 0], [0, 9, 1]], [[990, 10, 0], [0, 980, 20]], 1000, rs.Gaussian(sigma=0.5), 4, index=[5, 8]
    )
    for name in ("exact", "gaussian", "tcertify"):
        table = votes.certify("l2", method=name)
        for kept in (
            table,
            table[[1, 0]][[1, 0]],
            dataclasses.replace(table, labels=[0, 1]),
            rs.load(table.save(tmp_path / f"{name}.certificates")),
        ):
            assert (
                kept.certified_accuracy([0, 1]) == 1
                and kept.certified_accuracy([0, -1]) == 0.5
                and rs.check(kept).all()
            )
            for ask in (kept.certified_accuracy, kept.accuracy_interval, kept.summary, kept.plot):
                for wrong in ([1, 3], [1, -2]):
                    with pytest.raises(
                        ValueError,
                        match=rf"in \[0, 3\), or -1 where unknown, got {wrong[1]} for dataset index 8 \(1 of 2\)",
                    ):
                        ask(wrong)
    with pytest.raises(TypeError, match="got Record; write its .labels"): table.certified_accuracy(votes)
    for wrong in ("0.5", None, -1):
        with pytest.raises(ValueError, match="radius must be >= 0"): table.certified_accuracy([0, 1], wrong)
    by_hand = rs.Certificates(label=[0, 1], radius=[1, 1], norm="l2", alpha=0, method="mine")
    assert by_hand.certified_accuracy([0, 12]) == 0.5
    with pytest.raises(ValueError, match="whole numbers >= 0, or -1 where unknown, got -2"):
        by_hand.certified_accuracy([0, -2])


@pytest.mark.parametrize("name, line", [("c.csv", "to_csv"), ("c.CSV", "to_csv"), ("c.tsv", "write_log")])
def test_a_file_of_certificates_is_not_called_a_table(name, line, tmp_path):
    "`save('c.csv')` wrote what no spreadsheet reads."
    with pytest.raises(ValueError, match=f"is no table; a table: certificates.*{line}"):
        votes().certify("l2").save(tmp_path / name)
    assert not (tmp_path / name).exists()
