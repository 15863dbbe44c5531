"""Data sets: unit, order, subsets, layouts on disk, and that nothing is executed while reading."""
import gzip
import hashlib
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robust_smooth.training import data
from robust_smooth.core.places import checkout, home
from robust_smooth.training.data import ImageSet, load, MissingData, subset_index
from robust_smooth.training.vision import torchvision

SHARED = Path(os.environ.get("ROBUST_SMOOTH_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "datasets"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the folder of real data sets (../shared/datasets) is not there"
)


def test_digits_are_the_agreed_split():
    train, test = load("digits", "train"), load("digits", "test")
    assert (len(train), len(test), test.levels, test.num_classes) == (1297, 500, 16, 10)
    assert test.images.shape[1:] == (1, 8, 8) and test.images.dtype == torch.float32
    assert test.index.tolist() == list(range(500))
    whole = np.concatenate([train.images.numpy(), test.images.numpy()]).reshape(-1, 64) * 16
    from sklearn.datasets import load_digits
    assert sorted(map(tuple, whole.astype(int))) == sorted(map(tuple, load_digits().data.astype(int)))
    assert (test.labels.bincount() - 50).abs().max() <= 2
    assert (
        hashlib.sha256(test.images.numpy().tobytes()).hexdigest()
        == "ba4f38a3f777500affe8498a0e956a668748f45727cd5bd429aab873825d578d"
    )


@pytest.mark.parametrize(
    "subset, total, want",
    [
        (None, 3, [0, 1, 2]), ("every 4", 10, [0, 4, 8]), (3, 10, [0, 3, 6]), (10, 10, list(range(10))),
        ([5, 2], 10, [5, 2]), (np.array([9]), 10, [9]),
    ],
)
def test_subset_index(subset, total, want):
    assert subset_index(subset, total).tolist() == want


@pytest.mark.parametrize(
    "subset", ["every", "every 0", "every x", "20", 0, -1, 11, 2.5, [10], [-1], [1, 1], [0.5], [[1]]]
)
def test_subset_refused(subset):
    with pytest.raises(ValueError, match="subset"):
        subset_index(subset, 10)


def test_subset_every_20_equals_500_of_10000():
    assert np.array_equal(subset_index("every 20", 10_000), subset_index(500, 10_000))


@pytest.mark.parametrize(
    "settings, name",
    [
        (dict(images=torch.full((2, 3), 2.0)), "images"),
        (dict(images=torch.zeros(2, 3, dtype=torch.uint8)), "images"),
        (dict(images=torch.full((2, 3), float("nan"))), "images"),
        (dict(labels=torch.tensor([0])), "labels"),
        (dict(labels=torch.tensor([0.0, 1.0])), "labels"),
        (dict(labels=torch.tensor([-1, 0])), "labels"),
        (dict(num_classes=1), "labels"),
        (dict(index=[1]), "index"),
    ],
)
def test_image_set_refuses(settings, name):
    with pytest.raises(ValueError, match=name):
        ImageSet(**dict(images=torch.zeros(2, 3), labels=torch.tensor([0, 1])) | settings)


def test_image_set_is_a_dataset():
    images = load(subset=8)
    pairs = list(torch.utils.data.DataLoader(images, batch_size=3))
    assert torch.equal(torch.cat([x for x, _ in pairs]), images.images) and torch.equal(
        torch.cat([y for _, y in pairs]), images.labels
    )
    mask = images.labels == images.labels[0]
    assert torch.equal(images[mask].index, images.index[mask]) and images[-1][1] == int(images.labels[-1])
    with pytest.raises(IndexError):
        images[8]
    assert images.hash == load(subset=8).hash != images[1:].hash


def test_home_and_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(tmp_path))
    monkeypatch.delenv("ROBUST_SMOOTH_DATA", raising=False)
    assert home() == tmp_path and data.data_folder() == tmp_path / "datasets"
    monkeypatch.setenv("ROBUST_SMOOTH_DATA", str(tmp_path / "elsewhere"))
    assert data.data_folder() == tmp_path / "elsewhere" and data.data_folder(tmp_path) == tmp_path
    monkeypatch.delenv("ROBUST_SMOOTH_HOME")
    root = checkout(Path(__file__).parent)
    if root is not None:
        monkeypatch.chdir(root / "tests")
        assert home() == root / "data" / "cache"
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = another\n")
    assert checkout(tmp_path) is None


def test_unknown_names_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="imagenet"):
        load("imagenet")
    with pytest.raises(ValueError, match="split"):
        load("digits", "validation")
    for name, lacking in (
        ("mnist", "t10k-images"), ("cifar10", "test_batch"), ("cifar100", "test"),
        ("svhn", "test_32x32.mat"),
        ("imagefolder", "class folders"),
        ("imagenet_sample", "zip"),
    ):
        with pytest.raises(MissingData, match=lacking) as caught:
            load(name, data_dir=tmp_path)
        assert str(tmp_path) in str(caught.value)


def _write_idx(path, array, packed):
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(path.name + (".gz" if packed else "")).write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_layout(tmp_path, packed):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28))
    _write_idx(tmp_path / "MNIST/raw/t10k-images-idx3-ubyte", pixels, packed)
    _write_idx(tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte", np.arange(5), packed)
    got = load("mnist", "test", data_dir=tmp_path, subset=[4, 1])
    assert got.images.shape == (2, 1, 28, 28) and got.labels.tolist() == [4, 1] and got.index.tolist() == [4, 1]
    assert torch.equal((got.images * 255).round().long()[:, 0], torch.tensor(pixels[[4, 1]]))


def test_cifar_layout_through_torchvision(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = pickle.dumps({"data": pixels, "labels": [3, 1, 4, 1]})
    (folder / "test_batch").write_bytes(batch)
    meta = pickle.dumps({"label_names": list("abcdefghij")})
    (folder / "batches.meta").write_bytes(meta)
    with pytest.raises(RuntimeError):  # the sums are not the published ones: refused before anything is unpickled
        load("cifar10", "test", data_dir=tmp_path)
    cifar = torchvision().datasets.CIFAR10
    monkeypatch.setattr(cifar, "test_list", [["test_batch", hashlib.md5(batch).hexdigest()]])
    monkeypatch.setattr(
        cifar, "meta", dict(filename="batches.meta", key="label_names", md5=hashlib.md5(meta).hexdigest())
    )
    got = load("cifar10", "test", data_dir=tmp_path)
    assert got.labels.tolist() == [3, 1, 4, 1] and torch.equal(
        (got.images * 255).round().to(torch.uint8).reshape(4, -1), torch.tensor(pixels)
    )


@pytest.mark.parametrize(
    "name, layout", [("mnist", "MNIST"), ("cifar10", "CIFAR10"), ("cifar100", "CIFAR100"), ("svhn", "SVHN")]
)
def test_download_is_asked_of_torchvision(tmp_path, monkeypatch, name, layout):
    asked = {}

    class Stand:
        def __init__(self, root, download=False, **settings):
            asked.update(root=root, download=download, **settings)
            if layout == "MNIST":
                _write_idx(Path(root) / "MNIST/raw/t10k-images-idx3-ubyte", np.zeros((2, 28, 28)), True)
                _write_idx(Path(root) / "MNIST/raw/t10k-labels-idx1-ubyte", np.arange(2), True)
            shape = (2, 3, 32, 32) if layout == "SVHN" else (2, 32, 32, 3)
            self.data, self.targets = np.zeros(shape, np.uint8), [0, 1]
            self.labels = np.array(self.targets)

    monkeypatch.setattr(torchvision().datasets, layout, Stand)
    got = load(name, "test", data_dir=tmp_path, download=True)
    assert asked["download"] is True and asked["root"] == str(tmp_path) and len(got) == 2


def _packed_cifar(path, pixels, key, labels):
    head = pickle.dumps({"batch_label": "x", key: labels}, protocol=2)
    columns = pixels.reshape(-1, 32, 3)
    buffer = io.BytesIO()
    Image.fromarray(columns).save(buffer, "WEBP", lossless=True)
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("000.webp", buffer.getvalue()), ("head.bin", head), ("tail.bin", b"tail")):
            archive.writestr(name, content)
    return hashlib.md5(head + pixels.transpose(0, 3, 1, 2).tobytes() + b"tail").hexdigest()


def test_packed_layout_is_verified_and_never_unpickled(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    digest = _packed_cifar(tmp_path / "cifar100" / "test.zip", pixels, "fine_labels", [99, 0, 42])
    with pytest.raises(ValueError, match="published"):
        load("cifar100", "test", data_dir=tmp_path)
    monkeypatch.setitem(data.PUBLISHED_MD5, "test", digest)
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    got = load("cifar100", "test", data_dir=tmp_path)
    assert got.labels.tolist() == [99, 0, 42] and got.num_classes == 100
    assert np.array_equal((got.images * 255).round().numpy().astype(np.uint8), pixels.transpose(0, 3, 1, 2))


def test_pickled_numbers_does_not_execute(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "boom",))

    blob = pickle.dumps({"bomb": Bomb(), "labels": [1, 2, 300]}, protocol=2)
    assert data.pickled_numbers(blob, "labels") == [1, 2, 300]
    assert not (tmp_path / "boom").exists()
    many = list(np.random.default_rng(0).integers(0, 70_000, 5000).tolist())
    assert data.pickled_numbers(pickle.dumps({"labels": many, "more": [1]}, protocol=2), "labels") == many
    with pytest.raises(ValueError, match="absent"):
        data.pickled_numbers(blob, "absent")


def test_picture_folder_matches_torchvision_preprocessing(tmp_path):
    rng = np.random.default_rng(0)
    for label, size in enumerate([(50, 41), (40, 61)]):
        (tmp_path / "val" / f"c{label}").mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / "val" / f"c{label}" / "a.png")
    got = load("imagefolder", "val", data_dir=tmp_path, resize=36, crop=32)
    tf = torchvision().transforms
    pipeline = tf.Compose([tf.Resize(36), tf.CenterCrop(32), tf.ToTensor()])
    for i, image in enumerate(got.images):
        assert torch.equal(image, pipeline(Image.open(tmp_path / "val" / f"c{i}" / "a.png")))
    assert load("imagefolder", "val", data_dir=tmp_path, subset=[1], resize=36, crop=32).labels.tolist() == [1]
    with pytest.raises(ValueError, match="resize and crop"):
        load("imagefolder", "val", data_dir=tmp_path, resize=None, crop=None)


@needs_shared
@pytest.mark.parametrize(
    "name, split, count, total, first",
    [
        ("mnist", "test", 10_000, 264923200, [7, 2, 1, 0, 4]),
        ("cifar10", "test", 10_000, 3733375634, [3, 8, 8, 0, 6]),
        ("cifar100", "test", 10_000, 3755249331, [49, 33, 72, 51, 71]),
        ("svhn", "train_first1083", 1083, 393231963, [1, 9, 2, 3, 2]),
    ],
)
def test_real_files(name, split, count, total, first):
    got = load(name, split, data_dir=SHARED)
    assert len(got) == count and got.labels[:5].tolist() == first
    assert int((got.images * 255).round().to(torch.int64).sum()) == total


@needs_shared
def test_parts_keep_their_names():
    for name, split, hint in (("svhn", "train", "train_first1083"), ("cifar100", "train", "train_first10000")):
        with pytest.raises(MissingData, match=hint):
            load(name, split, data_dir=SHARED)
    got = load("imagenet_sample", data_dir=SHARED, subset=2)
    assert got.images.shape == (2, 3, 224, 224) and got.num_classes == 1000 and got.labels.tolist() == [8, 508]


def test_folders_of_splits_are_never_classes(tmp_path):
    for split in ("test", "val"):
        for kind in ("cat", "dog"):
            (tmp_path / "pics" / split / kind).mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(tmp_path / "pics" / split / kind / "0.png")
    from robust_smooth.training.opened import open_data
    pics, size = tmp_path / "pics", dict(resize=8, crop=8)
    assert (
        load("imagefolder", "val", data_dir=pics, **size).num_classes == 2 == len(open_data(str(pics), "val").classes)
    )
    for wrong in (lambda: load("imagefolder", split="tset", data_dir=pics), lambda: open_data(str(pics), "tset")):
        with pytest.raises(MissingData, match=r"no folder .*pics/tset; there are test, val"): wrong()
    assert (
        load("imagefolder", data_dir=pics / "val", **size).num_classes
        == load("imagefolder", "val", data_dir=pics / "val", **size).num_classes
        == 2
    )
    with pytest.raises(MissingData, match="cat, dog themselves: leave split out"):
        load("imagefolder", "train", data_dir=pics / "val")
    with pytest.raises(MissingData, match="hold folders, not pictures"): load("imagefolder", "pics", data_dir=tmp_path)
    with pytest.raises(MissingData, match="no class folders"): load("imagefolder", data_dir=pics / "val" / "cat")
    (tmp_path / "other" / "CIFAR").mkdir(parents=True)
    with pytest.raises(MissingData, match="imagefolder: .*CIFAR"): load("imagefolder", data_dir=tmp_path / "other")
    for kind in ("n01", "n02"): # a class may keep its pictures in a folder, the same in all
        (tmp_path / "tiny" / kind / "images").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "tiny" / kind / "images" / "0.png")
    assert load("imagefolder", data_dir=tmp_path / "tiny", **size).labels.tolist() == [0, 1]
