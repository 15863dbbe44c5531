"Images, labels and indices out of whatever holds them, and what is refused."
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler, ConcatDataset, DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset,
    SubsetRandomSampler, TensorDataset, WeightedRandomSampler,
)

import robust_smooth as rs
from robust_smooth.training.data import ImageSet
from robust_smooth.training.holders import as_images

IMAGES = torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([3, 1, 4, 1, 5, 9, 2])
PHOTOS = TensorDataset(IMAGES, LABELS)
SETTINGS = dict(n=100, n0=10, progress=False)


def smooth() -> rs.Smoothed:
    torch.manual_seed(0)
    return rs.Smoothed(rs.wrap(nn.Sequential(nn.Flatten(), nn.Linear(16, 10)), mean=0, std=1), rs.Gaussian(sigma=0.01))


@pytest.mark.parametrize(
    "loader",
    [
        dict(shuffle=True),
        dict(sampler=RandomSampler(PHOTOS, replacement=True)),
        dict(sampler=SubsetRandomSampler([1, 2, 3])),
        dict(sampler=WeightedRandomSampler([1.0] * 7, 7)),
        dict(batch_sampler=BatchSampler(RandomSampler(PHOTOS), 2, False)),
        dict(shuffle=True, generator=torch.Generator().manual_seed(3)),
    ],
)
def test_a_loader_that_draws_its_order_is_refused(loader):
    data = DataLoader(PHOTOS, **({} if "batch_sampler" in loader else dict(batch_size=2)), **loader)
    with pytest.raises(ValueError, match="another order each time"):
        smooth().vote(data, **SETTINGS)


class EveryOther:
    "A sampler of one's own, always the same."
    def __iter__(self): return iter([6, 4, 2, 0])
    def __len__(self): return 4


@pytest.mark.parametrize(
    "data, rows",
    [
        (PHOTOS, range(7)),
        (Subset(PHOTOS, [1, 3]), [1, 3]),
        (Subset(Subset(PHOTOS, [5, 3, 1]), [2, 0]), [1, 5]),
        (DataLoader(PHOTOS, batch_size=3), range(7)),
        (DataLoader(PHOTOS, batch_size=3, drop_last=True), range(6)),
        (DataLoader(Subset(PHOTOS, [6, 0]), batch_size=2), [6, 0]),
        (DataLoader(PHOTOS, sampler=EveryOther(), batch_size=3), [6, 4, 2, 0]),
        (DataLoader(PHOTOS, sampler=[2, 0], batch_size=None), [2, 0]),
        (DataLoader(PHOTOS, batch_sampler=[[3, 1], [5]]), [3, 1, 5]),
        (DataLoader(Subset(PHOTOS, [6, 5, 4]), sampler=SequentialSampler([0, 1])), [6, 5]),
        (ConcatDataset([Subset(PHOTOS, [0, 1, 2]), Subset(PHOTOS, [3, 4, 5, 6])]), range(7)),
        (ImageSet(IMAGES, LABELS)[[4, 2]], [4, 2]),
        (Subset(ImageSet(IMAGES, LABELS)[[4, 2, 1]], [2, 0]), [1, 4]),
    ],
)
def test_indices_and_labels_go_with_their_images(data, rows):
    given = as_images(data)
    rows = list(rows)
    assert torch.equal(given.images, IMAGES[rows]) and given.labels.tolist() == LABELS[rows].tolist()
    if given.index is not None:
        assert given.index.tolist() == rows
    assert given.index is not None or rows == list(range(7))


def test_votes_of_a_subset_are_those_of_its_images_in_the_whole():
    whole, part = (
        smooth().vote(PHOTOS, **SETTINGS),
        smooth().vote(DataLoader(Subset(PHOTOS, [5, 1]), batch_size=2), **SETTINGS),
    )
    assert part.index.tolist() == [5, 1]
    assert np.array_equal(part.counts, whole.counts[[5, 1]])


def test_a_list_of_two_images_is_two_images():
    for shape in ((1, 4, 4), (4, 4), (16,)):
        one, two = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
        for pair in ([one, two], (one, two), [one.numpy(), two.numpy()]):
            given = as_images(pair)
            assert given.images.shape == (2, *shape) and given.labels is None
    assert smooth().predict([IMAGES[0], IMAGES[1]]).shape == (2,)
    given = as_images((IMAGES, LABELS))
    assert given.images.shape == IMAGES.shape and given.labels.tolist() == LABELS.tolist()
    assert as_images((IMAGES[:2], [1, 0])).labels.tolist() == [1, 0]


def test_a_single_image_is_one_image():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    voter = rs.Smoothed(rs.wrap(net, num_classes=3, mean=[0.5], std=[0.5]), rs.Gaussian(sigma=0.2))
    one, batch = voter.vote(IMAGES[0], **SETTINGS), voter.vote(IMAGES[:1], **SETTINGS)
    assert np.array_equal(one.counts, batch.counts) and one.images.tolist() == batch.images.tolist()
    assert voter.predict(IMAGES[0]).shape == (1,) and voter.estimate(IMAGES[0], seconds=0.01).images == 1
    assert voter.agreement(IMAGES[0]) == voter.agreement(IMAGES[:1])


def test_streams_have_no_names():
    class Stream(IterableDataset):
        def __iter__(self): return iter(zip(IMAGES, LABELS))
    given = as_images(DataLoader(Stream(), batch_size=3))
    assert given.index is None and given.labels.tolist() == LABELS.tolist()


def test_reading_leaves_the_global_random_state():
    before = torch.get_rng_state()
    as_images(DataLoader(PHOTOS, batch_size=2))
    as_images(DataLoader(PHOTOS, sampler=EveryOther()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "data, error, match",
    [
        ((IMAGES, LABELS.float() + 0.5), None, ""),
        ([(IMAGES[0], [0, 1]), (IMAGES[1], [1, 0])], ValueError, "one class an image"),
        (IMAGES.to(torch.uint8), TypeError, "floating point"),
        ([dict(image=IMAGES[0])], TypeError, "dictionaries"),
        ([], ValueError, "no images"),
        (3, TypeError, "DataLoader"),
    ],
)
def test_what_is_no_batch_of_images(data, error, match):
    if error is None:
        assert as_images(data).labels is None
        return
    with pytest.raises(error, match=match):
        as_images(data)

class Once(IterableDataset):
    "A stream that can be read once: what was looked at is gone."
    def __init__(self): self.rest = iter(list(zip(IMAGES, LABELS)))
    def __iter__(self): return self.rest


def test_looking_at_a_stream_loses_none_of_its_images():
    "A vote with moments, and a prediction, looked at the first batch, and began behind it."
    whole, voter = smooth().vote(PHOTOS, moments=True, **SETTINGS), smooth()
    record = voter.vote(DataLoader(Once(), batch_size=2), moments=True, **SETTINGS)
    assert np.array_equal(record.images, whole.images) and record.labels.tolist() == LABELS.tolist()
    assert np.array_equal(record.counts, whole.counts)
    assert np.array_equal(voter.predict(DataLoader(Once(), batch_size=2), n=100), voter.predict(PHOTOS, n=100))
    assert voter.estimate(DataLoader(Once(), batch_size=2), n=100, seconds=0.01).images == 7
    used = DataLoader(Once(), batch_size=2)
    voter.vote(used, **SETTINGS)
    with pytest.raises(ValueError, match="no images"): voter.predict(used, n=100)


def test_a_stream_that_ended_is_no_reason_to_fail_otherwise():
    class Flat(Once):
        def __init__(self): self.rest = iter(list(IMAGES[:, 0, :, :3]))
    with pytest.raises(ValueError, match="do not fit the network"):
        smooth().vote(DataLoader(Flat(), batch_size=7), **SETTINGS)


class OneBuffer(torch.utils.data.Dataset):
    "A data set that decodes each image into the same memory, and its class, too."
    def __init__(self, give): self.image, self.label, self.give = torch.zeros(1, 4, 4), torch.zeros((), dtype=torch.int64), give
    def __len__(self): return 7
    def __getitem__(self, i):
        self.image.copy_(IMAGES[i])
        self.label.copy_(LABELS[i])
        return self.give(self.image), self.give(self.label)


@pytest.mark.parametrize("give", [torch.Tensor.detach, torch.Tensor.numpy])
def test_memory_that_a_data_set_uses_again_holds_no_later_image(give):
    "All images of a group were the last one, beside the labels of each."
    for data in (OneBuffer(give), Subset(OneBuffer(give), range(7)), DataLoader(OneBuffer(give), batch_size=None)):
        given = as_images(data)
        assert torch.equal(given.images, IMAGES) and given.labels.tolist() == LABELS.tolist()


def test_memory_that_a_collate_fn_uses_again_holds_no_later_batch():
    room = torch.zeros(2, 1, 4, 4)
    def collate(items):
        for row, (image, _) in enumerate(items): room[row] = image
        return room[:len(items)], torch.stack([label for _, label in items])
    given = as_images(DataLoader(PHOTOS, batch_size=2, collate_fn=collate))
    assert torch.equal(given.images, IMAGES) and given.labels.tolist() == LABELS.tolist()


class Shared(IterableDataset):
    "A stream that workers share, or do not."
    def __init__(self, share): self.share = share
    def __iter__(self):
        me = torch.utils.data.get_worker_info()
        return iter(list(zip(IMAGES, LABELS))[me.id::me.num_workers] if self.share and me else list(zip(IMAGES, LABELS)))


def test_workers_that_each_read_a_whole_stream_are_told(recwarn):
    assert len(as_images(DataLoader(Shared(True), batch_size=2, num_workers=2)).images) == 7
    assert not [one for one in recwarn if "workers" in str(one.message)]
    with pytest.warns(UserWarning, match="the same images 2 times, as each of its 2 workers"):
        as_images(DataLoader(Shared(False), batch_size=2, num_workers=2))


def test_a_stream_wants_a_loader_and_a_mapped_file_is_read_in_silence(tmp_path, recwarn):
    class Known(Once):
        def __len__(self): return 7
    for stream in (Once(), Known()):
        with pytest.raises(TypeError, match=r"DataLoader\(data, batch_size=64\)"): as_images(stream)
    np.save(tmp_path / "a.npy", IMAGES.numpy())
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert torch.equal(as_images(mapped).images, IMAGES) and torch.equal(as_images(list(mapped)).images, IMAGES)
    assert not [one for one in recwarn if "writable" in str(one.message)]
