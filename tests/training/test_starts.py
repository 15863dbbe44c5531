"Where a training starts from, and by which recipe: what is neither is refused with the line to write."
import pytest
import torch
from torch import nn

import robust_smooth as rs


def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


PAIRS = (torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2]))


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda folder: folder, FileNotFoundError, "init must be a file of weights, got .*: a folder"),
        (
            lambda folder: str(folder / "nowhere.pt"),
            FileNotFoundError,
            "init must be a file of weights, got .*nowhere.pt.*no such file",
        ),
        (lambda folder: written(folder / "notes.pt", b"not weights"), ValueError, "notes.pt .*cannot be read"),
        (
            lambda folder: written(folder / "some.votes", b"robust_smooth votes 2\nabc"),
            ValueError,
            "some.votes must be a checkpoint or safetensors",
        ),
        (lambda folder: dict(state_dict=small().state_dict(), epoch=3), TypeError, r"write init\['state_dict'\]"),
        (
            lambda folder: {name: value.numpy() for name, value in small().state_dict().items()},
            TypeError,
            "torch.as_tensor",
        ),
        (
            lambda folder: nn.Sequential(nn.Flatten(), nn.Linear(4, 5)),
            ValueError,
            r"weight 1.bias must have shape \[3\], got \[5\]|weight 1.weight must have shape \[3, 4\], got \[5, 4\]",
        ),
        (lambda folder: nn.Linear(2, 2), ValueError, "2 are missing"),
        (lambda folder: 3, TypeError, "init must be a network, weights by name, or a file"),
    ],
)
def test_what_no_training_starts_from(make, error, words, tmp_path):
    with pytest.raises(error, match=words):
        rs.train.fit(small(), PAIRS, rs.train.Standard(), epochs=1, progress=False, init=make(tmp_path))


def written(path, data):
    path.write_bytes(data)
    return path


def test_what_is_no_recipe():
    noise = rs.Gaussian(sigma=0.5)
    for wrong, words in (
        (noise, r"got the noise Gaussian; write NoiseAugmentation\(Gaussian\("),
        (rs.Gaussian, "got the noise Gaussian"),
        (rs.train.NoiseAugmentation, "got the class NoiseAugmentation"),
        (rs.train.NoiseAugmentation(0.5), "noise of NoiseAugmentation must be .* got 0.5"),
        (rs.train.NoiseAugmentation(rs.Gaussian), "noise of NoiseAugmentation must be"),
        (0.5, "recipe must have a method loss"),
    ):
        with pytest.raises(TypeError, match=words):
            rs.train.fit(small(), PAIRS, wrong, epochs=1, progress=False)
    with pytest.raises(TypeError, match="'recipe'; its arguments: model, data, recipe, epochs"):
        rs.train.fit(small(), PAIRS, epochs=1)


def test_a_recipe_of_ones_own_may_call_anything_noise():
    class Mine(rs.train.Standard):
        noise = 0.0 # a number, as in the recipe of Bernstein's certificates
    assert rs.train.fit(small(), PAIRS, Mine(), epochs=1, progress=False).fingerprint


def test_asking_first_changes_no_training():
    make = rs.train.fit.__wrapped__
    nets = [small() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    fingerprints = [
        fit(net, PAIRS, rs.train.NoiseAugmentation(rs.Gaussian(sigma=0.5)), epochs=2, progress=False).fingerprint
        for fit, net in zip((rs.train.fit, make), nets)
    ]
    assert fingerprints[0] == fingerprints[1]


@pytest.mark.parametrize(
    "given, named, error, words",
    [
        (("mlp", PAIRS), {}, TypeError, "model must be a torch.nn.Module, got str"),
        ((small(), PAIRS[0]), {}, TypeError, r"labels, got Tensor; write \(images, labels\)"),
        ((small(), PAIRS[0].numpy()), {}, TypeError, r"got ndarray; write \(images, labels\)"),
        (
            (small(), (PAIRS[0].numpy(), PAIRS[1].tolist())),
            {},
            TypeError,
            r"must be a tensor, got ndarray; write \(torch.as_tensor\(images\), ",
        ),
        ((small(), "digits"), {}, TypeError, "data.load"),
        ((small(), PAIRS), dict(optimizer="adam"), TypeError, "torch.optim.Adam"),
        ((small(), PAIRS), dict(device="gpu"), ValueError, "'cpu', 'cuda' or 'cuda:1', got 'gpu'"),
    ],
)
def test_what_nothing_is_trained_with(given, named, error, words):
    with pytest.raises(error, match=words):
        rs.train.fit(*given, rs.train.Standard(), epochs=1, progress=False, **named)
