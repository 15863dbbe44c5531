"""One field of a certificate at a time becomes something stronger: nobody proves that.

Every method that is registered, in every shape that it certifies in, and those that certify something else than a Record; also where the certificates are put
together anew around their witness."""
import warnings
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

import robust_smooth as rs
from robust_smooth import testing
from robust_smooth.core.certificate_file import read_certificates, write_certificates
from robust_smooth.core.checks import check, check_named
from robust_smooth.core.record import Record
from robust_smooth.core.values import ABSTAIN
from robust_smooth.methods import bernstein, sequential, splitting
from robust_smooth.methods.sampled_ratios import certify_monte_carlo

PLAN = sequential.plan([0, 0.1, 0.2, 0.4], 0.4, 0.01, n_max=4000)
GRID = rs.Splitting(n_splits=40, q=50)


class Line(torch.nn.Module):
    "Class 1 where the first input is above 1/2."
    num_classes = 2

    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(16, 2)
        with torch.no_grad():
            self.line.weight.zero_()[:, 0] = torch.tensor([-1.0, 1.0])
            self.line.bias.copy_(torch.tensor([0.5, -0.5]))

    def forward(self, x):
        return self.line(x.flatten(1))


def _images():
    x = torch.full((4, 16), 0.5)
    x[:, 0] = torch.tensor([0.0, 0.2, 0.8, 1.0])
    return x


def _monte_carlo():
    record = Record.from_counts(
        [[1, 0]] * 3, [[950, 50], [990, 10], [500, 500]], 1000, rs.RadialGaussian(sigma=0.5, k=3.0), 16
    )
    return certify_monte_carlo(record, radii=[0.1, 0.2, 0.3], alpha=0.01, draws=5000)


def _head():
    g = np.linspace(0, 1, 6)
    return np.stack(np.broadcast_arrays(1 - g[:, None] - 0.2 * g[None], g[:, None] + 0.2 * g[None]))


def _case(method, noise, norm):
    return testing.Case(method, noise, norm, rows=5)


def _of(method, noise, norm, **options):
    case = _case(method, noise, norm)
    return case.certify(case.votes, **options)


def _joint():
    case = _case("higher_order", "Gaussian", "linf")
    return case.entry.together(case.votes, ["l1", "l2", "linf"], alpha=0.01)[2]


def _planned(**options):
    rule = sequential.plan([0, 0.1, 0.2, 0.4], 0.4, 0.01, n_max=4000, **options)
    case = replace(_case("sequential", "Gaussian", "l2"), stop=rule)
    return case.certify(case.votes)


BESIDE = {  # what the table of properties does not see
    "soft votes": lambda: splitting.certify_soft(Line().eval(), _images(), GRID),
    "audit": lambda: splitting.audit(Line().eval(), _images(), GRID),
    "monte carlo": _monte_carlo,
    "bernstein": lambda: bernstein.certify(_head(), [[0.2, 0.3], [0.9, 0.4]], "l2", keep=True),
    "bernstein in the input": lambda: bernstein.certify(
        _head(), [[0.2, 0.3], [0.9, 0.4]], "l2", lipschitz=2.0, keep=True
    ),
    "one direction": lambda: _of("higher_order", "Gaussian", "l2", direction=np.eye(16)[0]),
    "a subspace": lambda: _of("higher_order", "Gaussian", "linf", subspace=np.eye(16)[:2]),
    "jointly": _joint,
    "tcertify as printed": lambda: _of("tcertify", "Gaussian", "l2", mode="paper"),
    "tcertify with one stage": lambda: _of("tcertify", "Gaussian", "l2", reuse=True),
    "uniform as printed": lambda: _of("uniform", "Uniform", "l1", mode="paper"),
    "half of the radius": lambda: _of("gaussian", "RoundedGaussian", "l2", adversary="continuous"),
    "a plan by the union bound": lambda: _planned(spending="union"),
    "a plan for any time": lambda: _planned(spending="anytime"),
    "a plan of two sides": lambda: _planned(two_sided=True),
}
CASES = {str(case): case for case in testing.cases() if case.noise not in ("MixedNormGaussian", "LinfGaussian")}


@lru_cache(maxsize=None)
def table_of(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in BESIDE:
            return BESIDE[name]()
        case = replace(CASES[name], rows=5)
        if case.entry.sequential and not case.entry.deterministic:
            case = replace(case, stop=PLAN)
        return case.table


def stronger(t):
    "Names and values of one changed field each."
    size = len(t)
    for norm in {"l1", "l2", "linf", "l3"} - {t.norm}: yield dict(norm=norm)
    for scope in {"input", "features", "direction", "subspace:x"} - {t.scope}: yield dict(scope=scope)
    for alpha in [t.alpha / 2, t.alpha * 0.999999, 1e-300, 0.0] if t.alpha else [1e-9, 0.5]: yield dict(alpha=alpha)
    yield dict(alpha_scope="joint" if t.alpha_scope == "single" else "single")
    yield dict(mode="sound" if t.mode == "paper" else "paper")
    yield dict(index=t.index + 1)
    for n in [None, np.ones(size, int)] + ([t.n + 1, t.n - 1, t.n * 10] if t.n is not None else []): yield dict(n=n)
    for name, extreme, sign in (("p_lower", 0.999, 1), ("p_upper", 0.001, -1)):
        shown = getattr(t, name)
        yield {name: np.full(size, extreme)}
        if shown is not None: yield from ({name: shown + sign * 1e-9}, {name: None})
    for radius in (t.radius * 1.001 + 1e-9, t.radius + 1, np.full(size, np.inf)): yield dict(radius=radius)
    if t.steps is not None: yield from (dict(steps=t.steps + 1), dict(levels=t.levels - 1), dict(steps=None))
    yield dict(levels=(t.levels or 0) + 1)
    yield dict(adversary="quantised" if t.adversary == "continuous" else "continuous")
    yield dict(label=np.where(t.label == ABSTAIN, ABSTAIN, (t.label + 1) % 2))
    for kind in {"Gaussian", "RoundedGaussian", "Uniform", "Splitting", "RadialGaussian"} - {
        (t.noise or {}).get("name")
    }:
        yield dict(noise={**(t.noise or dict(sigma=9.0)), "name": kind})
    for name, value in (t.noise or {}).items():
        if isinstance(value, (int, float)): yield dict(noise={**t.noise, name: value * 2})
    yield from (dict(dim=(t.dim or 0) + 1), dict(dim=max(1, (t.dim or 4) // 2)), dict(noise=None), dict(dim=None))
    for method in {"gaussian", "exact", "tcertify", "sequential", "uniform", "soap_bubbles", "splitting"} - {t.method}:
        yield dict(method=method)


def _differs(t, change):
    (name, value), = change.items()
    now = getattr(t, name)
    return (value is None) != (now is None) or not np.array_equal(np.asarray(value, object), np.asarray(now, object))


@pytest.mark.parametrize("name", [*BESIDE, *CASES])
def test_nothing_stronger_is_proved(name):
    t = table_of(name)
    certified = (t.label != ABSTAIN) & (t.radius > 0)
    own = check_named(t.method) # who asks the method itself is told no more
    assert certified.any() and check(t).all() and own(t).all()
    assert check(replace(t, witness=dict(t.witness), claim=None)).all()
    for change in filter(lambda change: _differs(t, change), stronger(t)):
        for again in ({}, dict(claim=None), dict(claim=None, witness=dict(t.witness))):
            for prove in (check, own):
                try:
                    changed = replace(t, **change, **again)
                    proved = prove(changed)
                except ValueError:
                    continue # refused by the words alone
                assert not proved[certified & (changed.label != ABSTAIN)].any(), (change, again)


@pytest.mark.parametrize(
    "name", ["monte carlo", "a plan for any time", "a plan of two sides", "jointly", "audit", "soft votes"]
)
def test_what_was_kept_in_a_file_is_proved_again_and_nothing_stronger(name, tmp_path):
    again = rs.Certificates.load(table_of(name).save(tmp_path / "kept"))
    certified = (again.label != ABSTAIN) & (again.radius > 0)
    assert check(again).all() and certified.any()
    assert not check(replace(again, radius=again.radius * 1.2 + 1e-3))[certified].any()
    assert not check(replace(again, index=again.index + 1, claim=None))[certified].any()


def test_a_word_that_is_changed_in_a_file_with_its_claim(tmp_path):
    "The witness remembers what it was collected for, wherever it is kept."
    for name, change in (("one direction", dict(scope="input")), ("higher_order-Gaussian-l1", dict(norm="linf"))):
        path = table_of(name).save(tmp_path / "kept")
        fields = read_certificates(path)
        write_certificates(path, {**fields, **change, "claim": {**fields["claim"], **change}})
        assert not check(rs.Certificates.load(path)).any()


@pytest.mark.parametrize("missing", ["claim", "label", "radius", "norm", "witness.claimed"])
def test_a_file_that_lacks_a_part_is_damaged_and_one_of_before_is_not(missing, tmp_path):
    path = table_of("gaussian-Gaussian-l2").save(tmp_path / "kept")
    fields = read_certificates(path)
    if missing == "witness.claimed": # files from before the witness remembered: their claim stands for it
        del fields["witness"]["claimed"]
        write_certificates(path, fields)
        again = rs.Certificates.load(path)
        assert check(again).all() and not check(replace(again, norm="linf", claim=None)).any()
        return
    write_certificates(path, {name: value for name, value in fields.items() if name != missing})
    with pytest.raises(ValueError, match="is damaged"): rs.Certificates.load(path)


@pytest.mark.parametrize(
    "method",
    [
        "gaussian", "exact", "tcertify", "sequential", "uniform", "soap_bubbles", "splitting",
        "higher_order", "bernstein",
    ],
)
def test_the_witness_of_another_method_never_meets_a_raw_error(method):
    "Even where somebody made it forget what it was collected for."
    for name in CASES:
        t = table_of(name)
        assert not check(replace(t, method=method, claim=None, witness=dict(t.witness))).any() or t.method == method
        try:
            check(replace(t, method=method).sealed())
        except ValueError as error:
            assert "witness" in str(error) or "votes" in str(error), error


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("higher_order")])
def test_what_a_method_cannot_say_is_refused_even_where_the_witness_forgot(name):
    t = table_of(name)
    kept = (t.label != ABSTAIN) & (t.radius > 0)
    on_grid = [dict(levels=(t.levels or 0) + 1)] if "q" in t.noise else []
    unit = [dict(domain=None)] if t.noise["name"].startswith("Rounded") or "Splitting" in t.noise["name"] else []
    said = [
        dict(scope="direction"),
        dict(scope="subspace:x"),
        dict(alpha_scope="joint"),
        dict(noise=dict(name=t.noise["name"], unheard=1)),
        dict(noise=dict(name="Unheard")),
        dict(alpha=0.0 if t.alpha else 0.5),
        *on_grid,
        *unit,
    ]
    for change in said:
        assert not check(replace(t, **change).sealed())[kept].any(), change


@pytest.mark.parametrize(
    "name, column, value",
    [
        ("one direction", "scale", 1.5),
        ("one direction", "scale", 1e6),
        ("jointly", "scale", 1.5),
        ("higher_order-Gaussian-linf", "scale", 1.0),
        ("higher_order-Gaussian-l1", "scale", 1.5),
        ("a subspace", "scale", 6.0),
        ("uniform-Uniform-l1", "rounded", True),
        ("uniform-ContinuousSplitting-l1", "rounded", True),
        ("uniform as printed", "rounded", True),
        ("exact-Uniform-l1", "s", 0.99),
        ("exact-RoundedUniform-l1", "s", 0.99),
    ],
)
def test_what_a_witness_derives_is_bounded_by_what_is_known(name, column, value):
    "The scale of a ball, half a step for who rounds, the distance of two probabilities: none of them is free."
    t = table_of(name)
    certified = (t.label != ABSTAIN) & (t.radius > 0)
    old = np.asarray(t.witness[column])
    new = value * (old if column == "scale" and value != 1.0 else np.ones_like(old))
    for factor in (1.00001, 1.2, 1.5):
        changes = dict(radius=t.radius * factor, witness={**t.witness, column: new.astype(old.dtype)})
        if t.steps is not None:
            changes |= dict(steps=t.steps + 1, radius=(t.steps + 1) / t.levels)
        assert not check(replace(t, **changes))[certified].any()


@pytest.mark.parametrize("name, found", [("l1", "l2"), ("l1", "linf"), ("l2", "linf")])
def test_a_tree_of_boxes_proves_the_norm_it_was_searched_in(name, found):
    t = bernstein.certify(_head(), [[0.2, 0.3], [0.9, 0.4]], name, keep=True)
    norms = np.full(2, found, dtype=object)
    witness = {column: value for column, value in {**t.witness, "norm": norms}.items() if column != "claimed"}
    assert check(t).all() and not check(replace(t, norm=found, claim=None, witness=witness)).any()


def test_sampled_certificates_say_what_their_inputs_were():
    record = replace(
        Record.from_counts([[1, 0]], [[950, 50]], 1000, rs.RadialGaussian(sigma=0.5, k=3.0), 16), domain=None
    )
    assert certify_monte_carlo(record, radii=[0.1], alpha=0.01, draws=2000).domain is None


def test_what_higher_order_proves_knows_its_ball():
    "Norm and scope stand among its columns: its numbers alone do not tell for which ball they hold."
    t, u = table_of("higher_order-Gaussian-l1"), table_of("one direction")
    for forged in (replace(t, norm="linf").sealed(), replace(u, scope="input").sealed()):
        assert not check(forged)[forged.label != ABSTAIN].any()


def test_true_classes_are_part_of_the_claim():
    record = Record.from_counts([[1, 0]] * 2, [[95, 5], [90, 10]], 100, rs.Gaussian(sigma=0.5), 4)
    table = replace(record, labels=np.array([0, 1])).certify("l2")
    assert check(table).all()
    for again in ({}, dict(claim=None, witness=dict(table.witness))):
        assert check(replace(table, labels=[0, 0], **again)).tolist() == [True, False]
    assert check(replace(record.certify("l2"), labels=[0, 1])).all() # learnt later


@pytest.mark.parametrize("options", [{}, dict(spending="union"), dict(spending="anytime"), dict(two_sided=True)])
def test_a_plan_proves_what_it_tested_and_nothing_else(options):
    "`check` tries no rule but the one that was fixed before the votes: their errors would add up."
    table = _planned(**options)
    certified = (table.label != ABSTAIN) & (table.radius > 0)
    for factor in (1 + 1e-6, 1.01, 1.2):
        assert not check(replace(table, radius=table.radius * factor))[certified].any()
    assert check(replace(table, radius=table.radius * 0.9)).all() # less is true as well


def test_a_class_chosen_from_the_votes_themselves_is_proved_again():
    "With reuse=True the few selection votes do not count, and may have named another class."
    record = Record.from_counts([[6, 4], [6, 4]], [[1897, 2203], [2203, 1897]], 4100, rs.Gaussian(sigma=0.5), 4)
    table = record.certify("l2", method="tcertify", reuse=True, alpha=0.01)
    assert table.label.tolist() == [1, 0] and check(table).all()
    assert not check(replace(table, label=[0, 1])).any()


def _spoiled(column):
    "A column of details with another value in every row."
    column = np.asarray(column)
    if column.dtype.kind in "fiu":
        return np.where(np.isnan(column), 0.5, column / 2 + 1e-3) if column.dtype.kind == "f" else column + 1
    return np.full(len(column), "another", object)


@pytest.mark.parametrize("name", [*BESIDE, *CASES])
def test_no_column_of_details_can_be_changed_added_or_dropped(name):
    "Abstentions, too: what is shown beside a claim was certified with it. Who asks is told which column it is."
    t = table_of(name)
    changes = {key: dict(details={**t.details, key: _spoiled(column)}) for key, column in t.details.items()}
    changes |= {f"{key} dropped": dict(details={k: v for k, v in t.details.items() if k != key}) for key in t.details}
    changes |= {
        "mine": dict(details={**t.details, "mine": np.zeros(len(t))}),
        "reason": dict(reason=np.full(len(t), "because", object)),
    }
    for key, change in changes.items():
        for again in ({}, dict(claim=None), dict(claim=None, witness=dict(t.witness))):
            with pytest.warns(UserWarning, match=f"{key.partition(' ')[0]}.* is not what was certified"):
                assert not check(replace(t, **change, **again)).any(), (key, again)


@pytest.mark.parametrize(
    "name, column, factor",
    [
        ("a plan for any time", "alpha_spent", 0.5),
        ("a plan by the union bound", "alpha_spent", 0.5),
        ("a plan of two sides", "alpha_spent", 0.99),
        ("sequential-Gaussian-l2", "alpha_spent", 0.5),
        ("sequential-Gaussian-l2", "look", 2),
        ("tcertify-Gaussian-l2", "level_top", 0.5),
        ("tcertify with one stage", "level_rival", 3),
        ("higher_order-Gaussian-linf", "l1_upper", 0.5),
        ("one direction", "along_lower", 0.5),
        ("audit", "budget", 100),
        ("bernstein in the input", "feature_radius", 2),
        ("bernstein in the input", "lipschitz", 0.5),
    ],
)
def test_details_that_follow_from_the_witness_are_computed_again(name, column, factor):
    "Even where somebody made it forget what was said of it."
    t = table_of(name)
    certified = (t.label != ABSTAIN) & (t.radius > 0)
    old = np.asarray(t.details[column])
    forged = replace(t, details={**t.details, column: (old * factor + (column == "look")).astype(old.dtype)}).sealed()
    with pytest.warns(UserWarning, match=f"{column}.* is not what the witness proves"):
        assert not check(forged)[certified].any()
    assert check(t.sealed()).all()


@pytest.mark.parametrize(
    "name", [name for name in [*BESIDE, *CASES] if name not in ("tcertify as printed", "uniform as printed")]
)
def test_limits_are_proved_where_a_row_abstains_and_on_both_sides(name):
    t = table_of(name)
    for column, value in (("p_lower", 0.999), ("p_upper", 1e-3)):
        if getattr(t, column) is not None:
            forged = replace(t, **{column: np.full(len(t), value)})
            assert not check(forged.sealed()).any(), column
            assert not check(replace(forged, label=np.full(len(t), ABSTAIN)).sealed()).any(), column


def test_details_in_a_file_are_proved_again(tmp_path):
    "Also one from before the witness remembered them."
    t = table_of("a plan for any time")
    again = rs.Certificates.load(t.save(tmp_path / "kept"))
    assert (
        check(again).all()
        and not check(replace(again, details={**again.details, "alpha_spent": again.details["alpha_spent"] / 2})).any()
    )
    fields = read_certificates(tmp_path / "kept")
    del fields["witness"]["detailed"]
    old = rs.Certificates.load(write_certificates(tmp_path / "old", fields))
    assert check(old).all() and not check(replace(old, reason=["because"] * len(old))).any()
    fields["details"]["alpha_spent"] = fields["details"]["alpha_spent"] / 2
    assert not check(rs.Certificates.load(write_certificates(tmp_path / "old", fields))).any()


def test_bounds_of_the_gradient_are_made_again_from_the_votes():
    case = _case("higher_order", "Gaussian", "l1")
    votes, t = case.votes, case.certify(case.votes)
    prove = check_named("higher_order")
    other = {**t.details, "l2_lower": t.details["l2_lower"] * (1 - 1e-6)}
    assert prove(t, votes).all() and not prove(replace(t, details=other).sealed(), votes)[t.radius > 0].any()


@pytest.mark.parametrize("name", [*BESIDE, *CASES])
def test_steps_say_no_more_than_the_radius(name):
    "Radii are read from the steps where there are some: of methods that know of none, too."
    t = table_of(name)
    certified = (t.label != ABSTAIN) & (t.radius > 0)
    levels = t.levels or (t.noise or {}).get("q", 50)
    for steps in (np.full(len(t), 10**6), np.floor(t.radius * levels).astype(int) + 1, np.full(len(t), -1)):
        assert not check(replace(t, steps=steps, levels=levels).sealed())[certified].any()


@pytest.mark.parametrize("name", [*BESIDE, *CASES])
def test_limits_that_no_votes_prove_are_refused(name):
    "Also of methods that show none."
    t = table_of(name)
    certified = (t.label != ABSTAIN) & (t.radius > 0)
    limits = [dict(p_upper=np.full(len(t), 1e-9))] + [dict(p_lower=np.full(len(t), 1 - 1e-9))] * (t.mode == "sound")
    for change in limits:
        assert not check(replace(t, **change).sealed())[certified].any(), change


def test_a_scope_is_a_word_and_not_its_beginning():
    t = table_of("gaussian-Gaussian-l2")
    for scope in ("input ", "inputs", "subspace", ""):
        assert not check(replace(t, scope=scope).sealed()).any()
    for change, said in ((dict(scope=None), "scope must be"), (dict(noise="Gaussian"), "noise must be"),
                         (dict(alpha="0.001"), "alpha must be"), (dict(alpha=np.array([0.001])), "alpha must be")):
        with pytest.raises(ValueError, match=said): replace(t, **change)


@pytest.mark.parametrize("name", ["exact-Gaussian-l2", "exact-Uniform-l1", "a plan of two sides"])
def test_the_share_for_the_interval_was_fixed_before_the_votes(name):
    "The best of several shares would have more than the error of one."
    t = table_of(name)
    certified = (t.label != ABSTAIN) & (t.radius > 0)
    for factor in (1e-9, 0.5, 2):
        assert not check(replace(t, witness={**t.witness, "beta": t.witness["beta"] * factor}).sealed())[certified].any()


@pytest.mark.parametrize(
    "name, column, value",
    [
        ("tcertify-Gaussian-l2", "selected", 7),
        ("tcertify-Gaussian-l2", "selected", -10**6),
        ("a plan by the union bound", "spending", "l2"),
        ("jointly", "scale", 0.0),
        ("a subspace", "scale", 0.0),
        ("bernstein", "label", np.inf),
    ],
)
def test_nonsense_in_a_witness_is_no_proof_and_no_raw_error(name, column, value):
    t = table_of(name)
    kind = object if isinstance(value, str) else None
    witness = {**t.witness, column: np.full(np.shape(t.witness[column]), value, kind)}
    try:
        assert not check(replace(t, witness=witness).sealed())[(t.label != ABSTAIN) & (t.radius > 0)].any()
    except ValueError as error:
        assert "witness" in str(error)


def test_votes_below_zero_are_none():
    t = table_of("tcertify-Gaussian-l2")
    counts = np.array(t.witness["counts"])
    rows, rivals = np.arange(len(t)), (t.witness["selected"] + 1) % 2
    counts[rows, t.witness["selected"]] += 10**6
    counts[rows, rivals] -= 10**6
    assert (counts.sum(1) == t.n).all() and not check(replace(t, witness={**t.witness, "counts": counts}).sealed()).any()


def test_scores_are_probabilities():
    t = table_of("soft votes")
    certified = (t.label != ABSTAIN) & (t.radius > 0)
    for change in (dict(scores=t.witness["scores"] * 2), dict(margin=-t.witness["margin"])):
        assert not check(replace(t, witness={**t.witness, **change}).sealed())[certified].any()


@pytest.mark.parametrize("name", ["higher_order-Gaussian-linf", "one direction"])
@pytest.mark.parametrize("far", [1e5, 1e10, 1e50, 1e155, 1e200, 1e300])
def test_a_displacement_beyond_all_scores_is_not_proved(name, far):
    t = table_of(name)
    certified = (t.label != ABSTAIN) & (t.radius > 0)
    for factor in (1.0, 1e40):
        witness = {**t.witness, "r": np.full(len(t), far), "l1": t.witness["l1"] * factor}
        assert not check(replace(t, radius=t.radius * 1e3, witness=witness).sealed())[certified].any()
