"Certificates, Records and the registry: what they promise and what they refuse."
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import robust_smooth as rs
from robust_smooth.core.certificates import Certificates
from robust_smooth.core.places import write_atomic
from robust_smooth.core.record import Record
from robust_smooth.core.registry import find_methods
from robust_smooth.core.values import ABSTAIN, norm_name
from robust_smooth.noise.additive import Gaussian
from robust_smooth.noise.grid import Splitting


def record(hits=(900, 700, 400), n=1000, index=None, **more):
    counts = np.array([[h, n - h] for h in hits])
    return Record(
        selection=np.tile([80, 20], (len(hits), 1)),
        counts=counts, n=np.full(len(hits), n), noise=Gaussian(sigma=0.5), dim=12,
        index=np.arange(len(hits)) if index is None else np.asarray(index),
        **more,
    )


def test_certified_accuracy_counts_label_and_radius():
    table = Certificates(label=[0, 1, ABSTAIN, 2], radius=[0.5, 0.25, 9.0, 0.1], norm="l2", alpha=0.001, method="m")
    np.testing.assert_array_equal(
        table.certified_accuracy([0, 1, 2, 0], [0, 0.25, 0.25001, 0.5]), [0.5, 0.5, 0.25, 0.25]
    )
    assert table.certified_accuracy([0, 1, 2, 0], 0.25).shape == ()
    assert table.radius[2] == 0  # an abstention has no radius
    with pytest.raises(ValueError, match="labels must have shape"): table.certified_accuracy([0, 1], [0])
    with pytest.raises(ValueError, match="radius must be"): table.certified_accuracy([0, 1, 2, 0], [-1])


def test_lattice_radii_are_compared_in_rationals():
    "Every multiple of 1/255, and just above it: floor(rho * levels) steps, exactly."
    for steps in range(0, 300, 7):
        table = Certificates(label=[0], radius=[steps / 255], steps=[steps], levels=255, norm="l1", alpha=0, method="m")
        assert table.certified_at(Fraction(steps, 255))[0] and not table.certified_at(Fraction(steps + 1, 255))[0]
        assert table.certified_at(Fraction(steps, 255) + Fraction(1, 1000))[0]  # less than one further step
    table = Certificates(label=[0], radius=[1.0], steps=[255], levels=255, norm="l1", alpha=0, method="m")
    assert table.certified_at(1.0)[0] and not table.certified_at(1.004)[0]
    assert not table.certified_at(np.inf)[0]


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(radius=[-0.1]), "radius must be"),
        (dict(radius=[np.nan]), "radius must be"),
        (dict(alpha=1.0), "alpha"),
        (dict(norm="l0.5"), "norm"),
        (dict(alpha_scope="both"), "alpha_scope"),
        (dict(steps=[1]), "levels"),
        (dict(witness=dict(lam=np.zeros(3))), "lam must have one row"),
    ],
)
def test_certificates_refuse(settings, words):
    with pytest.raises(ValueError, match=words):
        Certificates(**(dict(label=[0], radius=[0.1], norm=2, alpha=0.1, method="m") | settings))


def test_frame_and_rows():
    table = record().certify("l2")
    frame = table.to_frame()
    assert list(frame.columns[:4]) == ["index", "label", "radius", "reason"] and (frame["mode"] == "sound").all()
    assert (table[[2, 0]].label == table.label[[2, 0]]).all() and len(table[1]) == 1
    assert "abstain" in repr(table)


def test_record_round_trip(tmp_path):
    whole = record(
        moments=dict(sums=np.random.rand(3, 2, 12)),
        provenance=dict(seed=3, model="abc"),
        images=np.array(["a", "b", "c"]),
        fragile=[0, 1, 2],
    )
    whole.save(tmp_path / "r.votes")
    again = rs.load(tmp_path / "r.votes")
    for name in ("selection", "counts", "n", "index", "fragile", "images"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    np.testing.assert_array_equal(again.moments["sums"], whole.moments["sums"])
    assert again.noise == whole.noise and again.dim == 12 and again.provenance["model"] == "abc"
    assert len(again[[0, 2]]) == 2 and again[[0, 2]].moments["sums"].shape == (2, 2, 12)


def test_concat_says_what_only_some_records_hold():
    with_labels = replace(record(index=[0, 1, 2]), labels=np.zeros(3, int))
    without = record(index=[7, 8, 9])
    with pytest.warns(UserWarning, match="hold no labels: left out"):
        assert Record.concat([with_labels, without]).labels is None
    assert len(Record.concat([with_labels, replace(without, labels=np.ones(3, int))]).labels) == 6


def test_concat_proves_no_more_than_its_parts(tmp_path):
    "Votes that rounding may turn were dropped where another Record knew none, and one stage in the place of two was forgotten."
    splits = Splitting(n_splits=8, q=4)
    def part(counts, index, fragile=None):
        return Record(selection=[[0, 0]], counts=[counts], n=8, noise=splits, dim=4, index=[index], fragile=fragile)
    parts = [part([6, 2], 0, [2]), part([7, 1], 1)]
    alone = [each.certify("l1").steps[0] for each in parts]
    for order in (parts, parts[::-1]):
        with pytest.warns(UserWarning, match="no fragile: taken as 0"): whole = Record.concat(order)
        assert whole.certify("l1").steps.tolist() == alone == [0, 3]
    votes = np.array([[90, 10]])
    once = Record(selection=votes, counts=votes, n=100, noise=Gaussian(sigma=0.5), dim=4)
    twice = Record(selection=[[9, 1]], counts=[[80, 20]], n=100, noise=Gaussian(sigma=0.5), dim=4, index=[1])
    for order in ([once, twice], [twice, once]):
        with pytest.raises(ValueError, match="selection differs"): Record.concat(order)
    for again in (Record.concat([once]), Record.load(once.save(tmp_path / "once.votes"))):
        assert again == once
        with pytest.raises(ValueError, match="same votes twice"): again.certify("l2")


def test_concat_refuses_by_name():
    same = dict(model="m", precision="float32", seed=0, device_type="cpu")
    join = lambda **change: Record.concat([record(provenance=same), record(index=[7, 8, 9], provenance=same | change)])
    assert len(join()) == 6
    for name, value in dict(model="x", precision="bfloat16", seed=1, device_type="cuda").items():
        with pytest.raises(ValueError, match=f"{name} differs"): join(**{name: value})
    with pytest.raises(ValueError, match="several records"): Record.concat([record(), record()])
    with pytest.raises(ValueError, match="at least one"): Record.concat([])
    one, other = (record(index=index, moments={"radial": np.zeros((3, *row))}) for index, row in (([0, 1, 2], (2,)), ([7, 8, 9], (5,))))
    with pytest.raises(ValueError, match=r"row of moments.radial differs: \[2\] and \[5\]"): Record.concat([one, other])


def test_missing_moments_and_early_stops_are_refused():
    with pytest.raises(ValueError, match="needs"): record().certify("l1", method="higher_order")
    stopped = record(plan=dict(name="some plan"))
    with pytest.raises(ValueError, match="stopped early"): stopped.certify("l2", method="gaussian")
    with pytest.raises(ValueError, match="must be one of"): record().certify("l2", method="unheard of")
    with pytest.raises(ValueError, match="joint=True"): record().certify("l2", joint=True)
    with pytest.raises(ValueError, match="alpha"): record().certify("l2", alpha=2)


def test_registry_prefers_the_highest_rank():
    assert find_methods("Gaussian", "l2")[0].name == "exact"
    assert [norm_name(p) for p in (1, 2.0, float("inf"), "Linf")] == ["l1", "l2", "linf", "linf"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"): write_atomic(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("q", [3, 10, 100, 255, 256, 1000])
def test_a_radius_written_as_a_double_is_met_by_its_own_step(q):
    "At radius k/q, k steps are enough and k - 1 are not; a hair below, k - 1 are enough."
    steps = np.arange(q + 1)
    table = Certificates(
        label=np.zeros(q + 1, int), radius=steps / q, steps=steps, levels=q, norm="l1", alpha=0, method="m"
    )
    for k in range(q + 1):
        assert table.certified_at(k / q).sum() == q + 1 - k
    for k in range(1, q + 1):
        assert table.certified_at(np.nextafter(k / q, 0)).sum() == q + 2 - k


def test_labels_travel_from_the_votes_to_the_accuracy(tmp_path):
    whole = record(index=[7, 3, 5], labels=[0, 1, 0])
    whole.save(tmp_path / "a.votes")
    again = rs.load(tmp_path / "a.votes")
    assert again.labels.tolist() == [0, 1, 0] and again.index.tolist() == [7, 3, 5] and again[1].labels.tolist() == [1]
    table = again.certify("l2", method="gaussian")
    assert table.labels.tolist() == [0, 1, 0] and table.index.tolist() == [7, 3, 5]
    np.testing.assert_array_equal(table.certified_accuracy(radii=[0, 10]), table.certified_accuracy([0, 1, 0], [0, 10]))
    with pytest.raises(ValueError, match="labels must be given"):
        record().certify("l2", method="gaussian").certified_accuracy()
    for wrong in ([0, 1], [0.5, 1, 2]):
        with pytest.raises(ValueError, match="labels"):
            record(labels=wrong)


@pytest.mark.parametrize("counts", [[[60, 40]], [[60, 40], [100, 0]]])
def test_the_same_votes_do_not_serve_twice(counts):
    "As one array, as a copy, as lists."
    array, total = np.array(counts), 100
    for twice in ((array, array), (array, array.copy()), (counts, counts)):
        with pytest.raises(ValueError, match="same votes twice"):
            Record.from_counts(*twice, total, Gaussian(sigma=0.5), 12)
    unanimous = np.array([[100, 0]])
    with pytest.raises(ValueError, match="same votes twice"):
        Record.from_counts(unanimous, unanimous, total, Gaussian(sigma=0.5), 12)
    assert Record.from_counts([[100, 0]], [[100, 0]], total, Gaussian(sigma=0.5), 12).hits[0] == 100


def test_a_class_that_nobody_chose_is_not_certified():
    unchosen = Record.from_counts([[0, 0]], [[990, 10]], 1000, Gaussian(sigma=0.5), 12)
    for method in ("gaussian", "tcertify"):
        with pytest.raises(ValueError, match="selection holds no votes"):
            unchosen.certify("l2", method=method)


def test_domain_is_kept_and_checked(tmp_path):
    free = record(domain=None)
    assert rs.load(free.save(tmp_path / "a.votes")).domain is None and record().domain == (0.0, 1.0)
    for wrong in ((1, 0), (0, 1, 2)):
        with pytest.raises(ValueError, match="domain"):
            record(domain=wrong)
    with pytest.raises(ValueError, match="domain differs"):
        Record.concat([record(), record(index=[7, 8, 9], domain=None)])


@pytest.mark.parametrize("header, columns, said", [
    (dict(classes=3), {}, "counts must have the 3 classes|selection must have the 3 classes"),
    ({}, dict(n=None), "n.* are missing"),
    (dict(noise=dict(name="Gaussian")), {}, "sigma"),
    (dict(noise=dict(name="Nobody")), {}, "Nobody"),
])
def test_a_file_that_contradicts_itself_is_refused_by_its_name(tmp_path, header, columns, said):
    from robust_smooth.core.votes_file import write_journal
    block = dict(selection=[[9, 1]], counts=[[90, 10]], n=[100], index=[0]) | columns
    whole = dict(noise=dict(name="Gaussian", sigma=0.5), dim=4, classes=2, plan=None, provenance={}) | header
    write_journal(tmp_path / "odd.votes", whole, [{name: value for name, value in block.items() if value is not None}])
    with pytest.raises(ValueError, match=f"odd.votes.*({said})"):
        Record.load(tmp_path / "odd.votes")


def test_a_radius_is_compared_as_the_number_that_it_is():
    "Before, Fraction(3, 10) became the double below it, which a radius of .3 reaches, and 10**400 an OverflowError."
    table = Certificates(label=[0, 1], radius=[0.3, 1 / 3], norm="l2", alpha=0.001, method="gaussian")
    for radius, certified in (
        (0.3, 2), (Fraction(3, 10), 1), (1 / 3, 1), (Fraction(1, 3), 0), (Fraction(0.3), 2), (0, 2),
        (10**400, 0), (Fraction(10**400), 0), (np.float32(0.25), 2), (np.inf, 0),
    ):
        assert table.certified_at(radius).sum() == certified, radius
        assert table.certified_accuracy([0, 1], radius) == certified / 2
