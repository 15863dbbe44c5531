"What somebody's first call gets wrong: the answer names the argument and the line to write, not how many were counted."
import numpy as np
import pytest
import torch
from torch import nn

import robust_smooth as rs


@pytest.fixture(scope="module")
def smooth():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    return rs.Smoothed(rs.wrap(net, 0.0, 1.0), rs.Gaussian(sigma=0.5))


IMAGES = torch.rand((3, 1, 2, 2), generator=torch.Generator().manual_seed(0))
LABELS = [0, 1, 2]
QUICK = dict(n=50, progress=False, batch_size=50)


@pytest.fixture(scope="module")
def record(smooth):
    return smooth.vote((IMAGES, LABELS), **QUICK)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.vote(IMAGES, LABELS, progress=False),
        lambda s: s.vote(IMAGES, torch.tensor(LABELS)),
        lambda s: s.vote(IMAGES, np.array(LABELS)),
        lambda s: s.vote(IMAGES, labels=LABELS, **QUICK),
        lambda s: s.predict(IMAGES, labels=LABELS),
        lambda s: s.estimate(IMAGES, labels=LABELS),
    ],
)
def test_labels_go_beside_the_images(smooth, call):
    with pytest.raises(TypeError, match=r"labels go beside the images.*\(images, labels\)"):
        call(smooth)


def test_an_argument_that_is_none_is_answered_with_those_that_are(smooth):
    with pytest.raises(TypeError, match="'sigma'; its arguments: data, n, n0.*; by name alone: index, alpha"):
        smooth.vote(IMAGES, sigma=0.5)
    with pytest.raises(TypeError, match="too many.*by name alone: index, alpha"):
        smooth.vote(IMAGES, 50, 10, False, None, 0, None, 0.001)
    with pytest.raises(TypeError, match="'data'; its arguments: data, n"):
        smooth.vote()


def test_a_device_that_is_none(smooth):
    for ask in (smooth.vote, smooth.predict, smooth.estimate, smooth.agreement):
        with pytest.raises(ValueError, match="'cpu', 'cuda' or 'cuda:1', got 'gpu'"):
            ask(IMAGES, device="gpu")


@pytest.mark.parametrize("wrong", [3, None, True, ["a.votes"]])
def test_a_path_that_is_no_name(smooth, record, wrong):
    asks = [rs.load, record.save, record.certify().save, record.certify().write_log]
    if wrong is not None:
        asks.append(lambda path: smooth.vote(IMAGES, save=path, **QUICK))
    for ask in asks:
        with pytest.raises(TypeError, match=f"name of a file, got {type(wrong).__name__}"):
            ask(wrong)


def test_what_is_no_votes_is_not_certified(smooth, record):
    for wrong in (smooth, IMAGES, record.counts, "a.votes", None):
        for room in (rs.exact, rs.gaussian, rs.tcertify, rs.sequential):
            with pytest.raises(TypeError, match="record must hold votes, got .*vote"):
                room.certify(wrong)
    with pytest.raises(TypeError, match="got Certificates; these are certified"):
        rs.exact.certify(record.certify())


def test_a_method_where_a_norm_belongs_and_what_is_no_method(record):
    with pytest.raises(ValueError, match="got the method 'exact'; write method='exact'"):
        record.certify("exact")
    with pytest.raises(ValueError, match="the module; write method='gaussian'"):
        record.certify("l2", method=rs.gaussian)
    for wrong in (0.001, ["exact", "gaussian"], LABELS):
        with pytest.raises(ValueError, match="method must be one name of"):
            record.certify("l2", wrong)


def test_one_table_is_no_legend(record):
    with pytest.raises(TypeError, match="dictionary, got Certificates; write {'name in the legend': certificates}"):
        rs.figures.certified_curves(record.certify(), LABELS)


def test_a_name_that_is_nearly_one():
    with pytest.raises(AttributeError, match=r"'gaussain' \(did you mean 'gaussian'\?\)"): rs.gaussain
    with pytest.raises(AttributeError, match="'nothing_of_this_kind'$"): rs.nothing_of_this_kind


def test_no_images(smooth):
    "A tensor without rows met a raw IndexError after the sweep of batch sizes."
    for ask in (smooth.estimate, smooth.agreement):
        with pytest.raises(ValueError, match="data holds no images"): ask(IMAGES[:0])
