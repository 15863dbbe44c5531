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
