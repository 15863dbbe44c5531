"Votes and their files, as users meet them: what is damaged stops a load and a resume, and stays on the disk."
import os

import numpy as np
import pytest
import torch

from robust_smooth.core import places, votes_file
from robust_smooth.core.record import Record
from robust_smooth.noise.additive import Gaussian
from robust_smooth.training import models
from robust_smooth.voting.votes import vote

SETTINGS = dict(n=60, n0=10, num_classes=10, seed=0, batch_size=50, progress=False)


@pytest.fixture(scope="module")
def convnet():
    torch.manual_seed(0)
    return models.small_convnet(num_classes=10).eval()


@pytest.fixture(scope="module")
def digits():
    return torch.rand(11, 1, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def cast(convnet, digits):
    "Vote on the first images of the digits."
    return lambda count, path: vote(convnet, digits[:count], Gaussian(sigma=0.5), save=path, **SETTINGS)


def test_a_flipped_bit_stops_a_load_and_a_resume(cast, tmp_path, monkeypatch):
    "Every bit used to make `load` shorter, and the next resume cut all later rows off the disk."
    monkeypatch.setattr(votes_file, "DELAY", 0.0)
    path = tmp_path / "a.votes"
    cast(6, path)
    whole = path.read_bytes()
    for bit in range(3, 8 * len(whole), 997):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="damaged|not a votes file"):
            Record.load(path)
        with pytest.raises(ValueError, match="damaged|not a votes file"):
            cast(8, path)
        assert path.read_bytes() == bytes(flipped)
    path.write_bytes(whole)
    assert len(cast(8, path)) == 8 and len(Record.load(path)) == 8


def test_another_file_is_not_voted_into(cast, tmp_path):
    path = tmp_path / "diary"
    for text in (b"Dear diary\n", votes_file.JOURNAL_MAGIC + b"is how these files begin\n"):
        path.write_bytes(text)
        with pytest.raises(ValueError, match="votes file|damaged"):
            cast(2, path)
        assert path.read_bytes() == text
    os.mkfifo(tmp_path / "fifo")
    for place, kind in [(tmp_path / "fifo", "a FIFO"), (tmp_path, "a folder")]:
        with pytest.raises(ValueError, match=f"must be a file, got {kind}"):
            cast(2, place)


def test_what_can_be_voted_to_can_be_saved(cast, tmp_path):
    path = tmp_path / ("v" * 250)
    record = cast(3, path)
    record.save(path)
    loaded = Record.load(path)
    for name in ("counts", "selection", "n", "index", "images", "fragile"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(record, name))


def test_a_saved_record_keeps_its_order_and_a_vote_is_sorted(convnet, digits, tmp_path):
    path = tmp_path / "a.votes"
    index = np.array([70, 10, 40])
    record = vote(convnet, digits[:3], Gaussian(sigma=0.5), save=path, index=index, **SETTINGS)
    assert record.index.tolist() == index.tolist() and Record.load(path).index.tolist() == [10, 40, 70]
    record.save(path)
    assert Record.load(path).index.tolist() == index.tolist()


@pytest.mark.parametrize("locks", [True, False])
def test_a_file_that_is_being_voted_to_is_not_shared(cast, tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(places, "fcntl", None)
    path = tmp_path / "a.votes"
    record = cast(2, path)
    with votes_file.Journal(path):
        for use in (lambda: cast(4, path), lambda: record.save(path)):
            with pytest.raises(RuntimeError, match="another process is writing"):
                use()
    assert len(cast(4, path)) == 4


def test_what_changes_no_vote_is_no_reason_to_refuse_it(convnet, digits, tmp_path):
    "A plan says itself when to stop: another n beside it, or another seed of noise that is not drawn, was another vote."
    import robust_smooth as rs
    from robust_smooth.noise.grid import Splitting
    plan, more = rs.sequential.plan(0.25, sigma=0.5, n_max=200), dict(num_classes=10, n0=10, batch_size=50, progress=False)
    path = tmp_path / "a.votes"
    first = vote(convnet, digits[:3], Gaussian(sigma=0.5), n=100, stop=plan, save=path, **more)
    whole = vote(convnet, digits[:6], Gaussian(sigma=0.5), n=7, stop=plan, save=path, **more)
    alone = vote(convnet, digits[:6], Gaussian(sigma=0.5), stop=plan, **more)
    assert np.array_equal(whole.counts, alone.counts) and first.provenance["n"] == alone.provenance["n"] == 200
    assert len(Record.concat([first, alone[3:]])) == 6
    grid, noise = (digits * 16).round() / 16, Splitting(n_splits=8, q=16)
    path = tmp_path / "b.votes"
    vote(convnet, grid[:3], noise, save=path, seed=0, **more)
    whole = vote(convnet, grid[:6], noise, save=path, seed=5, **more)
    assert np.array_equal(whole.counts, vote(convnet, grid[:6], noise, **more).counts)
    for other in (dict(n=61), dict(seed=1)):
        vote(convnet, digits[:2], Gaussian(sigma=0.5), save=tmp_path / "c.votes", **SETTINGS)
        with pytest.raises(ValueError, match="differs"):
            vote(convnet, digits[:3], Gaussian(sigma=0.5), save=tmp_path / "c.votes", **SETTINGS | other)
