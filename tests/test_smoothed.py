"The front door with models that users bring: torchvision and timm-style networks, datasets, loaders."
import inspect
import os

import numpy as np
import pytest
import torch
from torch import nn

import robust_smooth as rs
from robust_smooth import smoothed
from robust_smooth.training.vision import torchvision


def test_torchvision_model_end_to_end(tmp_path):
    "A ResNet for photographs with random weights: wrap, estimate, vote, certify, and again from the file."
    torch.manual_seed(0)
    net = torchvision().models.resnet18(weights=None, num_classes=7)
    model = rs.wrap(net, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert not model.training
    smooth = rs.Smoothed(model, rs.Gaussian(sigma=0.25))
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    estimate = smooth.estimate(images, n=20, seconds=0.1, batch_size=4)
    assert estimate.seconds > 0 and estimate.memory > 0 and set(estimate.largest_radius) == {"l1", "l2", "linf"}
    with pytest.warns(UserWarning) if smooth.agreement(images, n=4) < 0.5 else _nothing():
        record = smooth.vote(images, n=20, n0=4, save=tmp_path / "a.votes", batch_size=4, progress=False)
    table = rs.load(tmp_path / "a.votes").certify("l2", alpha=0.001)
    assert len(table) == 2 and record.dim == 3 * 64 * 96 and record.provenance["shape"] == [3, 64, 96]
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
    counts = [
        smooth.vote(data, **settings).counts
        for data in (images, dataset, torch.utils.data.DataLoader(dataset, batch_size=2))
    ]
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
    dssn = (
        rs.Smoothed(model, rs.Splitting.from_sigma(0.5, q=255))
        .vote((images * 255).round() / 255, progress=False)
        .certify("l1")
    )
    assert dssn.alpha == 0 and dssn.levels == 255


def test_refusals():
    smooth = rs.Smoothed(lambda x: x.flatten(1)[:, :2], rs.Gaussian(sigma=0.2))
    with pytest.raises(TypeError, match="noise"): rs.Smoothed(nn.Identity(), "gaussian")
    with pytest.raises(TypeError, match="model"): rs.Smoothed(3, rs.Gaussian(sigma=1))
    with pytest.raises(ValueError, match="at least 10"): smooth.vote(torch.rand(1, 4), n=3)
    with pytest.raises(ValueError, match="carry no witness|is not registered"):
        rs.check(rs.Certificates(label=[0], radius=[1], norm=2, alpha=0, method="x"))


def test_data_as_users_have_it():
    noise = rs.Gaussian(sigma=0.2)
    smooth = rs.Smoothed(rs.wrap(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), num_classes=3, mean=0, std=1), noise)
    images = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    # the commonest hand-written data set: what counts is what it gives, not what it keeps
    class Raw(torch.utils.data.Dataset):
        def __init__(self): self.images, self.labels = (images * 255).round().to(torch.uint8), torch.arange(5) % 3
        def __len__(self): return 5
        def __getitem__(self, i): return self.images[i] / 255, int(self.labels[i])

    settings = dict(n=100, n0=10, progress=False)
    want = smooth.vote((images * 255).round() / 255, **settings).counts
    loader = torch.utils.data.DataLoader(Raw(), batch_size=2)
    named = [(image, "cat") for image in (images * 255).round() / 255]
    for data in (
        Raw(),
        loader,
        named,
        ((images * 255).round() / 255, torch.arange(5) % 3),
        ((images * 255).round() / 255).requires_grad_(),
        ((images * 255).round() / 255).double(),
    ):
        assert np.array_equal(smooth.vote(data, **settings).counts, want)
    assert smoothed.as_images(named)[1] is None and smoothed.as_images(loader)[1].tolist() == [0, 1, 2, 0, 1]
    for data, error, match in (
        ([], ValueError, "no images"),
        ([dict(image=images[0])], TypeError, "dictionaries"),
        (images.to(torch.uint8), TypeError, "floating point"),
        (3, TypeError, "Dataset"),
    ):
        with pytest.raises(error, match=match): smooth.vote(data, **settings)


def test_networks_as_users_have_them():
    images = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    noise, settings = rs.Gaussian(sigma=0.1), dict(n=200, n0=20, progress=False)

    class InPlace(nn.Module):
        def __init__(self): super().__init__(); torch.manual_seed(0); self.linear = nn.Linear(16, 3)
        def forward(self, x): return self.linear(x.sub_(0.5).div_(0.25).flatten(1))

    kept = images.clone()
    rs.Smoothed(rs.wrap(InPlace(), mean=0, std=1), noise).vote(images, **settings)
    # the caller's images are the caller's
    assert torch.equal(images, kept)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        record = rs.Smoothed(
            rs.wrap(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).to(kind), mean=0, std=1), noise
        ).vote(images, **settings)
        assert (
            record.n.tolist() == [200] * 4
            and record.provenance["precision"]
            == {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float64: "float32"}[kind]
        )
    with pytest.raises(ValueError, match="wrapped already"): rs.wrap(rs.wrap(net, mean=0, std=1), mean=0.5, std=0.25)
    with pytest.raises(ValueError, match="logits"):
        rs.Smoothed(lambda x: (x.flatten(1)[:, :2],), noise).vote(images, **settings)
    with pytest.raises(ValueError, match="move it"):
        rs.Smoothed(rs.wrap(net, mean=0, std=1), noise).vote(images, device="meta", **settings)


def test_a_plan_for_another_noise_is_refused_before_the_vote():
    images, model = torch.rand(2, 1, 4, 4), rs.wrap(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), mean=0, std=1)
    plan = rs.sequential.plan([0.1, 0.2], 0.5, 0.001)
    with pytest.raises(ValueError, match="sigma = 0.5"):
        rs.Smoothed(model, rs.Gaussian(sigma=0.25)).vote(images, stop=plan, progress=False)
    with pytest.raises(ValueError, match="stopped early"):
        rs.Smoothed(model, rs.Uniform(lam=0.5)).vote(images, stop=plan, progress=False)


# ---- what needs no forward pass to be known is refused before one

class _Asked(nn.Module):
    "A network that counts how often it was asked."
    num_classes, asked = 3, 0

    def forward(self, x):
        self.asked += 1
        return x.flatten(1)[:, :3]


def _refusing(kind, words, *args, **settings):
    net = _Asked().eval()
    with pytest.raises(kind, match=words):
        rs.Smoothed(net, rs.Gaussian(sigma=0.5)).vote(*args, n=200, progress=False, **settings)
    assert net.asked == 0


FOUR = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["", "x" * 300, "a\0b", "\ud800", "log.tsv", "log.tsv/a.votes", "pipe", 3])
def test_a_place_that_takes_no_votes_is_refused_before_the_first_forward_pass(name, tmp_path):
    (tmp_path / "log.tsv").write_text("idx\tlabel\n")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    _refusing((ValueError, OSError, TypeError), "", FOUR, save=name if name == 3 else f"{tmp_path}/{name}")
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "log.tsv").read_text() == "idx\tlabel\n"


def test_a_file_system_that_takes_no_files_is_found_out_before_the_first_forward_pass():
    if not os.path.isdir("/proc"):
        pytest.skip("no file system here that is known to take no files")
    _refusing(OSError, "cannot write into /proc", FOUR, save="/proc/a.votes")


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, -2, 1, 1], [0, 1, 2]])
def test_labels_that_are_no_classes_are_refused_before_the_first_forward_pass(labels):
    _refusing(ValueError, "labels must be", (FOUR, torch.tensor(labels)))
    _refusing(ValueError, "labels must be", [FOUR.numpy(), np.array(labels)], index=np.arange(len(labels)) + 7)
    if min(labels) >= 0 and len(labels) == 4:
        _refusing(
            ValueError, "labels must be", rs.data.ImageSet(FOUR, torch.tensor(labels), name="mine", num_classes=4)
        )


def test_what_is_asked_before_a_vote_changes_nothing_of_it(tmp_path):
    "Positional settings, unknown labels, a folder that is still to come, a vote that goes on."
    smooth = rs.Smoothed(rs.wrap(nn.Flatten(), num_classes=4, mean=0, std=1), rs.Gaussian(sigma=0.5))
    path = tmp_path / "new" / "a.votes"
    record = smooth.vote((FOUR, torch.tensor([0, -1, 2, 1])), 200, 10, False, None, 0, path, progress=False)
    again = smooth.vote((FOUR, torch.tensor([0, -1, 2, 1])), n=200, n0=10, save=path, progress=False)
    assert np.array_equal(record.counts, again.counts) and [each.name for each in path.parent.iterdir()] == ["a.votes"]
    # where nothing is certified, no class is asked for
    assert smooth.predict((FOUR, torch.tensor([0, 9, 2, 1])), n=200).shape == (4,)
    assert smooth.vote.__doc__ and "save" in inspect.signature(rs.Smoothed.vote).parameters


def test_networks_without_a_mode_or_without_weights_are_refused_by_name():
    "A frozen network failed with an attribute that it lacks, one on the meta device with advice about the shape of images."
    noise, x = rs.Gaussian(sigma=0.5), torch.rand(1, 4)
    frozen = torch.jit.freeze(torch.jit.script(nn.Linear(4, 3).eval()))
    for model, words in ((frozen, "TorchScript froze"), (nn.Linear(4, 3, device="meta").eval(), "device 'meta'")):
        smooth = rs.Smoothed(model, noise)
        for ask in (smooth.vote, smooth.predict, smooth.estimate, smooth.agreement):
            with pytest.raises(ValueError, match=words):
                ask(x)
    assert rs.Smoothed(rs.wrap(frozen, mean=0, std=1, num_classes=3), noise).predict(x, n=100).shape == (1,)


def test_a_network_of_a_library_that_nobody_wrapped_is_warned_of(recwarn):
    "Handed over as it is, it was certified in the unit of [0, 1] without a word, where `wrap` asks for its normalisation."
    kind = type("ResNet18", (torch.nn.Linear,), {"__module__": "torchvision.models.resnet"})
    net, rows = kind(4, 3).eval(), torch.rand(2, 4)
    for ask in (rs.Smoothed(net, rs.Gaussian(sigma=0.5)).vote, rs.Smoothed(net, rs.Gaussian(sigma=0.5)).predict):
        with pytest.warns(UserWarning, match=r"ResNet18 is asked in \[0, 1\].*wrap\(net"):
            ask(rows, n=100, **({"progress": False} if ask.__name__ == "vote" else {}))
    recwarn.clear()
    rs.Smoothed(rs.wrap(net, mean=0, std=1), rs.Gaussian(sigma=0.5)).vote(rows, n=100, progress=False)
    rs.Smoothed(net, rs.Gaussian(sigma=0.5), domain=None).vote(rows, n=100, progress=False)
    assert not [each for each in recwarn if "is asked in" in str(each.message)]


def test_classes_are_counted_on_whatever_a_vote_takes():
    "A data set met a raw AttributeError."
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    smooth = rs.Smoothed(rs.wrap(net, num_classes=5, mean=0, std=1), rs.Gaussian(sigma=0.5))
    images = torch.rand(3, 3, 4, 4)
    for data in (images, images[0], images.numpy(), torch.utils.data.TensorDataset(images)):
        assert smooth.num_classes(data) == 5
    with pytest.raises(ValueError, match="no images"): smooth.num_classes(images[:0])
