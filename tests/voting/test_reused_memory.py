"Networks that return one piece of memory again and again, or logits whose sum is no float32: votes are those of an honest network."
import numpy as np
import pytest
import torch
from torch import nn

import robust_smooth as rs
from robust_smooth.methods.splitting_runs import audit_record, soft_record
from robust_smooth.training.conduct import trial
from robust_smooth.voting.hardware import forward_in_pieces
from robust_smooth.voting.tally import DeviceTally, HostTally, Piece

GRID = torch.randint(0, 17, (3, 6), generator=torch.Generator().manual_seed(1)) / 16
MANY = torch.rand(70, 6, generator=torch.Generator().manual_seed(1))
SPLITS = rs.Splitting(n_splits=8, q=16)
FAST = dict(n=300, n0=20, progress=False, alpha=None)


class Net(nn.Module):
    num_classes, unit_input = 3, True

    def __init__(self, kind=None, coins=0.0):
        super().__init__()
        self.weight = nn.Parameter(3 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))
        self.room, self.coins = None if kind is None else torch.empty(2000, 3, dtype=kind), coins

    def forward(self, x):
        logits = (x + self.coins * torch.randn_like(x) - 0.5) @ self.weight
        if self.room is None:
            return logits
        self.room[:len(x)] = logits
        return self.room[:len(x)]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_memory_that_a_network_uses_again_holds_no_older_batch(kind):
    honest, reusing = Net().eval(), Net(kind).eval()
    pieces = [forward_in_pieces(net, MANY, 16) for net in (honest, reusing)]
    assert torch.equal(pieces[0], pieces[1].float())
    for runs in (soft_record, audit_record):
        ours, theirs = (runs(net, GRID, SPLITS, batch_size=3) for net in (honest, reusing))
        assert np.array_equal(ours.counts, theirs.counts)
        for name, column in ours.moments.items():
            np.testing.assert_allclose(theirs.moments[name], column, atol=1e-6)
    smooth = [rs.Smoothed(rs.wrap(net), rs.Gaussian(sigma=0.1)) for net in (honest, reusing)]
    assert smooth[0].agreement(MANY, batch_size=16) == smooth[1].agreement(MANY, batch_size=16)
    assert np.array_equal(*(one.vote(MANY[:3], **FAST).counts for one in smooth))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_coins_in_memory_that_is_used_again_are_seen(kind):
    assert not trial(Net(kind, coins=0.1).eval(), GRID).repeats


class Masked(Net):
    "Two further classes, whose logits are the smallest number that there is."
    num_classes = 5

    def forward(self, x):
        return torch.cat([super().forward(x), torch.full((len(x), 2), torch.finfo(torch.float32).min)], 1)


@pytest.mark.parametrize("host", [True, False])
def test_finite_logits_whose_sum_is_not_are_finite(host, monkeypatch):
    monkeypatch.setattr("robust_smooth.voting.hardware.HOST", ("cpu",) if host else ())
    plain, masked = (
        rs.Smoothed(rs.wrap(net), rs.Gaussian(sigma=0.1)).vote(MANY[:3], **FAST) for net in (Net(), Masked())
    )
    assert np.array_equal(masked.counts[:, :3], plain.counts) and not masked.counts[:, 3:].any()


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("make", [HostTally, lambda *settings: DeviceTally(*settings, torch.device("cpu"))])
def test_what_is_no_number_is_found_beside_the_largest_numbers(make, wrong):
    tally, logits = make(2, 3, 8, 1e-5), torch.full((8, 3), -0.9 * torch.finfo(torch.float32).max)
    logits[5, 1] = wrong
    tally.put(logits, 0)
    tally.count(8, [Piece(0, 0, 0, 4), Piece(1, 4, 0, 4)])
    assert tally.sound().tolist() == [True, False]


def test_complex_logits_have_no_largest():
    net = Net().eval()
    with pytest.raises(ValueError, match="got complex numbers"):
        rs.Smoothed(lambda x: net(x).to(torch.complex64), rs.Gaussian(sigma=0.1)).vote(MANY[:2], **FAST)


def test_no_images_are_no_record():
    for runs in (soft_record, audit_record):
        with pytest.raises(ValueError, match="x holds no images"): runs(Net().eval(), GRID[:0], SPLITS)


def test_buffers_without_numbers_are_no_network():
    net = Net().eval()
    net.register_buffer("table", torch.zeros(3, device="meta"))
    with pytest.raises(ValueError, match="on the device 'meta'"):
        rs.Smoothed(net, rs.Gaussian(sigma=0.1)).vote(MANY[:2], **FAST)
