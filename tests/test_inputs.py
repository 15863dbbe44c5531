"Inputs as people have them: each gives what one expects, streamed, or a message that says which axis and what to do."
import warnings
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

import robust_smooth as rs
from robust_smooth.training.vision import torchvision

PHOTOS = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
IMAGES = torch.from_numpy(PHOTOS).permute(0, 3, 1, 2).float() / 255
SETTINGS = dict(n=100, n0=10, progress=False, batch_size=50)


def smooth(channels=3, domain=(0, 1), noise=None):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return rs.Smoothed(rs.wrap(net, mean=0, std=1), noise or rs.Gaussian(sigma=0.5), domain=domain)


@pytest.fixture
def folder(tmp_path):
    for i, photo in enumerate(PHOTOS):
        place = tmp_path / "photos" / f"class{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(place / f"{i}.png")
    return tmp_path / "photos"


def test_every_holder_of_the_same_images_gives_the_same_votes():
    want = smooth().vote(IMAGES, **SETTINGS).counts
    pairs = [(image, i % 3) for i, image in enumerate(IMAGES)]
    holders = [
        IMAGES.numpy(),
        list(IMAGES),
        [image.numpy() for image in IMAGES],
        (IMAGES, torch.arange(5) % 3),
        pairs,
        [Image.fromarray(photo) for photo in PHOTOS],
        DataLoader(pairs, batch_size=2),
        rs.data.ImageSet(IMAGES, torch.arange(5) % 3),
        IMAGES.tolist(),
    ]
    for holder in holders:
        assert np.array_equal(smooth().vote(holder, **SETTINGS).counts, want), type(holder)
    for one in (IMAGES[0], IMAGES[0].numpy(), Image.fromarray(PHOTOS[0]), IMAGES[0].tolist()):
        assert np.array_equal(smooth().vote(one, **SETTINGS).counts, want[:1]), type(one)
    assert len(smooth().vote([IMAGES[0], IMAGES[1]], **SETTINGS)) == 2


def test_arrays_that_torch_does_not_take_as_they_are():
    "Reversed axes (BGR) and the other byte order, as files have them."
    want = smooth().vote(IMAGES, **SETTINGS).counts
    for array in (
        IMAGES.numpy().astype(">f4"),
        IMAGES.numpy()[:, ::-1].copy()[:, ::-1],
        IMAGES.double().numpy().astype(">f8"),
    ):
        assert np.array_equal(smooth().vote(array, **SETTINGS).counts, want)
        assert np.array_equal(smooth().vote((array, np.zeros(5, int)), **SETTINGS).counts, want)


def test_image_folders_with_and_without_to_tensor(folder):
    vision = torchvision()
    plain = vision.datasets.ImageFolder(folder)
    tensors = vision.datasets.ImageFolder(folder, transform=vision.transforms.ToTensor())
    votes = [smooth().vote(data, **SETTINGS) for data in (plain, tensors, DataLoader(tensors, batch_size=2))]
    for record in votes:
        assert record.labels.tolist() == [0, 0, 0, 1, 1] and np.array_equal(record.counts, votes[0].counts)
    part = smooth().vote(Subset(plain, [4, 1]), **SETTINGS)
    assert (
        part.index.tolist() == [4, 1]
        and part.labels.tolist() == [1, 0]
        and np.array_equal(part.counts, votes[0].counts[[4, 1]])
    )
    with pytest.raises(TypeError, match="give its data set itself"):
        smooth().vote(DataLoader(plain, batch_size=2), **SETTINGS)
    Image.new("RGB", (9, 6)).save(folder / "class1" / "wide.png")
    with pytest.raises(ValueError, match=r"one shape.*at position 5.*resize and crop"):
        smooth().vote(vision.datasets.ImageFolder(folder), **SETTINGS)
    with pytest.raises(TypeError, match=r"convert\('RGB'\)"): smooth().vote([Image.new("RGBA", (6, 6))], **SETTINGS)


class Counted(Dataset):
    "Images that are counted while they live."

    def __init__(self, size):
        self.size, self.alive, self.most, self.read = size, 0, 0, 0

    def __len__(self): return self.size

    def _gone(self): self.alive -= 1

    def __getitem__(self, i):
        if i >= self.size: raise IndexError(i)
        image = torch.full((3, 6, 6), i / self.size)
        weakref.finalize(image, self._gone)
        self.alive, self.read = self.alive + 1, self.read + 1
        self.most = max(self.most, self.alive)
        return image, i % 3


@pytest.mark.parametrize(
    "wrapped",
    [lambda data: data, lambda data: DataLoader(data, batch_size=10), lambda data: Subset(data, range(0, 600, 2))],
)
def test_a_data_set_never_stands_in_memory(wrapped, tmp_path, monkeypatch):
    data = Counted(600)
    settings = dict(SETTINGS, n=20, n0=5, save=tmp_path / "a.votes")
    record = smooth().vote(wrapped(data), **settings)
    assert data.most <= 2 * 64 < len(record), data.most # two groups, while one follows the other
    assert record.labels.tolist() == [i % 3 for i in record.index.tolist()]
    resumed = smooth().vote(wrapped(data), **settings)
    assert np.array_equal(resumed.counts, record.counts) and data.most <= 2 * 64


def test_groups_handed_to_the_engine_are_let_go(monkeypatch):
    "Not only the items: the batches made of them, too."
    from robust_smooth.voting import ballots
    alive, most = set(), []
    made = ballots.Ballot.of

    def watched(self, images, index):
        ballot = made(self, images, index)
        number = int(index[0])
        alive.add(number)
        weakref.finalize(ballot.images, alive.discard, number)
        most.append(len(alive))
        return ballot

    monkeypatch.setattr(ballots.Ballot, "of", watched)
    smooth().vote(Counted(640), **dict(SETTINGS, n=20, n0=5))
    assert len(most) == 9 and max(most) <= 2


def test_an_interrupted_stream_goes_on(tmp_path):
    whole = smooth().vote(Counted(200), **SETTINGS)

    class Broken(Counted):
        def __getitem__(self, i):
            if i == 150: raise OSError("the disk is gone")
            return super().__getitem__(i)

    with pytest.raises(OSError): smooth().vote(Broken(200), **SETTINGS, save=tmp_path / "a.votes")
    assert len(rs.load(tmp_path / "a.votes")) == 128 # two groups of 64
    assert np.array_equal(smooth().vote(Counted(200), **SETTINGS, save=tmp_path / "a.votes").counts, whole.counts)


def test_a_stream_without_a_length():
    class Stream(IterableDataset):
        def __iter__(self): return iter(zip(IMAGES, [0, 1, 2, 1, 0]))
    record = smooth().vote(DataLoader(Stream(), batch_size=2), **SETTINGS)
    assert np.array_equal(record.counts, smooth().vote(IMAGES, **SETTINGS).counts) and record.labels.tolist() == [
        0, 1, 2, 1, 0,
    ]
    with pytest.raises(ValueError, match="stream"):
        smooth().vote(DataLoader(Stream()), **SETTINGS, index=[4, 3, 2, 1, 0])


def test_what_a_stream_holds_is_checked_as_it_comes():
    late = [(image.clone(), 0) for image in IMAGES.repeat(20, 1, 1, 1)]
    late[70] = (late[70][0] + 5, 0)
    with pytest.raises(ValueError, match="image 70 in"): smooth().vote(late, **SETTINGS)
    late[70] = (late[69][0], "cat")
    with pytest.raises(ValueError, match="labels must be whole numbers for all images"): smooth().vote(late, **SETTINGS)
    with pytest.raises(ValueError, match="must not repeat"): smooth().vote(late[:5], **SETTINGS, index=[1, 1, 2, 3, 4])
    with pytest.raises(ValueError, match="must not repeat"): smooth().vote(Subset(late, [1, 1]), **SETTINGS)


@pytest.mark.parametrize(
    "images, channels, words",
    [
        (IMAGES.permute(0, 2, 3, 1), 3, r"\[5, 6, 6, 3\] do not fit.*permute\(0, 3, 1, 2\)"),
        (IMAGES[0].permute(1, 2, 0), 3, r"permute\(2, 0, 1\)\[None\]"),
        (IMAGES, 1, r"3 channels and the network reads 1.*mean\(1, keepdim=True\)"),
        (IMAGES[:, :1], 3, r"expand\(-1, 3, -1, -1\)"),
        (IMAGES[:, 0], 1, r"no axis of channels; write images\[:, None\]"),
        (IMAGES[0, 0], 1, r"images\[None, None\]"),
        (IMAGES[:, None], 3, "second batch axis"),
        (IMAGES[:, :2], 3, "axis 1 has 2 channels, and the network reads 3"),
        (IMAGES.flatten(1), 3, "reads 4 axes"),
        (list(IMAGES.permute(0, 2, 3, 1)), 3, r"permute\(0, 3, 1, 2\)"),
    ],
)
def test_the_message_says_which_axis_and_what_to_do(images, channels, words):
    for ask in (smooth(channels).vote, smooth(channels).predict):
        with pytest.raises(ValueError, match=words): ask(images, progress=False)


def test_vectors_of_any_origin(tmp_path):
    torch.manual_seed(0)
    model, table = rs.wrap(nn.Linear(4, 3), mean=0, std=1), torch.randn(6, 4) * 10
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\].*domain=None"):
        rs.Smoothed(model, rs.Gaussian(sigma=1)).vote(table, **SETTINGS)
    free = rs.Smoothed(model, rs.Gaussian(sigma=1), domain=None).vote(table, **SETTINGS, save=tmp_path / "a.votes")
    box = rs.Smoothed(model, rs.Gaussian(sigma=1), domain=(-50, 50)).vote(table, **SETTINGS)
    assert (
        np.array_equal(free.counts, box.counts)
        and rs.load(tmp_path / "a.votes").domain is None
        and box.domain == (-50.0, 50.0)
    )
    with pytest.raises(ValueError, match=r"must lie in \[-1, 1\]"):
        rs.Smoothed(model, rs.Gaussian(sigma=1), domain=(-1, 1)).vote(table, **SETTINGS)
    with pytest.raises(ValueError, match="finite"):
        rs.Smoothed(model, rs.Gaussian(sigma=1), domain=None).vote(table * torch.inf, **SETTINGS)
    with pytest.raises(ValueError, match="domain differs"):
        rs.Smoothed(model, rs.Gaussian(sigma=1), domain=(-50, 50)).vote(table, **SETTINGS, save=tmp_path / "a.votes")
    table_of = free.certify()
    assert (
        table_of.domain is None and "inputs: any real numbers" in repr(table_of.summary()) and rs.check(table_of).all()
    )
    again = rs.load(table_of.save(tmp_path / "c"))
    assert again.domain is None and again.stands().all() and rs.check(rs.load(box.certify().save(tmp_path / "d"))).all()
    assert not rs.check(rs.core.certificates.replace(table_of, domain=(0.0, 1.0))).any() # another unit is another claim
    assert len(rs.Smoothed(model, rs.Gaussian(sigma=1), domain=None).vote(table[0], **SETTINGS)) == 1


def test_what_needs_the_unit_interval_refuses_by_name():
    model = rs.wrap(nn.Linear(4, 3), mean=0, std=1)
    for noise in (
        rs.Splitting.from_sigma(0.5, q=255),
        rs.RoundedGaussian(sigma=0.5, q=255),
        rs.RoundedUniform(lam=0.5, q=255),
        rs.ContinuousSplitting(lam=0.5),
        rs.IndependentSplitting(n_splits=4, q=255),
    ):
        for domain in (None, (-1, 1)):
            with pytest.raises(ValueError, match=rf"{type(noise).__name__} noise needs inputs in \[0, 1\]"):
                rs.Smoothed(model, noise, domain=domain)
    record = rs.Record.from_counts([[9, 1]], [[90, 10]], 100, rs.RoundedGaussian(sigma=0.5, q=255), 4, domain=None)
    with pytest.raises(ValueError, match="RoundedGaussian noise needs inputs"): record.certify()
    for wrong in ((1, 0), "unit", (0,)):
        with pytest.raises(ValueError, match="domain must be"): rs.Smoothed(model, rs.Gaussian(sigma=1), domain=wrong)
    far = torch.rand(2, 4) + 3
    for attack in (rs.attacks.fgsm, rs.attacks.pgd, rs.attacks.ddn):
        options = dict(eps=0.1) if attack is not rs.attacks.ddn else {}
        with pytest.raises(ValueError, match=rf"{attack.__name__} .*\[0, 1\].*clip="):
            attack(model, far, torch.zeros(2, dtype=torch.long), **options)
        attack(model, far, torch.zeros(2, dtype=torch.long), clip=None, **options)


FRAME = pd.DataFrame(np.random.default_rng(0).random((4, 4)))
GREY = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "data, words",
    [
        (FRAME, r"DataFrame.*data\.to_numpy\(\)"),
        (FRAME[0], r"Series.*data\.to_numpy\(\)"),
        ((FRAME, [0] * 4), r"data\.to_numpy\(\)"),
        ((torch.rand(4, 4), pd.Series([0, 1, 2, 0])), r"labels must be.*Series.*labels\.to_numpy\(\)"),
        ((torch.rand(4), 1), r"labels must be.*\[1\]"),
        ((torch.rand(4), torch.tensor(2)), r"labels must be one class an image.*\[2\]"),
        ({"pixel_values": torch.rand(4, 4)}, r"data\['pixel_values'\]"),
    ],
)
def test_what_would_be_misread_is_refused(data, words):
    table = rs.Smoothed(rs.wrap(nn.Linear(4, 3), 0, 1), rs.Gaussian(sigma=0.5))
    for ask in (table.vote, table.predict, table.agreement, table.estimate):
        with pytest.raises(TypeError, match=words): ask(data)
    rows = table.vote(FRAME.to_numpy(), **SETTINGS)
    assert np.array_equal(rows.counts, table.vote(torch.from_numpy(FRAME.to_numpy()), **SETTINGS).counts)


@pytest.mark.parametrize(
    "images, channels, words",
    [
        (GREY, 3, r"images\[:, None\]\.expand\(-1, 3, -1, -1\)$"),
        (GREY.numpy(), 3, r"images\[:, None\]\.repeat\(3, axis=1\)$"),
        (GREY[0], 3, r"images\[None, None\]\.expand\(-1, 3, -1, -1\)$"),
        (IMAGES[None], 3, r"images\.flatten\(0, 1\)$"),
        (IMAGES[None].numpy(), 3, r"images\.reshape\(-1, \*images\.shape\[2:\]\)$"),
        (IMAGES[0], 1, r"one colour image, images\.mean\(0, keepdim=True\)$"),
        (IMAGES.permute(0, 2, 3, 1).numpy(), 3, r"images\.transpose\(0, 3, 1, 2\)$"),
        (IMAGES.numpy(), 1, r"images\.mean\(1, keepdims=True\)$"),
        (IMAGES * 1.0005, 3, r"got \[0, 1\.000[45]\d*\].*images\.clamp\(0, 1\)$"),
        (IMAGES.numpy() * 1.0005, 3, r"images\.clip\(0, 1\)$"),
    ],
)
def test_the_line_makes_what_the_network_takes(images, channels, words):
    asked = smooth(channels)
    with pytest.raises(ValueError, match=words) as caught: asked.vote(images, progress=False)
    line = str(caught.value).rpartition("write " if "colour image" not in words else "colour image, ")[2]
    made = eval(line, dict(images=images)) # what the refusal says, taken at its word
    assert asked.vote(made, **SETTINGS).counts.shape[1] == 3


@pytest.mark.parametrize(
    "images, domain, words",
    [
        (
            torch.ones(2, 4, dtype=torch.long) * 7,
            None,
            r"data must be floating point, got int64; write data\.float\(\)",
        ),
        (np.ones((2, 4), int), (-5, 5), r"data\.astype\('float32'\)"),
        (torch.ones(2, 4, dtype=torch.bool), (0, 1), r"got bool; write images\.float\(\)"),
        (torch.ones(2, 4, dtype=torch.uint8) * 255, (0, 1), r"images / 255"),
    ],
)
def test_whole_numbers_are_not_always_pixels(images, domain, words):
    with pytest.raises(TypeError, match=words):
        rs.Smoothed(rs.wrap(nn.Linear(4, 3), 0, 1), rs.Gaussian(sigma=1), domain=domain).vote(images)


@pytest.mark.parametrize(
    "last, words",
    [
        (lambda y: y * torch.nan, "^model returned NaN"),
        (lambda y: (y, None), r"^model must return logits.*net\(x\)\[0\]"),
        (lambda y: y[:, :1], r"^model must return logits.*wrap\(net\)"),
        (lambda y: y.argmax(1), "^model must return logits.*argmax"),
    ],
)
def test_what_a_network_returns_is_no_matter_of_the_images(last, words):
    with pytest.raises(ValueError, match=words):
        rs.Smoothed(lambda x: last(x.flatten(1)), rs.Gaussian(sigma=1)).vote(IMAGES, progress=False)


@pytest.mark.parametrize(
    "labels, words", [(torch.eye(5), r"labels\.argmax\(1\)"), (np.arange(5)[:, None], r"labels\[:, 0\]")]
)
def test_columns_and_one_hot_labels_get_their_line(labels, words):
    items = list(zip(IMAGES, labels))
    for data in (items, (IMAGES, torch.as_tensor(labels).long()), DataLoader(items, batch_size=5)):
        with pytest.raises(ValueError, match=words): smooth().vote(data, **SETTINGS)


@pytest.mark.parametrize(
    "settings, error, words",
    [
        (dict(n="1000"), ValueError, "n must be a whole number"),
        (dict(n0="10"), ValueError, "n0 must be"),
        (dict(batch_size=100.0), ValueError, "batch_size must be"),
        (dict(stop=5), TypeError, r"sequential\.plan"),
    ],
)
def test_settings_that_are_no_numbers(settings, error, words):
    with pytest.raises(error, match=words): smooth().vote(IMAGES, progress=False, **settings)
    if "n" in settings:
        for ask in (smooth().predict, smooth().estimate, smooth().agreement):
            with pytest.raises(error, match=words): ask(IMAGES, **settings)


def test_text_labels_are_left_out_with_a_word():
    named, numbered = [(image, "cat") for image in IMAGES], [(image, 0) for image in IMAGES]
    for data in (named, DataLoader(named, batch_size=2)):
        with pytest.warns(UserWarning, match="text, such as 'cat'"): record = smooth().vote(data, **SETTINGS)
        assert record.labels is None and np.array_equal(record.counts, smooth().vote(IMAGES, **SETTINGS).counts)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the labels")
        for data in (numbered, IMAGES, list(IMAGES), [(image, 0.5) for image in IMAGES]):
            smooth().vote(data, **SETTINGS)


def test_a_level_may_be_any_number():
    "A fraction met a raw TypeError in the reason of an abstention; it is the same level, and is kept as a plain number."
    from fractions import Fraction
    votes = rs.Record.from_counts([[9, 1]] * 2, [[990, 10], [500, 500]], 1000, rs.Gaussian(sigma=0.5), 4)
    for method in ("gaussian", "tcertify", "exact", "sequential"):
        plain, same = (votes.certify("l2", method=method, alpha=alpha) for alpha in (0.001, Fraction(1, 1000)))
        assert np.array_equal(plain.radius, same.radius) and type(same.alpha) is float and rs.check(same).all()


def test_what_is_joined_and_summed_up_is_refused_in_words():
    votes = rs.Record.from_counts([[9, 1]] * 2, [[990, 10], [500, 500]], 1000, rs.Gaussian(sigma=0.5), 4)
    table = votes.certify("l2")
    with pytest.raises(TypeError, match="each a Record, got Certificates; join the votes"):
        rs.Record.concat([table, table])
    with pytest.raises(ValueError, match=r"n must be a number or one per image \(2\), got shape \(2, 1\)"):
        rs.Record.from_counts([[9, 1]] * 2, [[990, 10], [500, 500]], [[1000], [1000]], rs.Gaussian(sigma=0.5), 4)
    for radii in ("a", [[0.1, 0.2], [0.3, 0.4]]):
        with pytest.raises(ValueError, match="radii must be a vector of numbers"):
            table.summary(labels=[0, 1], radii=radii)
