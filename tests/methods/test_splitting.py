"Splitting noise and its certificates: bit-exact noise, budgets and audits against exhaustive enumeration, bad input."
import json
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product
from math import ceil

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import robust_smooth as rs
from robust_smooth.methods import splitting
from robust_smooth.training import data, models
from robust_smooth.core.record import Record
from robust_smooth.core.registry import find_methods, noise_from_spec, noise_spec
from robust_smooth.core.values import ABSTAIN
from robust_smooth.noise.additive import Uniform
from robust_smooth.noise.grid import (
    IndependentSplitting, n_splits, offsets, split_levels, Splitting,
)
from robust_smooth.smoothed import check as check_any
from robust_smooth.methods.splitting import (
    audit, audit_cost, audit_votes, budget, certify, check, crossings, EarlyExit,
    partial_budget, soft_budget,
)
from robust_smooth.voting.votes import count_votes, vote


# ---------------------------------------------------------------- noise

def test_noise_equals_the_rational_formula_on_every_small_cell():
    cells = 0
    for q in range(1, 10):
        for count in range(1, 3 * q + 2):
            X, k = np.arange(q + 1), np.arange(count)[:, None]
            got = split_levels(X, k, count, q)
            for phase in range(count):
                s, width = Fraction(2 * phase + 1, 2 * q), Fraction(count, q)
                for level in range(q + 1):
                    cell = ceil((Fraction(level, q) - s) / width)
                    value = (min(width * cell + s, Fraction(1)) + max(width * (cell - 1) + s, Fraction(0))) / 2
                    assert Fraction(int(got[phase, level]), 4 * q) == value, (q, count, phase, level)
                    cells += 1
            if count >= q: # the two-cell form
                assert np.array_equal(got, np.minimum(2 * k + 1, 2 * q) + 2 * q * (X > k))
    assert cells == sum((q + 1) * count for q in range(1, 10) for count in range(1, 3 * q + 2))

def test_only_the_phase_modulo_n_matters():
    X, k = np.arange(17), np.arange(27)[:, None]
    assert np.array_equal(split_levels(X, k, 27, 16), split_levels(X, k + 27 * 5, 27, 16))
    assert np.array_equal(split_levels(X, k, 27, 16), split_levels(X, k - 27, 27, 16))

def test_printed_examples():
    assert split_levels(1, 3, 5, 4) == 7                                   # figure 1b: 7/16
    assert split_levels(np.arange(5), 0, 1, 4).tolist() == [1, 4, 8, 12, 15]

@pytest.mark.parametrize("count, q", [(27, 16), (8, 16), (193, 16), (441, 255), (132, 255)])
def test_visits_are_bit_exact_for_all_pieces(count, q):
    noise = Splitting(n_splits=count, q=q, seed=3)
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(q + 1, (3, 5, 4), generator=generator)
    image = (levels / q).float()
    expected = split_levels(
        levels.numpy().ravel(), (np.arange(count)[:, None] + offsets(3, count, 60)) % count, count, q
    )
    expected = (expected.astype(np.float32) / np.float32(4 * q)).reshape(count, 3, 5, 4)
    for piece in (1, 7, count):
        got = np.concatenate(
            [
                noise.visit(image, start, torch.empty(min(piece, count - start), 3, 5, 4)).numpy()
                for start in range(0, count, piece)
            ]
        )
        assert np.array_equal(got, expected)
    layout = torch.empty(count, 3, 5, 4).contiguous(memory_format=torch.channels_last)
    assert np.array_equal(noise.visit(image, 0, layout).numpy(), expected)
    assert np.array_equal(noise.visit(image.double(), 0, torch.empty(count, 3, 5, 4)).numpy(), expected)

def test_table_and_arithmetic_give_the_same_bits(monkeypatch):
    import robust_smooth.noise.grid as module
    image = torch.arange(17)[None] / 16
    results = []
    for limit in (2**22, 0):
        monkeypatch.setattr(module, "TABLE_LIMIT", limit)
        results.append(
            [Splitting(n_splits=count, q=16).visit(image, 0, torch.empty(count, 1, 17)) for count in (1, 5, 16, 55)]
        )
    assert all(torch.equal(a, b) for a, b in zip(*results))

def test_sixteen_bit_images():
    noise, levels = Splitting(n_splits=70_001, q=65535), torch.tensor([0, 1, 257, 40_000, 65_534, 65_535])
    image = (levels.double() / 65535).float()                               # float32: off the grid by up to 4e-3 steps
    assert torch.equal(noise.levels(image), levels.int())
    assert torch.equal(noise.levels(levels.to(torch.uint16)), levels.int())
    phases = (np.arange(70_001)[:, None] + noise.offsets(6)) % 70_001
    expected = split_levels(levels.numpy(), phases, 70_001, 65535)
    assert expected.dtype == np.int32
    got = noise.visit(image, 35_000, torch.empty(100, 6)).numpy()
    assert np.array_equal(got, (expected[35_000:35_100] / (4 * 65535)).astype(np.float32))
    # distinct numerators stay distinct in float32
    for q in (16, 255, 65535):
        values = (np.arange(4 * q + 1) / (4 * q)).astype(np.float32)
        assert len(np.unique(values)) == 4 * q + 1

def test_noise_levels_are_exact():
    sigmas = ["0.15"] + [Fraction(k, 4) for k in range(1, 15)]
    assert [n_splits(255, sigma=s) for s in sigmas] == [
        132, 220, 441, 662, 883, 1104, 1325, 1545, 1766, 1987, 2208, 2429, 2650, 2870, 3091,
    ]
    assert [n_splits(16, sigma=float(s)) for s in map(Fraction, sigmas)] == [
        8, 13, 27, 41, 55, 69, 83, 96, 110, 124, 138, 152, 166, 180, 193,
    ]
    assert (
        n_splits(50, lam=0.29)
        == n_splits(50, lam="29/100")
        == n_splits(50, lam=Fraction(29, 100))
        == 29
        != int(2 * 0.29 * 50)
    )
    assert n_splits(2, sigma=Fraction(1, 4)) == 1 and n_splits(4, lam="0.6875") == 5
    for q in (16, 50, 255, 256):
        for hundredths in range(1, 400, 7):
            lam = hundredths / 100
            if 2 * Fraction(hundredths, 100) * q >= 1: assert n_splits(q, lam=lam) == 2 * hundredths * q // 100
    assert Splitting.from_sigma(3.5, q=255).n_splits == 3091 and Splitting.from_lam(0.29, q=50).lam == 29 / 100

def test_published_noise_levels(request):
    table = request.config.rootpath / "data" / "papers" / "dssn.csv"
    frame = pd.read_csv(table)
    frame = frame[(frame["item"] == "noise_levels") & (frame["metric"] == "n_splits")]
    assert len(frame) >= 30
    for setting, value in zip(frame["setting"], frame["value"]):
        setting = json.loads(setting)
        assert n_splits(int(setting["q"]), sigma=str(setting["sigma"])) == int(float(value))

def test_offsets_are_the_same_everywhere():
    assert (
        offsets(0, 441, 3072)[:8].tolist() == [172, 47, 117, 192, 323, 251, 195, 359]
        and offsets(0, 441, 3072).sum() == 674994
    )
    assert offsets(0, 27, 64)[:8].tolist() == [12, 15, 21, 0, 3, 3, 7, 9] and offsets(0, 27, 64).sum() == 818
    noise = Splitting(n_splits=27, q=16)
    own = Splitting(n_splits=27, q=16, shifts=tuple(int(v) + 27 for v in offsets(0, 27, 64)))
    assert noise.fingerprint(64) == own.fingerprint(64) != Splitting(n_splits=27, q=16, seed=1).fingerprint(64)
    again = noise_from_spec(json.loads(json.dumps(noise_spec(own))))
    assert again == own and noise_from_spec(noise_spec(noise)) == noise
    with pytest.raises(ValueError, match="one offset per input"): own.offsets(63)

def test_moments_of_the_quantised_law():
    q = 16
    for count in (16, 17, 40, 193): # lam' >= 1/2: mean 1/2 + (x - 1/2) / 4 lam'
        means = split_levels(np.arange(q + 1), np.arange(count)[:, None], count, q).sum(0)
        assert [Fraction(int(m), 4 * q * count) for m in means] == [
            Fraction(1, 2) + (Fraction(x, q) - Fraction(1, 2)) * Fraction(q, 2 * count) for x in range(q + 1)
        ]
    for count in range(1, 9):       # cells that are not cut off: mean x, variance (N^2 - 1) / 12 q^2
        for x in range(count, q - count + 1):
            values = [Fraction(int(z), 4 * q) for z in split_levels(x, np.arange(count), count, q)]
            assert sum(values) / count == Fraction(x, q)
            assert sum((v - Fraction(x, q))**2 for v in values) / count == Fraction(count**2 - 1, 12 * q**2)
    for count in (3, 9, 30):        # the law of q - X mirrors the law of X
        for x in range(q + 1):
            assert sorted(split_levels(x, np.arange(count), count, q)) == sorted(
                4 * q - split_levels(q - x, np.arange(count), count, q)
            )

def test_training_noise_comes_from_the_visited_splits():
    noise, generator = Splitting(n_splits=9, q=4, seed=1), torch.Generator().manual_seed(0)
    images = torch.randint(5, (200, 1, 2, 2), generator=generator) / 4
    noisy = noise.augment(images, generator)
    views = torch.stack([noise.visit(image, 0, torch.empty(9, 1, 2, 2)) for image in images])
    hits = (views == noisy[:, None]).flatten(2).all(2)
    assert hits.any(1).all()
    drawn = noise.perturb(images[0], generator, torch.empty(500, 1, 2, 2))
    shares = (views[0][:, None] == drawn[None]).flatten(2).all(2).float().mean(1)
    assert (views[0][:, None] == drawn[None]).flatten(2).all(2).any(0).all() and (shares > 0).all()
    free = IndependentSplitting(n_splits=9, q=4).perturb(images[0], generator, torch.empty(50, 1, 2, 2))
    possible = split_levels((images[0].view(-1) * 4).int().numpy(), np.arange(9)[:, None], 9, 4) / 16
    assert all(np.isin(free.view(50, 4)[:, i].numpy(), possible[:, i]).all() for i in range(4))

@pytest.mark.parametrize(
    "spoil, entry",
    [
        (lambda x: x + 0.003, "0, 0, 0, 0"),
        (lambda x: (x - 0.5) / 0.3, "0, 0, 0, 0"),
        (lambda x: x * float("nan"), "nan"),
        (lambda x: x + 1, "0, 0, 0, 1"),
        (
            lambda x: x.index_put(
                (torch.tensor([1]), torch.tensor([0]), torch.tensor([2]), torch.tensor([3])), torch.tensor(0.3)
            ),
            "1, 0, 2, 3",
        ),
    ],
)
def test_off_grid_images_are_refused_with_the_mending_line(spoil, entry):
    images = (torch.arange(32).view(2, 1, 4, 4) % 17) / 16
    noise = Splitting(n_splits=27, q=16)
    noise.check_images(images)
    for call in (
        lambda x: noise.check_images(x),
        lambda x: noise.visit(x[0], 0, torch.empty(3, 1, 4, 4)) if entry[0] != "1" else noise.check_images(x),
        lambda x: IndependentSplitting(n_splits=27, q=16).check_images(x),
        lambda x: audit(_tiny(16, 3), x, noise),
    ):
        with pytest.raises(ValueError, match=r"\.round\(\) / 16"): call(spoil(images))
    with pytest.raises(ValueError, match=entry): noise.check_images(spoil(images))

def test_bad_settings_are_named():
    for bad in (0, -3, 2.5, True, float("nan")):
        with pytest.raises(ValueError, match="n_splits"): Splitting(n_splits=bad, q=16)
    with pytest.raises(ValueError, match="q must"): Splitting(n_splits=5, q=0)
    with pytest.raises(ValueError, match="seed"): Splitting(n_splits=5, q=4, seed=-1)
    with pytest.raises(ValueError, match="at least 1"): Splitting.from_lam("0.03", q=16)
    with pytest.raises(ValueError, match="above 0"): n_splits(16, sigma=-1)
    with pytest.raises(TypeError, match="lam"): n_splits(16, lam=True)
    with pytest.raises(ValueError, match="splits must lie"):
        Splitting(n_splits=5, q=4).visit(torch.zeros(2), 4, torch.empty(2, 2))
    with pytest.raises(ValueError, match="images must be floats"):
        Splitting(n_splits=5, q=4).check_images(torch.zeros(1, 2, dtype=torch.int64))
    assert Splitting(n_splits=5, q=255).levels(torch.tensor([[0, 255]], dtype=torch.uint8)).tolist() == [[0, 255]]


# ---------------------------------------------------------------- budgets

def _rewritable(counts):
    "Largest number of votes that can be rewritten in every way without a change of winner, by trying all ways."
    start, winner, steps = tuple(counts), int(np.argmax(counts)), 0
    reach, classes = {start}, range(len(counts))
    while steps < sum(counts):
        reach |= {
            tuple(c[i] - (i == a) + (i == b) for i in classes)
            for c in reach
            for a in classes
            if c[a]
            for b in classes
            if b != a
        }
        if any(np.argmax(c) != winner for c in reach): return steps
        steps += 1
    return steps

def test_budget_equals_exhaustive_rewriting():
    for classes, largest in ((2, 8), (3, 8), (4, 6)):
        votes = [v for v in product(range(largest + 1), repeat=classes) if 0 < sum(v) <= largest]
        labels, L = budget(votes)
        assert np.array_equal(labels, np.argmax(votes, 1))
        assert L.tolist() == [_rewritable(v) for v in votes]

def test_budget_by_hand():
    assert budget([6, 4]) == (0, 1) and budget([4, 6]) == (1, 0)
    assert (
        budget([5, 5]) == (0, 0) and budget([0, 7]) == (1, 3) and budget([8, 0]) == (0, 4) and budget([0, 8]) == (1, 3)
    )
    assert budget([1]+[0]*9) == (0, 0)
    labels, L = budget(np.array([[[3, 9], [9, 3]], [[6, 6], [12, 0]]]))
    assert labels.tolist() == [[1, 0], [0, 0]] and L.tolist() == [[2, 3], [0, 6]]
    assert L.dtype == np.int64
    for bad, word in (
        ([3], "two classes"), ([1.5, 2], "whole"), ([-1, 4], "whole"), ([[]], "two classes"),
        ([np.nan, 1], "whole"),
    ):
        with pytest.raises(ValueError, match=word): budget(bad)

def test_fragile_votes_belong_to_the_attacker():
    rng = np.random.default_rng(0)
    for _ in range(300): # any F votes may say anything, at x and at x': the guarded budget survives them all
        votes = rng.integers(0, 3, 7)
        fragile = rng.random(7) < 0.3
        label, L = budget(np.bincount(votes, minlength=3), fragile.sum())
        if label == ABSTAIN: continue
        for here in product(range(3), repeat=int(fragile.sum())):
            turned = votes.copy()
            turned[fragile] = here
            assert np.bincount(turned, minlength=3).argmax() == label
            assert _rewritable(np.bincount(turned, minlength=3)) >= L

def test_partial_budget_bounds_all_completions():
    rng = np.random.default_rng(1)
    for _ in range(150):
        counts, missing = rng.integers(0, 6, 3), int(rng.integers(0, 5))
        ends = np.array(
            [counts + np.bincount(rest, minlength=3) for rest in product(range(3), repeat=missing)]
            if missing
            else [counts]
        )
        labels, budgets = budget(ends)
        label, low, high = partial_budget(counts, missing)
        assert (label == labels[0]) if len(set(labels)) == 1 else label == ABSTAIN
        assert high == budgets.max() and (label == ABSTAIN or low == budgets.min())

def test_soft_budget_against_the_worst_rewriting():
    rng = np.random.default_rng(2)
    for _ in range(60):
        scores = rng.dirichlet((1.5, 0.7, 0.7), 6)
        label, L = soft_budget(scores)
        if label == ABSTAIN: continue
        def overturned(chosen):
            changed = scores.copy()
            return any(
                (np.where(np.isin(np.arange(6), chosen)[:, None], np.eye(3)[rival], changed).sum(0)).argmax() != label
                for rival in range(3)
            )
        subsets = lambda size: combinations(range(6), size)
        assert not any(overturned(list(s)) for s in subsets(L))
        if L < 6: assert any(overturned(list(s)) for s in subsets(L + 1))
        assert soft_budget(scores, rule="lipschitz")[1] <= L
    with pytest.raises(ValueError, match="softmax"): soft_budget([[2.0, -1.0]])
    with pytest.raises(ValueError, match="rule"): soft_budget([[0.5, 0.5]], rule="other")


# ---------------------------------------------------------------- certificates

def _record(counts, count, q=16, **more):
    return Record(
        selection=np.atleast_2d(counts),
        counts=np.atleast_2d(counts),
        n=np.atleast_2d(counts).sum(1),
        noise=Splitting(n_splits=count, q=q),
        dim=64,
        index=None,
        **more,
    )

def test_certified_at_is_decided_in_whole_steps():
    table = certify(_record([[0, 255], [128, 127]], 255, q=255))
    assert table.steps.tolist() == [127, 0] and table.levels == 255 and table.alpha == 0
    # a perturbation of norm 0.5 has at most 127 steps
    assert table.radius[0] == 127 / 255 < 0.5 and table.certified_at(0.5)[0]
    assert not certify(_record([[0, 255], [128, 127]], 255, q=255), mode="paper").certified_at(0.5)[0]
    # never abstains: rho = 0 is clean accuracy
    assert table.certified_at(0).all()
    accuracy = table.certified_accuracy([1, 0], np.linspace(0, 1, 40))
    assert (np.diff(accuracy) <= 0).all() and accuracy[0] == 1
    for L in (357, 459, 663, 714, 918, 969): # 1.4, 1.8, ...: float32 radii fail there
        row = certify(_record([2 * L, 0], 2 * L, q=255))
        assert row.steps[0] == L and row.certified_at(L / 255)[0] and row.certified_at(Fraction(L, 255))[0]

def test_even_and_odd_numbers_of_splits():
    assert certify(_record([0, 132], 132)).steps[0] == certify(_record([0, 131], 131)).steps[0] == 65
    assert certify(_record([132, 0], 132)).steps[0] == 66

def test_continuous_attackers_get_half():
    table = certify(_record([[9, 1], [10, 0]], 10), adversary="continuous")
    assert table.radius.tolist() == [5 / 32, 6 / 32] and table.steps is None

def test_real_valued_counterexample():
    "Erratum E4: L = 2 on the grid, yet real perturbations of norm just above 0.3 change the class, so (L + 1) / 2q = 0.3 is all there is."
    q, noise = 5, Splitting(n_splits=5, q=5, shifts=(1, 4, 3))
    weight, bias = torch.tensor([[-3.0, -1, 0], [1, -2, 1]]), torch.tensor([35.0, 8])
    vote_of = lambda z: (4 * q * z @ weight.T + bias).argmax(1)
    x = torch.tensor([2.0, 0, 1]) / 5
    counts = torch.bincount(vote_of(noise.visit(x, 0, torch.empty(5, 3))), minlength=2).numpy()
    assert counts.tolist() == [0, 5] and budget(counts) == (1, 2)
    def smoothed(z): # the real-valued smoothing: cuts at half-steps, the same cells
        cuts = (np.arange(5)[:, None] + noise.offsets(3)) % 5
        cell = np.ceil((5 * np.asarray(z) - 0.5 - cuts) / 5)
        upper, lower = cell * 5 + cuts + 0.5, (cell - 1) * 5 + cuts + 0.5
        values = (np.minimum(upper, 5) + np.maximum(lower, 0)) / 10
        return np.bincount(vote_of(torch.tensor(values, dtype=torch.float32)).numpy(), minlength=2).argmax()
    assert smoothed(x.numpy()) == 1
    grid = np.arange(-6, 7)
    found = [
        sum(map(abs, step))
        for step in product(grid, repeat=3)
        if sum(map(abs, step)) <= 6
        and (point := x.numpy().astype(float) + np.array(step) / 20 * 1.0001).min() >= 0
        and smoothed(point) != 1
    ]
    assert min(found) == 6 # 6 twentieths = 0.3

def test_nominal_noise_level_would_be_wrong():
    "Erratum E3: 2 lam q = 5.5 and N = 5; the nominal level claims a step that is not safe."
    assert budget([1, 3, 1]) == (1, 0) and budget([2, 2, 1])[0] == 0
    assert Fraction(11, 16) * 2 * (3 - 1) / (2 * 5) > Fraction(1, 4)

def test_record_is_checked():
    with pytest.raises(ValueError, match="number of splits"): certify(_record([4, 4], 9))
    with pytest.raises(ValueError, match="visited"): certify(_record([6, 4], 9))
    with pytest.raises(ValueError, match="l1"): certify(_record([5, 4], 9), norm="l2")
    with pytest.raises(ValueError, match="mode"): certify(_record([5, 4], 9), mode="fast")
    with pytest.raises(ValueError, match="adversary"): certify(_record([5, 4], 9), adversary="any")
    with pytest.raises(ValueError, match="offsets differ"):
        certify(_record([5, 4], 9, provenance=dict(offsets="0" * 64)))
    assert (
        certify(_record([5, 4], 9, provenance=dict(offsets=Splitting(n_splits=9, q=16).fingerprint(64)))).steps[0] == 0
    )
    early = _record([5, 0], 9, plan=dict(kind="early exit"))
    assert (
        certify(early).label[0] == 0
        and certify(early).steps[0] == 0
        and certify(_record([3, 0], 9, plan=dict())).label[0] == ABSTAIN
    )

def test_registered():
    method = find_methods("Splitting", "l1")[0]
    assert method.name == "splitting" and method.deterministic and method.sequential
    record = _record([[3, 2, 22], [27, 0, 0]], 27, fragile=[1, 0])
    table = record.certify("l1")
    assert table.steps.tolist() == [8, 13] and check(table).all() and method.largest_radius(record.noise) == 13 / 16


# ---------------------------------------------------------------- through the engine

def _tiny(d, classes, seed=0, width=12, scale=4.0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(d, width), nn.Tanh(), nn.Linear(width, classes)).eval()
        with torch.no_grad(): net[1].weight.mul_(scale)
    return net

@pytest.fixture(scope="module")
def digits(): return data.load("digits", "test", subset=12)

def test_counts_do_not_depend_on_the_batch_size(digits):
    noise, net = Splitting.from_sigma(1, q=16), models.seeded(lambda: models.mlp(64, 10)).eval()
    settings = dict(num_classes=10, seed=0, progress=False)
    first = count_votes(net, digits.images, noise, 1, batch_size=512, **settings)
    own = np.array(
        [np.bincount(net(noise.visit(x, 0, torch.empty(55, 1, 8, 8))).argmax(1), minlength=10) for x in digits.images]
    )
    for size in (1, 37, 55):
        other = count_votes(net, digits.images, noise, 1, batch_size=size, **settings)
        assert (np.abs(first.counts - other.counts).sum(1) <= 2 * np.maximum(first.fragile, other.fragile)).all()
    assert (first.counts.sum(1) == 55).all() and (np.abs(first.counts - own).sum(1) <= 2 * first.fragile).all()

def test_early_exit_agrees_with_the_full_vote(digits):
    noise, net = Splitting.from_sigma(1, q=16), models.seeded(lambda: models.mlp(64, 10)).eval()
    settings = dict(num_classes=10, batch_size=64, progress=False)
    full = vote(net, digits.images, noise, **settings)
    assert (
        full.provenance["offsets"] == noise.fingerprint(64) and (full.n == 55).all() and check(full.certify("l1")).all()
    )
    for radius in (0, 0.25, 1.0, 5.0):
        early = vote(net, digits.images, noise, stop=EarlyExit(radius=radius, noise=noise), **settings)
        assert np.array_equal(early.certify("l1").certified_at(radius), full.certify("l1").certified_at(radius))
        assert (early.n <= 55).all() and (early.n < 55).any()
        assert (early.certify("l1").steps <= full.certify("l1").steps).all()
    with pytest.raises(ValueError, match="deterministic"):
        vote(net, digits.images, Uniform(lam=1.0), 100, stop=EarlyExit(radius=1, noise=noise), **settings)

def test_engine_refuses_what_would_be_unsound(digits):
    noise, net = Splitting.from_sigma(1, q=16), models.seeded(lambda: models.mlp(64, 10))
    with pytest.raises(ValueError, match="training"):
        vote(net.train(), digits.images, noise, num_classes=10, progress=False)
    with pytest.raises(ValueError, match="evaluation mode"): audit(net, digits.images, noise)
    with pytest.raises(ValueError, match="grid"):
        vote(net.eval(), digits.images * 0.99, noise, num_classes=10, progress=False)
    with pytest.raises(ValueError, match=r"of shape \(1, classes\)"):
        audit(nn.Sequential(nn.Flatten(), nn.Linear(64, 1)).eval(), digits.images, noise)

class DropsRows(nn.Module):
    "Answers half of the rows where there are many: a trial of a few does not see it."
    def __init__(self):
        super().__init__()
        self.net = models.seeded(lambda: models.mlp(64, 10)).eval()
    def forward(self, x): return self.net(x)[:len(x) if len(x) < 20 else len(x) // 2]

@pytest.mark.parametrize("look", [audit, splitting.soft_record])
def test_rows_that_a_network_drops_are_missed(digits, look):
    with pytest.raises(ValueError, match=r"logits of shape \(55, classes\), got \(27, 10\)"):
        look(DropsRows().eval(), digits.images[:1], Splitting.from_sigma(1, q=16))


# ---------------------------------------------------------------- the audit

def _audit_by_programme(votes, neighbours, classes):
    "The audit with a dynamic programme over splits, straight from its definition."
    counts = np.bincount(votes, minlength=classes)
    A, best = int(counts.argmax()), []
    for B in range(classes):
        if B == A: continue
        worth = lambda c: int(c == A) - int(c == B)
        need, most = counts[A] - counts[B] + (A < B), {0: 0}
        for t, c in enumerate(votes):
            once = max([worth(c) - worth(v) for v in np.flatnonzero(neighbours[t])] + [0])
            options, new = ((0, 0), (1, once), (2, worth(c) + 1)), {}
            for cost, loss in most.items():
                for step, gain in options: new[cost + step] = max(new.get(cost + step, -1), loss + gain)
            most = new
        best.append(min(cost for cost, loss in most.items() if loss >= need))
    return A, min(best) - 1

def test_closed_form_of_the_knapsack():
    rng = np.random.default_rng(3)
    for _ in range(400):
        count, classes = int(rng.integers(1, 9)), int(rng.integers(2, 5))
        votes, neighbours = rng.integers(0, classes, count), rng.random((count, classes)) < rng.random()
        label, steps, kinds, need = audit_votes(votes, neighbours)
        assert (label, steps) == _audit_by_programme(votes, neighbours, classes)
        assert steps >= budget(np.bincount(votes, minlength=classes))[1]
    assert audit_cost([[0, 0, 0, 0, 0]], [1])[0] > 10**6 and audit_cost([1, 0, 0, 0, 0], 0) == 0

def _domains():
    "Tiny domains with arbitrary random classifiers: d, q, N, classes."
    rng = np.random.default_rng(4)
    for d, q, repeats in (
        (1, 4, 60), (1, 8, 40), (2, 2, 160), (2, 3, 160), (2, 4, 140), (2, 6, 60), (3, 2, 160),
        (3, 3, 80), (4, 2, 60),
    ):
        for _ in range(repeats):
            yield rng, d, q, int(rng.integers(1, 3 * q + 1)), int(rng.integers(2, 5))

def test_no_certificate_exceeds_the_truth():
    "Every point of every domain: L <= audit <= truth, the truth by enumerating all other points. No tolerance."
    points = strict = 0
    for rng, d, q, count, classes in _domains():
        X = np.array(list(product(range(q + 1), repeat=d)))
        phases = (np.arange(count)[:, None] + rng.integers(0, count, d)) % count
        Z = split_levels(X[:, None], phases[None], count, q).astype(np.int64)           # [points, N, d]
        key = (Z * (4 * q + 1) ** np.arange(d)).sum(-1)
        if rng.random() < 0.5:
            table = rng.integers(0, classes, (4 * q + 1) ** d)  # an arbitrary classifier
        else:  # a smoother one: random directions
            values = np.stack(np.meshgrid(*[np.arange(4 * q + 1)] * d, indexing="ij")[::-1], -1).reshape(-1, d)
            table = (values @ rng.normal(size=(d, classes)) + 2 * q * rng.normal(size=classes)).argmax(1)
        votes = table[key]
        counts = (votes[..., None] == np.arange(classes)).sum(1)
        label, L = budget(counts)
        distance = np.abs(X[:, None] - X[None]).sum(-1)
        truth = np.where(label[:, None] != label[None], distance, 10**6).min(1) - 1
        assert (L <= truth).all()
        for i in rng.permutation(len(X))[:40]:
            row, feature, value = crossings(X[i], phases, count, q)
            assert len(row) == (np.minimum(count, q - X[i]) + np.minimum(count, X[i])).sum()
            near = Z[i, row].copy()
            near[np.arange(len(row)), feature] = value
            seen = np.zeros((count, classes), bool)
            seen[row, table[(near * (4 * q + 1) ** np.arange(d)).sum(1)]] = True
            winner, audited, _, _ = audit_votes(votes[i], seen)
            assert winner == label[i] and L[i] <= audited <= truth[i], (d, q, count, i)
            points, strict = points + 1, strict + (audited > L[i])
    assert points >= 20_000 and strict > 0.2 * points, (points, strict)

def test_lipschitz_bound_on_all_pairs():
    "Corollary 1 with tolerance 0, and equality somewhere."
    rng, pairs, equal = np.random.default_rng(5), 0, 0
    for d, q, repeats in ((1, 6, 60), (2, 3, 60), (2, 5, 60), (3, 2, 60)):
        X = np.array(list(product(range(q + 1), repeat=d)))
        steps = np.abs(X[:, None] - X[None]).sum(-1)
        for _ in range(repeats):
            count = int(rng.integers(1, 3 * q + 1))
            key = (
                split_levels(
                    X[:, None], (np.arange(count)[:, None] + rng.integers(0, count, d)) % count, count, q
                ).astype(int)
                * (4 * q + 1) ** np.arange(d)
            ).sum(-1)
            hits = rng.integers(0, 2, (4 * q + 1) ** d)[key].sum(1)
            gap = np.abs(hits[:, None] - hits[None])
            assert (gap <= steps).all()
            pairs, equal = pairs + gap.size, equal + (gap == steps).sum() - len(X)
    assert pairs > 100_000 and equal > 0

def test_audit_of_a_network_against_the_truth():
    for seed, (d, q, count) in enumerate([(2, 4, 7), (2, 5, 3), (3, 3, 5), (3, 2, 9), (2, 8, 13)]):
        net, noise = _tiny(d, 3, seed), Splitting(n_splits=count, q=q, seed=seed)
        X = torch.tensor(list(product(range(q + 1), repeat=d)))
        grid = (X / q).float()
        with torch.inference_mode():
            counts = np.array(
                [np.bincount(net(noise.visit(x, 0, torch.empty(count, d))).argmax(1), minlength=3) for x in grid]
            )
        label, L = budget(counts)
        distance = (X[:, None] - X[None]).abs().sum(-1).numpy()
        truth = np.where(label[:, None] != label[None], distance, 10**6).min(1) - 1
        table = audit(net, grid, noise)
        kept = table.label != ABSTAIN
        assert (
            kept.mean() > 0.9
            and np.array_equal(table.label[kept], label[kept])
            and (table.steps[kept] <= truth[kept]).all()
            and check(table).all()
        )
        solid = table.details["budget"] == L
        assert (table.steps >= table.details["budget"]).all() and solid.mean() > 0.8
        expected = count + (np.minimum(count, q - X) + np.minimum(count, X)).sum(1).numpy()
        assert (table.details["evaluations"] <= expected).all() and np.array_equal(
            table.details["evaluations"][solid], expected[solid]
        )
        full = audit(net, grid, noise, fast=False, batch_size=17)
        assert np.array_equal(full.steps, table.steps) and np.array_equal(full.label, table.label)
        for radius in (1 / q, 2 / q):
            partial = audit(net, grid, noise, radius=radius)
            assert (
                np.array_equal(partial.certified_at(Fraction(str(radius))), table.certified_at(Fraction(str(radius))))
                and (partial.steps <= table.steps).all()
            )

def test_soft_votes_of_a_network_against_the_truth():
    for seed, (d, q, count) in enumerate([(2, 4, 7), (2, 5, 3), (3, 2, 9)]):
        net, noise = _tiny(d, 3, seed), Splitting(n_splits=count, q=q, seed=seed)
        X = torch.tensor(list(product(range(q + 1), repeat=d)))
        grid = (X / q).float()
        with torch.no_grad(): net[3].weight.mul_(8), net[3].bias.zero_()
        with torch.inference_mode():
            scores = np.stack(
                [net(noise.visit(x, 0, torch.empty(count, d))).softmax(1).double().sum(0).numpy() for x in grid]
            )
        label, distance = scores.argmax(1), (X[:, None] - X[None]).abs().sum(-1).numpy()
        truth = np.where(label[:, None] != label[None], distance, 10**6).min(1) - 1
        table = splitting.certify_soft(net, grid, noise)
        kept = table.label != ABSTAIN
        assert (
            kept.mean() > 0.9
            and np.array_equal(table.label[kept], label[kept])
            and (table.steps[kept] <= truth[kept]).all()
            and (table.steps > 0).any()
        )
        assert (splitting.certify_soft(net, grid, noise, rule="lipschitz").steps <= table.steps).all()
        assert (
            check(table).all()
            and not check(replace(table, steps=table.steps + 1, radius=(table.steps + 1) / q))[kept].any()
        )

@pytest.mark.parametrize("change", [
    dict(counts=1),
    dict(spare=-1),
    dict(counts=-1, spare=2),
])
def test_votes_that_do_not_add_up_prove_nothing(change):
    "Each class gets a vote more than there were splits, or a missing vote is forgotten, or votes are called missing."
    noise = Splitting(n_splits=7, q=4)
    grid = torch.tensor([[0.0, 0.25], [0.75, 1.0]])
    net = _tiny(2, 3)
    table = vote(net, grid, noise, num_classes=3, progress=False).certify("l1")
    table = table[table.label != ABSTAIN][:1]
    assert len(table) == 1 and check_any(table).all()
    witness = dict(table.witness)
    for name, more in change.items():
        witness[name] = witness[name] + more
    assert not check_any(replace(table, witness=witness)).any()


def test_soft_record_is_certified_again_from_disk(tmp_path):
    net, noise = _tiny(2, 3), Splitting(n_splits=7, q=4)
    grid = torch.tensor(list(product(range(5), repeat=2))) / 4
    record = splitting.soft_record(net, grid, noise, batch_size=3)
    record.save(tmp_path / "soft.votes")
    again, table = Record.load(tmp_path / "soft.votes").certify(norm="l1"), splitting.certify_soft(net, grid, noise)
    assert np.array_equal(again.steps, table.steps) and np.array_equal(
        again.details["budget"], budget(record.counts)[1]
    )
    assert np.array_equal(record.certify(norm="l1", soft=False).steps, budget(record.counts)[1])
    continuous = splitting.certify_soft(net, grid, noise, adversary="continuous")
    assert continuous.steps is None and check(continuous).all() and check_any(table).all()
    assert {table.method, again.method} == {"splitting_soft"} and record.certify(
        norm="l1", soft=False
    ).method == "splitting"  # another classifier, another name
    with pytest.raises(ValueError, match="holds no scores"):
        certify(splitting.audit_record(net, grid, noise), audit=False, soft="touched")

def test_audit_record_is_certified_again_from_disk(tmp_path):
    net, noise = _tiny(2, 3), Splitting(n_splits=7, q=4)
    grid = torch.tensor(list(product(range(5), repeat=2))) / 4
    record = splitting.audit_record(net, grid, noise)
    again = Record.load(record.save(tmp_path / "audit.votes"))
    direct = audit(net, grid, noise)
    for table in (record.certify("l1"), again.certify("l1"), again.certify("l1", audit=True)):
        assert (
            np.array_equal(table.steps, direct.steps)
            and np.array_equal(table.label, direct.label)
            and check(table).all()
        )
    assert np.array_equal(again.certify("l1", audit=False).steps, direct.details["budget"])
    half = audit(net, grid, noise, adversary="continuous")
    kept = direct.label != ABSTAIN
    assert np.array_equal(half.radius[kept], (direct.steps[kept] + 1) / 8) and check(half).all()
    with pytest.raises(ValueError, match="kinds"): _record([20, 7], 27).certify("l1", audit=True)

def test_audit_reaches_beyond_the_ceiling_of_lipschitz_certificates():
    "A constant classifier: no neighbour ever changes a vote, so every split must be crossed twice."
    class Constant(nn.Module):
        def forward(self, x): return torch.tensor([0.0, 1.0]).expand(len(x), 2)
    noise = Splitting(n_splits=9, q=4)
    table = audit(Constant().eval(), torch.zeros(1, 3), noise)
    assert table.steps[0] == 9 and table.details["budget"][0] == 4 and table.radius[0] > noise.lam

def test_fast_path_sees_through_wrapping(digits):
    net = models.wrap(nn.Sequential(*models.seeded(lambda: models.mlp(64, 10))), mean=[0.4], std=[0.3])
    noise = Splitting.from_sigma(0.5, q=16)
    head, weight, rest = splitting.leading_linear(net, (1, 8, 8))
    x = digits.images[:3]
    assert torch.allclose(rest(head(x)), net(x), atol=1e-5) and weight.shape == (64, 128)
    fast, full = audit(net, x, noise), audit(net, x, noise, fast=False)
    assert np.array_equal(fast.steps, full.steps) and np.array_equal(fast.witness["kinds"], full.witness["kinds"])
    assert splitting.leading_linear(models.small_convnet(), (1, 8, 8)) is None
    assert (fast.details["evaluations"] == 27 + 64 * 16).all()

def test_attack_cannot_break_a_certificate(digits):
    "Greedy steps on the pixel grid against the smoothed class: never within the certified number of steps."
    net, noise = models.seeded(lambda: models.mlp(64, 10)).eval(), Splitting.from_sigma(0.5, q=16)
    smoothed = lambda x: np.bincount(net(noise.visit(x, 0, torch.empty(27, 1, 8, 8))).argmax(1), minlength=10)
    with torch.inference_mode():
        for image, steps in zip(digits.images[:4], audit(net, digits.images[:4], noise).steps):
            levels, start = (image * 16).round().int().view(-1), smoothed(image)
            label, rng = start.argmax(), np.random.default_rng(0)
            for _ in range(int(steps)):
                options = []
                for i, sign in zip(rng.integers(0, 64, 12), rng.choice([-1, 1], 12)):
                    moved = levels.clone()
                    moved[i] = (moved[i] + sign).clamp(0, 16)
                    options.append((smoothed((moved / 16).view(1, 8, 8))[label], moved))
                levels = min(options, key=lambda option: option[0])[1]
            assert smoothed((levels / 16).view(1, 8, 8)).argmax() == label


@pytest.mark.parametrize("q", [3, 4, 16, 255])
def test_a_radius_of_whole_steps_is_asked_for_in_whole_steps(q):
    "k / q is a double a little above or below the fraction; it asks for k steps."
    noise = Splitting(n_splits=2 * q + 1, q=q)
    assert [EarlyExit(radius=k / q, noise=noise).steps for k in range(1, q + 1)] == list(range(1, q + 1))
    assert EarlyExit(radius=np.nextafter(1 / q, 0), noise=noise).steps == 0


class _Odd(torch.nn.Module):
    "A network that is no function of its row: it tosses coins, or remembers, or looks at its neighbours."

    def __init__(self, kind):
        super().__init__()
        self.kind, self.calls = kind, 0

    def forward(self, x):
        self.calls += 1
        x = torch.nn.functional.dropout(x, 0.5, training=True) if self.kind == "coins" else x
        m = x.flatten(1)[:, :1] - 0.5
        m = m + 0.3 * (-1)**self.calls if self.kind == "memory" else m
        m = m - 0.5 * m.mean(0) if self.kind == "company" else m
        return torch.cat([m, -m], 1)


@pytest.mark.parametrize(
    "kind, said", [("coins", "two answers"), ("memory", "two answers"), ("company", "depend on each other")]
)
def test_exact_certificates_are_of_functions(kind, said):
    "What a vote refuses, an audit and soft votes refuse as well: no alpha pays for a network that is no function."
    noise, x = Splitting(n_splits=8, q=16), torch.arange(16).reshape(4, 4) / 16
    for certify in (audit, splitting.certify_soft):
        torch.manual_seed(0) # of the coins
        with pytest.raises(ValueError, match=said): certify(_Odd(kind).eval(), x, noise)
        assert len(certify(_Odd("none").eval(), x, noise)) == 4


def test_images_with_their_axes_moved():
    "Photographs come with their colours last; permuted, they are views."
    noise, photos = Splitting(n_splits=8, q=16), (torch.arange(4 * 6 * 3) % 17).reshape(2, 2, 6, 3) / 16
    moved, net = photos.permute(0, 3, 1, 2), _Odd("none").eval()
    net.num_classes = 2
    for certify in (audit, splitting.certify_soft):
        assert np.array_equal(certify(net, moved, noise).radius, certify(net, moved.contiguous(), noise).radius)
    for each in (noise, IndependentSplitting(n_splits=8, q=16)):
        smooth = rs.Smoothed(rs.wrap(net, mean=0, std=1), each)
        want = smooth.vote(moved.contiguous(), n=100, n0=10, progress=False).counts
        for given in (
            moved,
            (moved, torch.zeros(2, dtype=torch.int64)),
            rs.data.ImageSet(moved, torch.zeros(2, dtype=torch.int64)),
            list(moved),
        ):
            assert np.array_equal(smooth.vote(given, n=100, n0=10, progress=False).counts, want)
        assert (
            smooth.predict(moved, n=100, progress=False).shape == (2,)
            and smooth.estimate(moved, n=100, seconds=0.01).images == 2
        )
