"""The shipped table of properties, for every registered certificate, whatever method it comes from.

A new method takes part by registering itself; a new smoothing distribution by the letters of its settings, or by an `example` of its own."""
import importlib
import inspect
import warnings
from dataclasses import replace

import numpy as np
import pytest

import robust_smooth as rs
from robust_smooth import testing
from robust_smooth.core.checks import check
from robust_smooth.core.record import Record
from robust_smooth.core.registry import find_methods, load_methods, register
from robust_smooth.core.values import ABSTAIN
from robust_smooth.methods import sequential

ROWS = {"MixedNormGaussian": 2} # images behind each property; fewer where a radius takes a second
PLAN = sequential.plan([0, 0.1, 0.2, 0.4], 0.4, 0.01, n_max=4000)


def cases():
    "Every method under every noise and in every norm that it certifies."
    for case in testing.cases():
        stop = PLAN if case.entry.sequential and not case.entry.deterministic else None
        yield replace(case, stop=stop, rows=ROWS.get(case.noise, case.rows))


CASES = list(cases())
HELD = [(case, name) for case in CASES for name, (_, applies) in testing.PROPERTIES.items() if applies(case)]


@pytest.mark.parametrize("case, name", HELD, ids=lambda part: str(part))
def test_property(case, name):
    assert testing.check_case(case, name)


def test_every_method_takes_part():
    held = {(case.method, name) for case, name in HELD}
    for method in load_methods():
        assert (method, "batch_equals_loop") in held
        assert (method, "claims_are_proved_again") in held, f"{method} registers no check"


# ---- tampering, beyond one field of the claim ----

SAMPLED = [case for case in CASES if not case.entry.deterministic]


@pytest.mark.parametrize("case", SAMPLED, ids=str)
def test_the_witness_must_fit_the_claim(case):
    "Votes that do not add up, another class, another scale: the witness is no longer that of these certificates."
    table, kept = case.table, case.kept
    witness = dict(table.witness)
    changes = [dict(label=np.where(table.label == ABSTAIN, ABSTAIN, 1 - table.label))]
    if "hits" in witness:
        changes.append(dict(witness=dict(witness, hits=table.n + 1)))
    if "counts" in witness:
        changes.append(dict(witness=dict(witness, counts=witness["counts"] + 1)))
    if "sigma" in witness:
        changes.append(dict(witness=dict(witness, sigma=witness["sigma"] * 5), radius=table.radius * 5))
    for change in changes:
        assert not check(replace(table, **change))[kept].any(), sorted(change)


def test_a_claim_may_be_cut_but_not_mixed():
    case = next(case for case in CASES if (case.method, case.noise, case.norm) == ("gaussian", "Gaussian", "l2"))
    table = case.table
    assert check(table[[0, 3]]).all() and check(table[2]).all()
    assert not check(replace(table[[0, 3]], index=[3, 0])).any()
    assert not check(replace(table, claim=table[[0, 3]].claim)).any()


@pytest.mark.parametrize(
    "method, noise",
    [
        ("gaussian", "RadialGaussian"), ("tcertify", "RadialGaussian"), ("uniform", "Splitting"),
        ("uniform", "Gaussian"), ("splitting", "Gaussian"), ("splitting", "Uniform"),
    ],
)
def test_votes_under_another_noise_are_refused(method, noise):
    entry = load_methods()[method]
    record = Record.from_counts([[1, 0]], [[99, 1]], 100, testing.example(noise), 16)
    with pytest.raises(ValueError, match="record must hold votes under"):
        entry(record, entry.norms[0])


# ---- a call of the room itself passes the same door ----

def room_of(entry):
    "The module of a method, and the name of its `certify` there."
    return importlib.import_module(entry.certify.__module__), entry.certify.__name__


def asked(call):
    "What a call gives: certificates, or the message of its refusal."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call()
        except ValueError as error:
            return str(error)


@pytest.mark.parametrize("case", [case for case in CASES if case.rows == 9], ids=str)
def test_the_room_and_the_record_answer_alike(case):
    room, name = room_of(case.entry)
    direct = getattr(room, name)
    assert direct is not case.entry.certify and inspect.unwrap(direct) is case.entry.certify, (
        f"{room.__name__} is not guarded"
    )
    table = direct(case.votes, norm=case.norm, alpha=case.alpha)
    np.testing.assert_array_equal(table.radius, case.table.radius)
    np.testing.assert_array_equal(table.label, case.table.label)
    assert table.noise == case.table.noise and check(table).all()


@pytest.mark.parametrize("method", sorted(load_methods()))
def test_the_room_and_the_record_refuse_alike(method):
    case = next(case for case in CASES if case.method == method)
    direct, votes, fine = getattr(*room_of(case.entry)), case.votes, dict(norm=case.norm, alpha=case.alpha)
    other = replace(votes, noise=testing.example("Uniform" if case.noise != "Uniform" else "RadialGaussian"))
    asks = [
        (other, fine),
        (votes, dict(fine, norm="l1.5")),
        (votes, dict(fine, norm="none")),
        (replace(votes, domain=(0.0, 2.0)), fine),
    ]
    if "mode" in inspect.signature(direct).parameters:
        asks += [(votes, dict(fine, mode=mode)) for mode in ("exact", "verified", 3)]
    if not case.entry.deterministic:
        asks += [(votes, dict(fine, alpha=0.0)), (replace(votes, selection=0 * votes.selection), fine)]
    if not case.entry.sequential:
        asks.append((replace(votes, plan=dict(n1=10)), fine))
    if case.entry.needs:
        asks.append((replace(votes, moments={}), fine))
    refused = 0
    for record, options in asks:
        here, there = (
            asked(lambda: call(record, **options)) for call in (direct, lambda r, **o: r.certify(method=method, **o))
        )
        assert isinstance(here, str) == isinstance(there, str), (options, here, there)
        if isinstance(here, str):
            assert here == there
            refused += 1
    assert refused >= 3


def test_a_direct_call_is_checked_once(monkeypatch):
    seen, admit = [], rs.core.registry.admit
    monkeypatch.setattr(rs.core.registry, "admit", lambda *given: seen.append(given[0].name) or admit(*given))
    case = next(case for case in CASES if case.method == "gaussian")
    getattr(*room_of(case.entry))(case.votes)
    case.votes.certify(method="gaussian")
    assert seen == ["gaussian", "gaussian"]


def test_a_method_judges_further_norms_when_it_is_asked_by_name():
    "Soap bubbles certify every l_p under radial noise: by either way, and only by name."
    case = next(
        case for case in CASES if (case.method, case.noise, case.norm) == ("soap_bubbles", "RadialGaussian", "l2")
    )
    direct = getattr(*room_of(case.entry))(case.votes, norm=4, alpha=case.alpha)
    named = case.votes.certify(4, method="soap_bubbles", alpha=case.alpha)
    np.testing.assert_array_equal(named.radius, direct.radius)
    assert named.norm == "l4" and check(named).all() and (named.radius[case.kept] < case.table.radius[case.kept]).all()
    with pytest.raises(ValueError, match="no method certifies 'l4'"):
        case.votes.certify(4, alpha=case.alpha)
    with pytest.raises(ValueError, match="methods that fit"):
        case.votes.certify(4, method="gaussian", alpha=case.alpha)


# ---- the choice of a method ----

def test_the_default_depends_on_the_number_of_draws_and_never_on_the_votes():
    exact = register(
        name="few_draws", noises=("Gaussian",), norms=("l2",), rank=99, largest_n=1000,
        certify=load_methods()["gaussian"].certify,
    )
    try:
        assert find_methods("Gaussian", "l2", n=1000)[0] is exact
        assert find_methods("Gaussian", "l2", n=1001)[0].name != "few_draws"
        chosen = [find_methods("Gaussian", "l2", n=n)[-1].name for n in (1001, 10**6)]
        assert chosen == ["few_draws"] * 2
    finally:
        rs.core.registry.METHODS.pop("few_draws")


# ---- a million rows ----

def test_a_million_rows_are_certified_as_the_ten_thousand_that_differ():
    rng = np.random.default_rng(0)
    hits = rng.integers(0, 100_001, 10_000)
    kinds = np.stack([hits, 100_000 - hits], axis=1)[rng.integers(0, 10_000, 1_000_000)]
    record = Record.from_counts(np.tile([100, 0], (1_000_000, 1)), kinds, 100_000, rs.Gaussian(sigma=0.5), 3072)
    seen = []

    def counted(record, **options):
        seen.append(len(record))
        return load_methods()["gaussian"].certify(record, **options)

    table = replace(load_methods()["gaussian"], certify=counted)(record, "l2")
    assert seen == [len(np.unique(kinds[:, 0]))] and len(table) == 1_000_000
    some = rng.integers(0, 1_000_000, 100)
    np.testing.assert_array_equal(table.radius[some], record[some].certify("l2", method="gaussian").radius)
    assert (table.index == np.arange(1_000_000)).all() and check(table[:1000]).all()


NOISES_AT_HAND = [
    rs.Gaussian(sigma=0.5), rs.RoundedGaussian(sigma=0.5, q=16), rs.Uniform(lam=0.5), rs.RoundedUniform(lam=0.4, q=16),
    rs.IndependentSplitting(n_splits=15, q=16), rs.ContinuousSplitting(lam=0.5), rs.Splitting(n_splits=24, q=16),
    rs.RadialGaussian(sigma=0.5, k=1), rs.MixedNormGaussian(sigma=0.5, k=1), rs.LinfGaussian(sigma=0.5, k=1)]


@pytest.mark.parametrize("noise", NOISES_AT_HAND, ids=lambda noise: type(noise).__name__)
@pytest.mark.parametrize("n, alpha", [(24, 0.1), (1000, 0.001), (2, 0.6)])
def test_the_largest_radius_is_that_of_unanimous_votes(noise, n, alpha):
    draws, asked = noise.evaluations if noise.deterministic else n, 0
    record = Record.from_counts([1, 0, 0], [draws, 0, 0], draws, noise, 4)
    for method in find_methods(type(noise).__name__):
        if method.needs or method.largest_radius is None or method.sequential and not method.deterministic:
            continue # plans certify radii of a grid of one's own
        for norm in (norm for kind, norm in method.pairs if kind == type(noise).__name__):
            found = method.largest_radius(noise, draws, alpha, norm, 4)
            assert found == pytest.approx(method(record, norm, alpha).radius[0], rel=1e-12), (method.name, norm)
            asked += 1
    assert asked
