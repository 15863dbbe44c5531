"The front door with models that users bring: torchvision and timm-style networks at 224x224, datasets, loaders."
import numpy as np
import pytest
import torch
from torch import nn

import robust_smooth as rs
from robust_smooth.vision import torchvision


def test_torchvision_model_end_to_end(tmp_path):
    "A 224x224 ResNet with random weights: wrap, estimate, vote, certify, and again from the file."
    torch.manual_seed(0)
    net = torchvision().models.resnet18(weights=None, num_classes=7)
    model = rs.wrap(net, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert not model.training
    smooth = rs.Smoothed(model, rs.Gaussian(sigma=0.25))
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    estimate = smooth.estimate(images, n=20, seconds=0.1, batch_size=4)
    assert estimate.seconds > 0 and estimate.memory > 0 and set(estimate.largest_radius) == {"l1", "l2", "linf"}
    with pytest.warns(UserWarning) if smooth.agreement(images, n=4) < 0.5 else _nothing():
        record = smooth.vote(images, n=20, n0=4, save=tmp_path / "a.votes", batch_size=4, progress=False)
    table = rs.load(tmp_path / "a.votes").certify("l2", alpha=0.001)
    assert len(table) == 2 and record.dim == 3 * 224 * 224 and record.provenance["shape"] == [3, 224, 224]
    assert table.radius.max() <= estimate.largest_radius["l2"]


def test_timm_style_model():
    class Timm(nn.Module):
        "What timm leaves on its models: a configuration with the normalisation of the training."
        def __init__(self):
            super().__init__()
            self.default_cfg = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), input_size=(3, 224, 224), num_classes=5)
            self.stem, self.head = nn.Conv2d(3, 4, 16, 16), nn.Linear(4, 5)
        def forward(self, x): return self.head(self.stem(x).mean((2, 3)))
    net = Timm()
    model = rs.wrap(net)
    image = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(model(image), net.eval()((image - 0.5) / 0.5))
    record = rs.Smoothed(model, rs.Gaussian(sigma=0.1)).vote(image, n=40, n0=10, batch_size=8, progress=False)
    assert record.counts.sum() == 40 and record.counts.shape == (1, 5)


class _nothing:
    def __enter__(self): pass
    def __exit__(self, *a): pass


def test_plain_network_reads_unit_images():
    "A network of one's own, with its normalisation inside or none: it is taken to read [0, 1]."
    torch.manual_seed(0)
    model = rs.wrap(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
    assert model.num_classes == 3 and not model.training
    record = rs.Smoothed(model, rs.Gaussian(sigma=0.2)).vote(torch.rand(3, 1, 4, 4), n=100, progress=False)
    assert record.certify("l2").label.shape == (3,)


def test_datasets_and_loaders_give_the_same_record():
    torch.manual_seed(0)
    smooth = rs.Smoothed(rs.wrap(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), num_classes=3), rs.Gaussian(sigma=0.2))
    images, labels = torch.rand(5, 1, 4, 4), torch.arange(5) % 3
    dataset = torch.utils.data.TensorDataset(images, labels)
    settings = dict(n=200, batch_size=50, progress=False)
    counts = [smooth.vote(data, **settings).counts for data in (images, dataset, torch.utils.data.DataLoader(dataset, batch_size=2))]
    np.testing.assert_array_equal(counts[0], counts[1])
    np.testing.assert_array_equal(counts[0], counts[2])


def test_the_five_lines_of_the_readme(tmp_path):
    torch.manual_seed(0)
    net, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), torch.rand(4, 1, 8, 8)
    model = rs.wrap(net)
    smooth = rs.Smoothed(model, rs.Gaussian(sigma=0.5))
    record = smooth.vote(images, n=2000, moments=True, seed=0, save=tmp_path / "my.votes", progress=False)
    assert {"label", "radius", "reason"} <= set(record.certify("l2").to_frame().columns)
    record = rs.load(tmp_path / "my.votes")
    l1 = record.certify("l1", method="higher_order")
    both = record.certify(["l1", "l2"], joint=True)
    assert len(l1) == 4 and [c.norm for c in both] == ["l1", "l2"] and all(c.alpha_scope == "joint" for c in both)
    dssn = rs.Smoothed(model, rs.Splitting.from_sigma(0.5, q=255)).vote((images * 255).round() / 255, progress=False).certify("l1")
    assert dssn.alpha == 0 and dssn.levels == 255


def test_refusals():
    smooth = rs.Smoothed(lambda x: x.flatten(1)[:, :2], rs.Gaussian(sigma=0.2))
    with pytest.raises(TypeError, match="noise"): rs.Smoothed(nn.Identity(), "gaussian")
    with pytest.raises(TypeError, match="model"): rs.Smoothed(3, rs.Gaussian(sigma=1))
    with pytest.raises(ValueError, match="at least 10"): smooth.vote(torch.rand(1, 4), n=3)
    with pytest.raises(ValueError, match="carry no witness|not registered"): rs.check(rs.Certificates(label=[0], radius=[1], norm=2, alpha=0, method="x"))
