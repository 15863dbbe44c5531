"What stands between votes and a method: the caller's float errors stay outside, labels are classes of the network."
import warnings
import dataclasses

import numpy as np
import pytest

import robust_smooth as rs
from robust_smooth.core.registry import find_methods, method_named

VOTES = [[1000, 0], [900, 100], [501, 499], [0, 1000]]
NOISES = [rs.Gaussian(sigma=0.5), rs.Uniform(lam=0.5), rs.RoundedGaussian(sigma=0.5), rs.LinfGaussian(sigma=0.5, k=0.5)]


def record_of(noise, labels=None, dim=3072):
    return rs.Record.from_counts(np.eye(2, dtype=int)[[0, 0, 0, 1]] * 10, VOTES, 1000, noise, dim, labels=labels)


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_certificates_do_not_depend_on_how_the_caller_treats_float_errors(noise):
    "Before, `exact`, `uniform` and the soap bubbles raised FloatingPointError wherever a tail underflowed."
    record = record_of(noise)
    for method in find_methods(type(noise).__name__):
        if method.needs or method.sequential:
            continue
        for norm in {norm for kind, norm in method.pairs if kind == type(noise).__name__}:
            usual = method(record, norm)
            with np.errstate(all="raise"):
                found = method(record, norm)
                assert np.array_equal(found.radius, usual.radius)
                assert rs.check(found).all()
                assert set(np.geterr().values()) == {"raise"}


@pytest.mark.parametrize("wrong", [2, 12, -2, 2**62])
def test_labels_that_are_no_classes_of_the_network_are_refused(wrong):
    record = record_of(NOISES[0], labels=[0, 1, wrong, 1])
    with pytest.raises(
        ValueError, match=rf"labels must be classes in \[0, 2\), or -1 where unknown, got {wrong} for dataset index 2"
    ):
        record.certify("l2")
    mended = dataclasses.replace(record, labels=[0, 1, -1, 1]).certify("l2")
    assert mended.certified_accuracy() == 0.5 # the first and the last: what is unknown is never right
    assert dataclasses.replace(record, labels=None).certify("l2").labels is None


def test_every_method_takes_the_modes_that_it_says():
    seen = set()
    for name in ("gaussian", "exact", "tcertify"):
        record = rs.Record.from_counts([[90, 10]], [[900, 100]], 1000, rs.Gaussian(sigma=0.5), dim=8)
        plain = record.certify("l2", method=name)
        assert record.certify("l2", method=name, mode="sound").radius == plain.radius and plain.mode == "sound"
        modes = method_named(name).modes
        seen.add(modes)
        if "paper" not in modes:
            with pytest.raises(ValueError, match="mode must be.*mode=.paper. goes with method=.tcertify.$"):
                record.certify("l2", method=name, mode="paper")
        with pytest.raises(TypeError, match=rf"{name}.*no option 'foo'; its options: \["):
            record.certify("l2", method=name, foo=1)
    assert seen == {("sound",), ("sound", "paper")}


@pytest.mark.parametrize(
    "call, said",
    [(lambda: rs.list_methods("gaussian"), "'Gaussian'"), (lambda: rs.list_methods(norm="l7"), "'l1', 'l2', 'linf'")],
)
def test_a_list_of_nothing_is_a_question(call, said):
    with pytest.raises(ValueError, match=said): call()


def test_a_list_is_asked_for_by_class_and_by_name():
    assert rs.list_methods(rs.Gaussian).equals(rs.list_methods("Gaussian")) and len(
        rs.list_methods(rs.Gaussian(sigma=1.0))
    )
    record = rs.Record.from_counts([[90, 10]], [[900, 100]], 1000, rs.Gaussian(sigma=0.5), dim=8)
    with pytest.raises(ValueError, match="soap_bubbles"): record.methods("l5")


@pytest.mark.parametrize("noise", NOISES[:3], ids=repr)
def test_one_stage_is_not_two_however_the_record_was_made(noise):
    "Before, `Record(...)` and `replace` took the same votes for both stages, and certificates erred 1.16 alpha (up to 1.73)."
    counts = np.random.default_rng(0).multinomial(50, [0.5, 0.5], 500)
    apart = rs.Record.from_counts(np.roll(counts, 1, 0), counts, 50, noise, 2)
    same = (
        dataclasses.replace(apart, selection=apart.counts),
        rs.Record(selection=counts, counts=counts, n=50, noise=noise, dim=2),
    )
    for method in find_methods(type(noise).__name__):
        if method.needs:
            continue
        norm = next(norm for kind, norm in method.pairs if kind == type(noise).__name__)
        method(apart[:30], norm, 0.1)
        for record in same:
            with pytest.raises(ValueError, match="two separate stages, got the same votes twice"):
                method(record, norm, 0.1)
    if "Gaussian" in type(noise).__name__:
        same[0].certify("l2", "tcertify", alpha=0.1, reuse=True) # which pays
    one = rs.Record(selection=[[19, 1]], counts=[[19, 1]], n=20, noise=noise, dim=2) # by chance
    assert len(one.certify(alpha=0.1)) == 1


def test_one_array_is_never_two_stages_however_few_images_there_are():
    noise, counts = rs.Gaussian(sigma=0.5), np.array([[540, 460]])
    apart = rs.Record.from_counts([[60, 40]], counts, 1000, noise, 4)
    again = dataclasses.replace(apart, selection=apart.counts)
    made = rs.Record(selection=counts, counts=counts, n=1000, noise=noise, dim=4)
    for record in (again, made, made[:1], dataclasses.replace(made, labels=[0])):
        with pytest.raises(ValueError, match="two separate stages"): record.certify("l2", "gaussian", alpha=0.01)
        assert len(record.certify("l2", "tcertify", alpha=0.01, reuse=True)) == 1
    both = np.array([[[540, 460]], [[600, 400]]])
    assert rs.Record(selection=both[0], counts=both[1], n=1000, noise=noise, dim=4).certify("l2", alpha=0.01).radius > 0


@pytest.mark.parametrize("method", ["gaussian", "exact", "tcertify"])
@pytest.mark.parametrize("alpha", [5e-324, 1e-200, 0.9e-100])
def test_levels_beyond_what_limits_bear_are_refused_with_the_level_that_was_given(method, alpha):
    record = rs.Record.from_counts([[90, 10]], [[900, 100]], 1000, rs.Gaussian(sigma=0.5), 4)
    with pytest.raises(ValueError, match=f"alpha must be at least 1e-100.*got {alpha!r}"):
        record.certify("l2", method, alpha=alpha)


def test_numbers_of_draws_that_differ_are_asked_about():
    noise, selection, counts = rs.Gaussian(sigma=0.5), [[60, 40]] * 2, [[540, 460], [60, 40]]
    with pytest.warns(UserWarning, match="n differs from image to image, from 100 to 1000"):
        rs.Record.from_counts(selection, counts, [1000, 100], noise, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rs.Record.from_counts(selection[:1], counts[:1], [1000], noise, 4)
        rs.Record.from_counts(selection[:1] * 2, counts[:1] * 2, [1000, 1000], noise, 4)
