"What a vote would leave out, ignore or refuse later is said before it, in words of the user's."
import dataclasses
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

import robust_smooth as rs
from robust_smooth.maths.bounds import tail_at_least
from robust_smooth.maths.looks import _exact_boundaries, _one_look
from robust_smooth.methods import draws

X, Y = torch.rand(10, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3
SETTINGS = dict(n=200, progress=False, alpha=None, batch_size=64)


def smooth(noise=None, inputs=4):
    torch.manual_seed(0)
    return rs.Smoothed(rs.wrap(rs.models.mlp(in_features=inputs, num_classes=3)), noise or rs.Gaussian(sigma=0.5))


def record(n=1000, hits=990, noise=None, **settings):
    return rs.Record.from_counts([[100, 0, 0]], [[hits, n - hits, 0]], n, noise or rs.Gaussian(sigma=0.5), 4, **settings)


def heard(action):
    "What an action returns, and what it warns of."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = action()
    return found, " ".join(str(each.message) for each in caught)


def test_numbers_of_draws_are_not_for_a_noise_that_is_visited():
    noise = rs.Splitting(n_splits=8, q=7)
    grid = (X * 7).round() / 7
    votes, said = heard(lambda: smooth(noise).vote(grid, n=5, n0=3, progress=False))
    assert votes.n.tolist() == [8] * 10 and "n=5 and n0=3: nothing is drawn" in said and "all its 8 copies" in said
    for quiet in (dict(), dict(n=8)):
        assert "drawn" not in heard(lambda quiet=quiet: smooth(noise).vote(grid, progress=False, **quiet))[1]
    assert "drawn" not in heard(lambda: smooth(noise).predict(grid))[1]


class Stream(IterableDataset):
    def __iter__(self):
        yield from TensorDataset(X, Y)


def test_images_that_a_loader_leaves_out_are_told():
    data = TensorDataset(X, Y)
    votes, said = heard(lambda: smooth().vote(DataLoader(data, batch_size=4, drop_last=True), **SETTINGS))
    assert len(votes) == 8 and "leaves out the last 2 of 10 images" in said
    assert "leaves out" in heard(lambda: smooth().vote(DataLoader(Stream(), batch_size=4, drop_last=True), **SETTINGS))[1]
    for whole in (dict(batch_size=5, drop_last=True), dict(batch_size=4)):
        assert "leaves out" not in heard(lambda whole=whole: smooth().vote(DataLoader(data, **whole), **SETTINGS))[1]


@pytest.mark.parametrize("value", ["yes", "no", 1, 0, None])
def test_flags_are_true_or_false(value):
    votes = record(labels=[0])
    asked = [
        ("moments", lambda: smooth().vote(X, **SETTINGS, moments=value)),
        ("progress", lambda: smooth().vote(X, **{**SETTINGS, "progress": value})),
        ("joint", lambda: votes.certify("l2", joint=value)),
        ("reuse", lambda: votes.certify("l2", method="tcertify", reuse=value)),
        ("bilateral", lambda: votes.certify("l2", method="soap_bubbles", bilateral=value)),
        ("population", lambda: votes.certify("l2", method="gaussian").accuracy_interval(population=value)),
        ("witness", lambda: votes.certify("l2", method="gaussian").save("never", witness=value)),
    ]
    if value is not None:
        asked.append(("two_sided", lambda: votes.certify("l2", method="sequential", two_sided=value)))
    for name, ask in asked:
        with pytest.raises(ValueError, match=f"{name} must be True or False"):
            ask()


def test_numbers_beyond_all_sizes():
    many = 10**400
    for ask in (
        lambda: dataclasses.replace(record(), dim=many),
        lambda: record(noise=rs.Uniform(lam=1.0)).certify("l1", levels=many),
        lambda: draws.compared(0.5, [0.9], n=many),
        lambda: rs.sequential.plan([0.25], n1=many, n_max=many),
        lambda: smooth().vote((X, [many] + [0] * 9), **SETTINGS),
    ):
        with pytest.raises(ValueError, match="must be (below|at most|in)"):
            ask()


def test_a_level_that_is_too_small_is_the_one_that_was_asked_for():
    words = "alpha must be larger, got 1e-100: one limit gets 5e-101 of it"
    for method in ("exact", "tcertify"):
        with pytest.raises(ValueError, match=words):
            record().certify("l2", method=method, alpha=1e-100)
        assert record().certify("l2", method=method, alpha=1e-95).radius[0] > 0
    with pytest.raises(ValueError, match=words):
        smooth().vote(X, n=200, progress=False, alpha=1e-100)
    with pytest.raises(ValueError, match=words):
        rs.draws_needed(0.5, 0.5, (0.9, 0.05), 1e-100)


def test_errors_name_the_class_that_is_met():
    certificates = record().certify("l2", method="gaussian")
    for ask, name in (
        (lambda: certificates.plot(radii=[0.1]), "Certificates.plot"),
        (lambda: certificates.summary(bogus=1), "Certificates.summary"),
        (lambda: record().save("never", bogus=1), "Record.save"),
        (lambda: record().top_votes(bogus=1), "Record.top_votes"),
        (lambda: rs.Certificates(bogus=1), "Certificates.__init__"),
    ):
        with pytest.raises(TypeError, match=f"^{name}"):
            ask()


def test_one_look_at_very_many_draws_is_found_and_several_are_refused():
    votes = record(n=10**12, hits=9 * 10**11)
    found = votes.certify("l2", method="sequential")
    assert found.radius[0] == 0.5 and rs.check(found).all()
    for spending in ("exact", "union", "anytime"):
        with pytest.raises(ValueError, match="n_max must be at most 100,000,000 with several looks"):
            rs.sequential.plan([0.25], n_max=10**9, spending=spending)
    assert len(rs.sequential.plan([0.25], n_max=10**9, two_sided=True).looks) > 1


@pytest.mark.parametrize("p", [0.5, 0.6914624612740131, 0.977])
@pytest.mark.parametrize("alpha", [1e-3, 1e-20])
def test_a_search_finds_what_the_walk_finds(p, alpha):
    for n in (1000, 10**6):
        walked, found = _exact_boundaries(np.array([n]), p, np.array([alpha]))[0], _one_look(n, p, alpha)
        assert walked.tolist() == found[0].tolist()
        if found[0] <= n:
            assert tail_at_least(found[0], n, p) < found[1] <= alpha < tail_at_least(found[0] - 1, n, p)


def test_a_law_that_no_method_resolves_is_refused_before_the_vote():
    images = torch.rand(2, 20)
    smoothed = smooth(rs.MixedNormGaussian(sigma=0.5, k=19.0), 20)
    smoothed.model.forward = None # nobody asks it for a trial
    for ask in (smoothed.vote, smoothed.estimate):
        with pytest.raises(ValueError, match="no votes under MixedNormGaussian.* would be certified: k must be at most 0.9 d"):
            ask(images, n=1000)
    resolved = smooth(rs.MixedNormGaussian(sigma=0.5, k=18.0), 20)
    assert len(resolved.vote(images, n=1000, progress=False)) == 2
    unresolved = smooth(rs.MixedNormGaussian(sigma=0.5, k=19.0), 20)
    assert len(unresolved.vote(images, n=100, progress=False, alpha=None)) == 2


@pytest.mark.parametrize("mask", [[True, False, True], np.array([True] + [False] * 9), [1.5, 2.0]])
def test_a_mask_is_no_list_of_positions(mask):
    data = TensorDataset(X, Y)
    for holder in (Subset(data, mask), DataLoader(Subset(data, mask), batch_size=2), DataLoader(data, sampler=mask, batch_size=2)):
        with pytest.raises(ValueError, match="positions"):
            smooth().vote(holder, **SETTINGS)


@pytest.mark.parametrize("labels", [Y[:, None], torch.eye(3)[Y], torch.eye(3, dtype=torch.int64)[Y], np.eye(3)[Y]])
def test_labels_of_vectors_are_one_class_each(labels):
    images = X.numpy() if isinstance(labels, np.ndarray) else X
    line = r"labels\[:, 0\]" if labels.shape[1] == 1 else r"labels.argmax\(1\)"
    with pytest.raises(ValueError, match=rf"labels must be one class an image, \[10\], got shape .*; write {line}"):
        smooth().vote((images, labels), **SETTINGS)


def test_predictions_have_their_own_draws():
    assert smooth().predict(X, n0=3).shape == (10,)
    with pytest.raises(ValueError, match="predict takes a fixed number of draws"):
        smooth().predict(X, stop=rs.sequential.plan([0.1]))


def test_unanimous_votes_of_another_setting_are_kept(tmp_path):
    "Counts alone do not tell votes under one noise from those under another, nor those of two networks."
    first = record(hits=1000)
    voted = smooth().vote((X, Y), **SETTINGS)
    moments = smooth().vote(X[:2], moments=True, **SETTINGS)
    doubled = {name: 2 * value for name, value in moments.moments.items()}
    for number, (old, new) in enumerate((
        (first, record(hits=1000, noise=rs.Gaussian(sigma=0.25))),
        (first, record(hits=1000, domain=(0, 2))),
        (voted, dataclasses.replace(voted, provenance={**voted.provenance, "model": "another"})),
        (voted, dataclasses.replace(voted, images=voted.images[::-1])),
        (moments, dataclasses.replace(moments, moments=doubled)),
    )):
        path = tmp_path / f"{number}.votes"
        old.save(path)
        with pytest.warns(UserWarning, match="is kept as"):
            new.save(path)
        assert rs.load(tmp_path / f"{number}.votes.before-1") == old
    for same in (voted, voted[::-1], dataclasses.replace(voted, labels=(Y.numpy() + 1) % 3)):
        voted.save(tmp_path / "same.votes")
        assert "kept" not in heard(lambda same=same: same.save(tmp_path / "same.votes"))[1]


def test_samplers_are_looked_at_without_a_trace():
    class Sampler(torch.utils.data.Sampler):
        def __iter__(self):
            return iter(np.random.permutation(10).tolist())

        def __len__(self):
            return 10

    np.random.seed(0)
    state = np.random.get_state()[1].copy(), np.random.get_state()[2]
    with pytest.raises(ValueError, match="one known order"):
        smooth().vote(DataLoader(TensorDataset(X, Y), sampler=Sampler(), batch_size=4), **SETTINGS)
    assert np.array_equal(np.random.get_state()[1], state[0]) and np.random.get_state()[2] == state[1]


@pytest.mark.parametrize("ask", ["vote", "predict", "agreement", "estimate"])
@pytest.mark.parametrize("wrong", [
    dict(n=0), dict(n=-1), dict(n=1.5), dict(n=float("nan")), dict(n=True), dict(batch_size=0), dict(batch_size=-1),
])
def test_every_way_in_asks_for_whole_numbers(ask, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name} must be a whole number"):
        getattr(smooth(), ask)(X, **wrong)


def test_numbers_that_are_whole_are_taken():
    known = smooth().agreement(X, n=4)
    assert smooth().agreement(X, n=4.0) == smooth().agreement(X, n=np.int64(4)) == known
    assert smooth().estimate(X, n=100.0, seconds=0.01, batch_size=8).draws == 100


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "x", None])
def test_a_trial_takes_some_time(seconds):
    with pytest.raises(ValueError, match="seconds must be a finite number above 0"):
        smooth().estimate(X, n=100, seconds=seconds)


@pytest.mark.parametrize("ask", ["vote", "predict", "agreement", "estimate"])
def test_a_device_is_the_models(ask):
    with pytest.raises(ValueError, match="the model is on cpu, but device is meta"):
        getattr(smooth(), ask)(X, n=100, device="meta")


@pytest.mark.parametrize("labels", [
    torch.eye(3)[Y], np.eye(3)[Y], torch.eye(3)[Y].long(), Y[:, None].float(), Y[:, None],
])
def test_a_table_of_labels_beside_pictures_is_not_a_second_batch(labels):
    pictures = X.reshape(10, 1, 2, 2)
    advice = r"write labels\[:, 0\]" if labels.shape[1] == 1 else r"write labels.argmax\(1\), if they are one-hot"
    with pytest.raises(ValueError, match=rf"labels must be one class an image, \[10\].*{advice}"):
        smooth().vote((pictures, labels), **SETTINGS)


@pytest.mark.parametrize("name", ["", "votes/"])
def test_a_file_has_a_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    votes = record()
    for ask in (
        lambda: smooth().vote(X, **SETTINGS, save=name),
        lambda: votes.save(name),
        lambda: votes.certify("l2", method="gaussian").save(name),
        lambda: rs.load(name),
    ):
        with pytest.raises(ValueError, match="a path must be the name of a file, got"):
            ask()
    assert not list(tmp_path.iterdir())
