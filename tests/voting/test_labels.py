"Labels and indices go with their images from the data into the Record, the file and the certificates."
import dataclasses
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import robust_smooth as rs
from robust_smooth.training.holders import as_source

IMAGES = torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(0))
SETTINGS = dict(n=200, n0=20, progress=False)


def smooth() -> rs.Smoothed:
    torch.manual_seed(0)
    return rs.Smoothed(
        rs.wrap(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), num_classes=3, mean=0, std=1), rs.Gaussian(sigma=0.01)
    )


LABELS = torch.as_tensor(smooth().predict(IMAGES, n=50))
PHOTOS = TensorDataset(IMAGES, LABELS)


@pytest.mark.parametrize(
    "data, rows",
    [
        (PHOTOS, range(9)),
        ((IMAGES, LABELS), range(9)),
        (Subset(PHOTOS, [7, 2, 5]), [7, 2, 5]),
        (DataLoader(Subset(PHOTOS, [7, 2, 5]), batch_size=2), [7, 2, 5]),
        (DataLoader(PHOTOS, sampler=[8, 0], batch_size=2), [8, 0]),
    ],
)
def test_certified_accuracy_needs_no_labels(data, rows, tmp_path):
    rows = list(rows)
    record = smooth().vote(data, save=tmp_path / "a.votes", **SETTINGS)
    assert record.labels.tolist() == LABELS[rows].tolist() and record.index.tolist() == rows
    for again in (record, rs.load(tmp_path / "a.votes")):
        table = again.certify("l2")
        assert np.array_equal(table.labels, LABELS.numpy()[table.index])
        assert (
            table.certified_accuracy(radii=[0.0])
            == table.certified_accuracy(LABELS.numpy()[table.index], [0.0])
            == [1.0]
        )


def test_other_labels_are_refused_when_a_vote_goes_on(tmp_path):
    path = tmp_path / "a.votes"
    smooth().vote((IMAGES[:4], LABELS[:4]), save=path, **SETTINGS)
    with pytest.raises(ValueError, match="labels differ: dataset index 2"):
        other = LABELS.clone()
        other[2] = (other[2] + 1) % 3
        smooth().vote((IMAGES, other), save=path, **SETTINGS)
    with pytest.raises(ValueError, match="labels must be given"):
        smooth().vote(IMAGES, save=path, **SETTINGS)
    assert smooth().vote((IMAGES, LABELS), save=path, **SETTINGS).labels.tolist() == LABELS.tolist()


def test_labels_may_come_later_and_the_file_takes_them(tmp_path):
    path = tmp_path / "a.votes"
    smooth().vote(IMAGES[:4], save=path, **SETTINGS)
    assert smooth().vote((IMAGES, LABELS), save=path, **SETTINGS).labels.tolist() == LABELS.tolist()
    kept = rs.load(path)
    assert len(kept) == 9 and kept.labels[np.argsort(kept.index)].tolist() == LABELS.tolist()
    smooth().vote((IMAGES, LABELS), save=path, **SETTINGS) # the file is one to go on from
    other = tmp_path / "b.votes"
    smooth().vote(IMAGES, save=other, **SETTINGS)
    smooth().vote((IMAGES[:4], LABELS[:4]), save=other, **SETTINGS) # of fewer images than it holds: not touched
    assert rs.load(other).labels is None and len(rs.load(other)) == 9


# ---- labels that were handed over are kept, or refused: never dropped

@pytest.mark.parametrize(
    "labels",
    [
        ["0", "1", "0"],
        [float("nan"), 1.0, 0.0],
        np.array([0, None, 1], dtype=object),
        np.array([[0], [1], [0]]),
        [0, 1],
        np.eye(3, dtype=int),
    ],
)
def test_labels_that_are_none_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be"):
        as_source((torch.rand(3, 1, 2, 2), labels))


@pytest.mark.parametrize(
    "labels",
    [np.array([2, 0, 1], dtype=object), np.array([2, 0, 1], dtype=np.uint8), torch.tensor([2.0, 0.0, 1.0]), (2, 0, 1)],
)
def test_labels_of_any_kind_are_classes(labels):
    given = as_source((torch.rand(3, 1, 2, 2), labels)).whole
    assert given.labels.dtype == np.int64 and given.labels.tolist() == [2, 0, 1]


def test_two_images_are_two_images():
    assert as_source([torch.rand(1, 2, 2), torch.rand(1, 2, 2)]).size == 2


@pytest.mark.parametrize("labels", [[0.5, 1.0], ["0", "1"], [float("nan"), 0.0]])
def test_accuracy_against_what_is_no_class_is_refused(labels):
    table = rs.Record.from_counts([[9, 1], [9, 1]], [[990, 10], [980, 20]], 1000, rs.Gaussian(sigma=0.5), 4).certify(
        "l2"
    )
    with pytest.raises(ValueError, match="labels must be whole numbers"):
        table.certified_accuracy(labels)
    assert table.certified_accuracy([0.0, 0.0]) == 1


# ---- labels are judged before the first forward pass, or as early as a stream allows; what was computed is never lost

class Asked(nn.Module):
    "Counts the images that it is shown."
    def __init__(self, known: bool):
        super().__init__()
        self.seen = 0
        if known:
            self.num_classes = 3

    def forward(self, x):
        self.seen += len(x)
        return x.flatten(1)[:, :3]


class Named(Dataset):
    "Images whose labels are a function of their place; it notes which were read."
    def __init__(self, size, label):
        self.size, self.label, self.read = size, label, []

    def __len__(self): return self.size

    def __getitem__(self, i):
        if i >= self.size:
            raise IndexError(i)
        self.read.append(i)
        return IMAGES[i % 9], self.label(i)


class Flow(IterableDataset):
    def __init__(self, *items): self.items = items
    def __len__(self): return len(self.items)
    def __iter__(self): yield from self.items


def holders(label, size=150):
    return [
        Named(size, label),
        DataLoader(Named(size, label), batch_size=10),
        DataLoader(Flow(*((IMAGES[i % 9], label(i)) for i in range(size))), batch_size=10),
    ]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("holder", range(3))
def test_a_label_that_is_no_class_is_refused_with_the_first_images(known, holder, tmp_path):
    data, net = holders(lambda i: 3 if i == 5 else 0)[holder], Asked(known).eval()
    with pytest.raises(ValueError, match="got 3 for dataset index 5"):
        rs.Smoothed(net, rs.Gaussian(sigma=0.1)).vote(data, save=tmp_path / "a.votes", **SETTINGS)
    assert net.seen <= (0 if known else 1)             # who does not say how many classes there are is shown one image
    held = data.dataset if isinstance(data, DataLoader) else data
    assert isinstance(held, Flow) or max(held.read) < 80 # not all was read
    rs.Smoothed(net, rs.Gaussian(sigma=0.1)).predict(data, n=50, batch_size=50) # which asks for no labels


def test_labels_in_memory_are_judged_where_the_network_does_not_say_its_classes():
    net = Asked(False).eval()
    with pytest.raises(ValueError, match="got 3 for dataset index 8"):
        rs.Smoothed(net, rs.Gaussian(sigma=0.1)).vote((IMAGES, [0] * 8 + [3]), **SETTINGS)
    assert net.seen <= 2 # one image with its axis, one for its classes


@pytest.mark.parametrize("holder", range(3))
def test_a_later_label_is_told_at_once_and_loses_no_vote(holder, recwarn):
    data = holders(lambda i: 3 if i in (100, 140) else i % 3)[holder]
    record = smooth().vote(data, **SETTINGS)
    said = [str(each.message) for each in recwarn if "labels must be" in str(each.message)]
    assert len(said) == 1 and "got 3 for dataset index 100" in said[0] and "the vote goes on" in said[0]
    assert len(record) == 150 and record.labels[100] == 3
    with pytest.raises(ValueError, match="got 3 for dataset index 100"):
        record.certify()
    assert len(dataclasses.replace(record, labels=None).certify()) == 150


class Broken(Dataset):
    "A data set of which one item is another thing, or an error."

    def __init__(self, item):
        self.item = item

    def __len__(self):
        return 90

    def __getitem__(self, i):
        if i == 70 and isinstance(self.item, Exception):
            raise self.item
        return self.item if i == 70 else (IMAGES[i % 9], 0)


@pytest.mark.parametrize("item, kind, said", [
    (FileNotFoundError("7.png"), FileNotFoundError, "FileNotFoundError: 7.png"),
    (KeyError("name"), RuntimeError, "KeyError: 'name'"),
    (UnicodeDecodeError("utf-8", b"x", 0, 1, "odd"), RuntimeError, "UnicodeDecodeError"),
    (StopIteration(), RuntimeError, ""),
    ((None, 0), TypeError, "images must be numbers, got object"),
    (("7.png", 0), TypeError, "got the name '7.png'"),
    ({"image": IMAGES[0]}, TypeError, "images must be numbers"),
    ((IMAGES[0].byte(), 0), TypeError, "got torch.uint8"),
])
@pytest.mark.parametrize("holder, place", [
    (lambda data: data, "position 70"),
    (lambda data: Subset(data, range(60, 80)), r"position 10 \(dataset index 70\)"),
    (lambda data: DataLoader(data, batch_size=64), r"position 70 \(dataset index 70\)"),
], ids=["set", "subset", "loader"])
def test_an_image_that_cannot_be_read_is_named_and_loses_no_vote(item, kind, said, holder, place, tmp_path):
    "Errors of a data set came out as they were; which of ten thousand images it was, nobody said."
    data = holder(Broken(item))
    if isinstance(data, DataLoader) and (isinstance(item, StopIteration) or not isinstance(item, Exception)):
        pytest.skip("its batches cannot be made, and PyTorch says why, or they end")
    with pytest.raises(kind, match=place) as caught:
        smooth().vote(data, save=tmp_path / "a.votes", **SETTINGS)
    assert said in str(caught.value)
    assert not isinstance(data, Broken) or len(rs.load(tmp_path / "a.votes")) == 64
    with pytest.raises(kind, match=place):
        smooth().predict(data, n=100)


def test_a_stream_that_breaks_off_says_behind_which_image():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from [(image, 0) for image in IMAGES]
            raise ConnectionResetError("gone")
    with pytest.raises(ConnectionResetError, match="no image behind the first 0: ConnectionResetError: gone"):
        smooth().vote(DataLoader(Stream(), batch_size=2), **SETTINGS)


def test_text_is_told_before_the_first_pass():
    net = Asked(True).eval()
    with warnings.catch_warnings(), pytest.raises(UserWarning, match="are text, such as 'cat'"):
        warnings.simplefilter("error")
        rs.Smoothed(net, rs.Gaussian(sigma=0.1)).vote(Named(9, lambda i: "cat"), **SETTINGS)
    assert net.seen == 0


@pytest.mark.parametrize("item", [IMAGES[0], (IMAGES[0],), (IMAGES[0], "cat"), (IMAGES[0], 0.5)])
def test_a_stream_without_classes_keeps_its_votes(item):
    record = smooth().vote(DataLoader(Flow(*[item] * 5), batch_size=2), **SETTINGS)
    assert len(record) == 5 and record.labels is None
