"Whose votes are these: draws of one vote are not those of another, a file keeps what it held, columns are what they say."
import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

import robust_smooth as rs
from robust_smooth.core.record import Record
from robust_smooth.core.votes_file import Journal

RNG = np.random.default_rng(0)
COUNTS, CHOSEN = (RNG.multinomial(n, [0.7, 0.2, 0.1], 6) for n in (1000, 100))
SUMS = RNG.random((6, 2))


def record(**more):
    facts = dict(stream=2, seed=0, n=1000, n0=100, noise=dict(name="Gaussian", sigma=0.5), stop=None, shape=[2, 5])
    fields = dict(
        selection=CHOSEN, counts=COUNTS, n=1000, noise=rs.Gaussian(sigma=0.5), dim=10,
        index=[8, 2, 4, 0, 6, 1], labels=[0, 0, 1, 0, 2, 0],
        images=np.array(list("abcdef")),
        fragile=np.arange(6),
        moments=dict(sums=SUMS),
        provenance=facts,
    )
    return Record(**fields | more)


@pytest.mark.parametrize("change, said", [
    (dict(noise=rs.Gaussian(sigma=1.0)), "noise of the record is .*1.0.*cast with .*0.5"),
    (dict(counts=2 * COUNTS, n=2000), "n of the record is 2000, but its votes were cast with 1000"),
    (dict(counts=COUNTS + CHOSEN, n=1100), "n of the record is 1100"),
    (dict(selection=COUNTS + CHOSEN), "n0 of the record is 1100, but its votes were cast with 100"),
    (dict(dim=20), "dim of the record is 20, but its votes were cast with 10"),
])
def test_a_record_of_other_facts_than_its_votes_is_not_certified(change, said):
    "Before, a noise of twice the scale made radii of twice the length, and the same draws counted twice longer ones."
    with pytest.raises(ValueError, match=said): replace(record(), **change).certify("l2")
    assert record().certify("l2").radius.max() > 0.2


def test_a_plan_is_not_forgotten(half_space):
    import torch
    smooth = rs.Smoothed(rs.wrap(half_space([1.0, 0.0], 0.5), mean=0, std=1), rs.Gaussian(sigma=0.5))
    plan = rs.sequential.plan([0.1], n1=20, n_max=200)
    stopped = smooth.vote(torch.rand(3, 2), n0=10, stop=plan, progress=False)
    assert len(stopped.certify("l2")) == 3
    with pytest.raises(ValueError, match="plan of the record is None, but its votes were cast with"):
        replace(stopped, plan=None).certify("l2", method="gaussian")


def test_one_stage_is_not_two_on_some_images_either():
    "Before, one image with votes of its own hid all others."
    counts = np.random.default_rng(0).multinomial(50, [0.4, 0.3, 0.3], 200)
    for own in (1, 100):
        chosen = np.vstack([np.roll(counts[:own], 1, 1), counts[own:]])
        with pytest.raises(ValueError, match="the same votes twice"):
            Record(selection=chosen, counts=counts, n=50, noise=rs.Gaussian(sigma=0.5), dim=2).certify("l2", alpha=0.1)
    apart = np.random.default_rng(1).multinomial(50, [0.4, 0.3, 0.3], 200)
    assert (
        len(Record(selection=apart, counts=counts, n=50, noise=rs.Gaussian(sigma=0.5), dim=2).certify("l2", alpha=0.1))
        == 200
    )


def test_images_under_other_names_bring_no_new_draws():
    twice = replace(record(), index=record().index + 100)
    with pytest.raises(ValueError, match="are one image with the same votes"): Record.concat([record(), twice])
    # the same image twice in a data set
    fresh = replace(twice, counts=np.random.default_rng(1).multinomial(1000, [0.7, 0.2, 0.1], 6))
    assert len(Record.concat([record(), fresh])) == 12


def test_equal_images_have_equal_votes_under_splits():
    "Nothing is drawn there: images that a data set holds twice are no second vote."
    whole = dict(noise=rs.Splitting(n_splits=1000, q=255), provenance={}, selection=np.zeros_like(COUNTS))
    twice = replace(record(**whole), index=np.arange(6) + 100)
    assert len(Record.concat([record(**whole), twice])) == 12


def test_a_sum_beyond_64_bits_is_no_number_of_draws():
    with pytest.raises(ValueError, match="add up to n"):
        Record(selection=CHOSEN[:1], counts=[[2**63 - 1, 2**63 - 1, 12]], n=10, noise=rs.Gaussian(sigma=0.5), dim=2)


@pytest.mark.parametrize("name", ["labels", "index"])
@pytest.mark.parametrize(
    "values",
    [
        [0, 1, 2, 0, 1, np.inf],
        np.array([0, 1, 2, 0, 1, 2**63], np.uint64),
        [0, 1, 2, 0, 1, 1e30],
        [0, 1, 2, 0, 1, 0.5],
        np.ma.masked_array([0, 1, 2, 3, 4, 5], mask=np.arange(6) == 2),
        [0, 1],
        [3],
        3,
    ],
)
def test_columns_that_are_no_whole_numbers_one_an_image(name, values):
    "Before, 2^63 became a negative index, infinity any number, a masked class a known one, and certificates cut fractions off."
    for table in (record(), record().certify("l2")):
        with pytest.raises(ValueError, match=name): replace(table, **{name: values})


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(images=["a", "b"]), "images must be 6 hashes"),
        (dict(images=np.array(list("abcdefg"))), "images must be 6 hashes"),
        (dict(images=np.arange(6)), "images must be 6 hashes"),
        (dict(fragile=[1, 2]), "fragile must have shape"),
        (dict(moments=dict(sums=3)), "moments.'sums'. must have one row per image"),
        (dict(counts=np.ma.masked_array(COUNTS, mask=COUNTS > 500)), "masked"),
    ],
)
def test_columns_that_do_not_fit_are_refused_by_name(change, said):
    with pytest.raises(ValueError, match=said): replace(record(), **change)


def test_labels_of_certificates():
    table = record().certify("l2")
    with pytest.raises(ValueError, match="masked"):
        table.certified_accuracy(np.ma.masked_array([0] * 6, mask=[True] * 6))
    with pytest.raises(ValueError, match="label must be classes"): replace(table, label=[-2] * 6)
    with pytest.warns(
        UserWarning, match="differ from the true classes .* for 2 of 6 images, such as 0 and 1 for dataset index 4"
    ):
        table.certified_accuracy([0] * 6)


def test_the_votes_own_labels_and_summaries_are_told_nothing(recwarn):
    table = record().certify("l2")
    assert table.certified_accuracy(table.labels) == table.certified_accuracy()
    table.certified_accuracy([0, -1, -1, 0, 2, 0])
    assert table.summary().certified[0] == 1 and not recwarn.list


def test_what_is_equal_and_what_is_not(tmp_path):
    whole = record()
    for same in (
        copy.deepcopy(whole),
        pickle.loads(pickle.dumps(whole)),
        Record.load(whole.save(tmp_path / "a.votes")),
        whole[::-1][::-1],
    ):
        assert same == whole and same.certify("l2") == whole.certify("l2")
    table = whole.certify("l2")
    assert rs.Certificates.load(table.save(tmp_path / "a.certificates")) == table
    for other in (whole[::-1], whole[:3], replace(whole, labels=None), replace(whole, noise=rs.Gaussian(sigma=1.0)), 3):
        assert other != whole
    for other in (table[::-1], whole.certify("l2", alpha=0.01), replace(table, radius=table.radius / 2), whole):
        assert other != table
    with pytest.raises(TypeError, match="unhashable"): hash(whole)


@pytest.mark.parametrize(
    "rows", [6, -7, 1.0, True, None, [True, False], np.array([0.0, 1.0]), [[0, 1], [2, 3]], (0, 1), "a"]
)
def test_what_names_no_rows(rows):
    for table in (record(), record().certify("l2")):
        with pytest.raises(IndexError, match="rows of 6 must be a number, a slice, a mask or a list"): table[rows]


def test_a_saved_record_that_a_vote_went_on_with_is_sorted(tmp_path):
    "Before, the rows of the vote stood behind the saved ones as they were finished, and labels in order met other images."
    path = record()[:3].save(tmp_path / "a.votes")
    assert Record.load(path).index.tolist() == [8, 2, 4]
    with Journal(path) as journal:
        for row in (3, 5, 4):
            journal.append(record()[row].rows())
    again = Record.load(path)
    assert again == record()[np.argsort(record().index)]


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(counts=COUNTS[::-1]), "other votes on 6 of its 6 images"),
        (dict(counts=COUNTS // 2, n=(COUNTS // 2).sum(1)), "other votes on 6"),
        (dict(selection=np.vstack([CHOSEN[:5], CHOSEN[:1]])), "other votes on 1 of its 6 images"),
        (dict(labels=None), "labels of its images"),
        (dict(moments={}), "moments.sums of its images"),
    ],
)
def test_votes_that_are_overwritten_are_kept(tmp_path, change, said):
    path = record().save(tmp_path / "a.votes")
    with pytest.warns(UserWarning, match=said): replace(record(), **change).save(path)
    assert Record.load(f"{path}.before-1") == record()


def test_votes_that_say_more_than_the_file_replace_it(tmp_path, recwarn):
    path = replace(record(), labels=None).save(tmp_path / "a.votes")
    record()[::-1].save(path)
    assert Record.load(path) == record()[::-1] and not recwarn.list and len(list(tmp_path.iterdir())) == 1


def test_certificates_that_are_overwritten_are_kept(tmp_path):
    table = record().certify("l2")
    path = table.save(tmp_path / "a.certificates")
    record().certify("l2", alpha=0.01).save(path) # of the same images: a script that runs again
    with pytest.warns(UserWarning, match="certificates of 6 images, 4 of which are not among the 2 saved now"):
        table[:2].save(path)
    assert len(rs.Certificates.load(f"{path}.before-1")) == 6


@pytest.mark.parametrize(
    "save",
    [
        lambda place: record().save(place),
        lambda place: record().certify("l2").save(place),
        lambda place: record().certify("l2").write_log(place),
        lambda place: Record.load(place),
    ],
)
def test_a_home_that_only_a_shell_knows(tmp_path, monkeypatch, save):
    "Before, a folder with the name ~ was made in the working folder."
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="only a shell reads ~"): save("~/deep/a.file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings, said",
    [
        (dict(digits=0), "digits must"),
        (dict(digits=1.5), "digits must"),
        (dict(digits="3"), "digits must"),
        (dict(seconds=[1, 2]), "one number or 6"),
        (dict(seconds="a"), "one number or 6"),
        (dict(seconds=-1), "seconds"),
    ],
)
def test_settings_of_a_log_that_do_not_fit(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said): record().certify("l2").write_log(tmp_path / "a.tsv", **settings)


@pytest.mark.parametrize("digits", [16, 17, 30, 400])
def test_many_digits_are_all_digits_or_fewer(tmp_path, digits):
    table = record().certify("l2")
    lines = table.write_log(tmp_path / "a.tsv", digits=digits).read_text().splitlines()[1:]
    written = np.array([float(line.split("\t")[3]) for line in lines])
    assert np.all(written <= table.radius) and np.allclose(written, table.radius, rtol=1e-14)


def test_a_setting_that_came_later_and_another_spelling_are_no_other_noise():
    rounded = dict(record().provenance, noise=dict(name="Gaussian", sigma=1))
    assert len(replace(record(), noise=rs.Gaussian(sigma=1.0), provenance=rounded).certify("l2")) == 6
    unknown = dict(record().provenance, noise=dict(name="Gaussian", sigma=0.5, former=3))
    with pytest.raises(ValueError, match="noise of the record"): replace(record(), provenance=unknown).certify("l2")
