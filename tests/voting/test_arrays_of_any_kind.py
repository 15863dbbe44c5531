"Arrays are read wherever they lie in memory: reversed, of another byte order, longer than double; what holds no images is named."
import numpy as np
import pytest
import torch
from torch import nn

import robust_smooth as rs

IMAGES = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
FAST = dict(n=100, n0=10, alpha=None, progress=False)


def smooth():
    torch.manual_seed(0)
    return rs.Smoothed(rs.wrap(nn.Linear(4, 3), num_classes=3, mean=0, std=1), rs.Gaussian(sigma=0.5))


class Reversed(torch.utils.data.Dataset):
    def __len__(self): return len(IMAGES)
    def __getitem__(self, i): return IMAGES[i].numpy()[::-1], i


@pytest.mark.parametrize(
    "data", [[x.numpy()[::-1] for x in IMAGES], Reversed(), IMAGES.numpy()[:, ::-1]], ids=["list", "data set", "array"]
)
def test_reversed_arrays(data):
    "Before, a list and a data set of such arrays were refused with PyTorch's words on strides."
    assert np.array_equal(smooth().vote(data, **FAST).counts, smooth().vote(IMAGES.flip(1), **FAST).counts)


@pytest.mark.parametrize("kind", [">f4", "<f4", ">f8", np.longdouble])
def test_floats_of_any_kind(kind):
    wanted = smooth().vote(IMAGES, **FAST).counts
    for data in (IMAGES.numpy().astype(kind), [x.astype(kind) for x in IMAGES.numpy()]):
        assert np.array_equal(smooth().vote(data, **FAST).counts, wanted)


@pytest.mark.parametrize(
    "data, said",
    [
        (np.ma.masked_array(IMAGES.numpy(), mask=IMAGES.numpy() > 0.5), "masked"),
        (IMAGES.numpy().astype(object), "images must be numbers, got object"),
        (IMAGES.to_sparse(), "plain tensor, got a tensor of layout"),
        (IMAGES.to("meta"), "device 'meta'"),
        (IMAGES.to(torch.complex64), "real numbers, got complex"),
    ],
)
def test_what_holds_no_images_is_named(data, said):
    with pytest.raises((TypeError, ValueError), match=said): smooth().vote(data, **FAST)


@pytest.mark.parametrize(
    "labels",
    [np.array([0, 1, 2**63], np.uint64), np.array([0, 1, np.inf]), np.ma.masked_array([0, 1, 2], mask=[0, 0, 1])],
)
def test_labels_that_64_bits_do_not_hold_or_nobody_knows(labels):
    with pytest.raises(ValueError, match="labels must"): smooth().vote((IMAGES, labels), **FAST)


def test_an_index_that_64_bits_do_not_hold():
    with pytest.raises(ValueError, match="index must be in"):
        smooth().vote(IMAGES, index=np.array([0, 1, 2**63], np.uint64), **FAST)


class Some(torch.utils.data.Dataset):
    def __len__(self): return 3
    def __getitem__(self, i): return (IMAGES[i], i) if i != 1 else None


def test_a_loader_that_leaves_images_out_is_refused_at_that_batch(tmp_path):
    "Before, all later images had other names, in the file too, and only the end of the vote said so."
    leave_out = lambda batch: torch.utils.data.default_collate([item for item in batch if item is not None])
    loader = torch.utils.data.DataLoader(Some(), batch_size=2, collate_fn=leave_out)
    with pytest.raises(ValueError, match="got 1 for 2 in batch 0: images that a collate_fn leaves out"):
        smooth().vote(loader, save=tmp_path / "a.votes", **FAST)
    assert not (tmp_path / "a.votes").exists() or not (tmp_path / "a.votes").stat().st_size


@pytest.mark.parametrize("kind", ["bfloat16", "float64"])
def test_a_network_of_another_precision_is_told_from_a_wrong_shape(kind):
    "The images' shape was blamed, and nobody said that `wrap` converts them."
    net = nn.Linear(4, 3).to(getattr(torch, kind)).eval()
    with pytest.raises(ValueError, match=f"computes in {kind} and gets float32; use robust_smooth.wrap"):
        rs.Smoothed(net, rs.Gaussian(sigma=0.5)).vote(IMAGES, **FAST)
    assert len(rs.Smoothed(rs.wrap(net, mean=0, std=1), rs.Gaussian(sigma=0.5)).vote(IMAGES, **FAST)) == 3
