"Rounded Gaussian noise: the law, what the classifier sees, and certificates on a classifier whose truth is known."
import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm

import robust_smooth as rs
from robust_smooth import Record, RoundedGaussian, Smoothed
from robust_smooth.methods import sequential
from robust_smooth.core.registry import find_methods, noise_from_spec, noise_spec
from robust_smooth.core.values import ABSTAIN
from robust_smooth.noise.additive import Noise, Stream
from robust_smooth.noise.rounded import LAW_BITS, alias_table, rounded_law
from robust_smooth.smoothed import check
from robust_smooth.voting.votes import count_votes


@pytest.mark.parametrize("sigma, q", [(0.003, 3), (0.12, 255), (0.5, 16), (1.0, 255), (2.0, 1000)])
def test_the_alias_table_holds_the_law(sigma, q):
    weights = rounded_law(sigma, q)
    own, other = alias_table(weights)
    capacity, held = 2**LAW_BITS // len(own), list(own)
    for cell, alias in enumerate(other): held[alias] += capacity - own[cell]
    assert (
        held[: len(weights)] == weights
        and not any(held[len(weights) :])
        and all(0 <= share <= capacity for share in own)
    )
    steps = np.arange(len(weights)) - len(weights) // 2
    truth = norm.sf((np.abs(steps) - 0.5) / (q * sigma)) - norm.sf((np.abs(steps) + 0.5) / (q * sigma))
    got = np.array([weight / 2**LAW_BITS for weight in weights])
    np.testing.assert_allclose(got, truth, rtol=1e-9, atol=1e-27)
    assert sum(weights) == 2**LAW_BITS and weights == weights[::-1]


def test_alias_table_of_small_laws():
    for weights in ([2**10], [0, 2**10], [1, 2, 5, 2**10 - 8], [2**9, 2**9], [3, 1021, 0]):
        own, other = alias_table(weights)
        held, capacity = list(own), 2**10 // len(own)
        for cell, alias in enumerate(other): held[alias] += capacity - own[cell]
        assert held[:len(weights)] == weights and not any(held[len(weights):])


def test_draws_follow_the_law_and_are_independent():
    noise, image = RoundedGaussian(sigma=0.02, q=255), torch.full((40,), 128 / 255)
    views = noise.perturb(image, torch.Generator().manual_seed(5), torch.empty(20_000, 40))
    steps = (views.double() * 255).round().long() - 128
    weights = rounded_law(0.02, 255)
    middle, seen = len(weights) // 2, np.bincount(steps.flatten().clamp(-15, 15).numpy() + 15, minlength=31)
    wanted = np.array([w / 2**LAW_BITS for w in weights])
    wanted = np.concatenate(
        [[wanted[: middle - 14].sum()], wanted[middle - 14 : middle + 15], [wanted[middle + 15 :].sum()]]
    )
    assert chisquare(seen, seen.sum() * wanted).pvalue > 0.001
    between = np.corrcoef(steps.double().numpy().T) - np.eye(40)
    assert np.abs(between).max() < 5 / np.sqrt(20_000)


def test_the_classifier_sees_a_function_of_the_noisy_level_alone():
    "Whatever the image: equal noisy levels are equal bits, so no classifier can tell from which image they came."
    noise, seen = RoundedGaussian(sigma=0.3, q=255), {}
    for seed in range(3):
        levels = torch.randint(256, (500,), generator=torch.Generator().manual_seed(seed))
        views = noise.perturb(
            (levels / 255).float(), torch.Generator().manual_seed(100 + seed), torch.empty(50, 500)
        ).flatten()
        for level, bits in zip((views.double() * 255).round().long().tolist(), views.view(torch.int32).tolist()):
            assert seen.setdefault(level, bits) == bits
    assert len(seen) > 600


def test_certificates_of_a_half_space_and_batches():
    "Class 1 from level 100 on; the rounded classifier's boundary is half a step below."
    model = lambda x: torch.stack([99.5 / 255 - x[:, 0], x[:, 0] - 99.5 / 255], 1)
    noise, images = RoundedGaussian(sigma=0.1), torch.full((30, 2, 2), 0.0)
    images[:, 0, 0] = torch.linspace(80, 120, 30).round() / 255
    flat = lambda x: model(x.flatten(1))
    records = [
        Smoothed(flat, noise).vote(images, n=20_000, n0=100, seed=1, batch_size=size, progress=False)
        for size in (250, 999)
    ]
    assert np.array_equal(records[0].counts, records[1].counts)
    truth, method_names = (
        np.abs(images[:, 0, 0].double().numpy() * 255 - 99.5) / 255,
        [m.name for m in find_methods("RoundedGaussian", "l2")],
    )
    assert set(method_names) == {"exact", "gaussian", "tcertify", "sequential"}
    for name in method_names:
        table = records[0].certify("l2", method=name)
        kept = table.label != ABSTAIN
        assert kept.sum() > 15 and (table.radius[kept] <= truth[kept]).all() and check(table).all()
        assert ((images[:, 0, 0].numpy() * 255 > 99.5)[kept] == table.label[kept]).all()
    stop = sequential.plan([0.0, 0.02, 0.05], 0.1, 0.001, n_max=20_000)
    early = Smoothed(flat, noise).vote(images, stop=stop, seed=1, progress=False).certify("l2")
    assert early.method == "sequential" and (early.radius <= truth).all() and (early.radius > 0).sum() > 15


def test_spec_and_refusals(tmp_path):
    noise, images = RoundedGaussian(sigma=0.25, q=16), torch.zeros(2, 3)
    assert noise_from_spec(noise_spec(noise)) == noise
    record = Smoothed(lambda x: x[:, :2], noise).vote(
        images, n=100, n0=10, save=tmp_path / "rounded.votes", progress=False
    )
    assert Record.load(tmp_path / "rounded.votes").noise == noise and record.n[0] == 100
    with pytest.raises(ValueError, match="grid"):
        count_votes(lambda x: x[:, :2], images + 0.01, noise, 10, num_classes=2, seed=0, progress=False)
    with pytest.raises(ValueError, match="moments"):
        Smoothed(lambda x: x[:, :2], noise).vote(images, n=100, moments=True, progress=False)
    for settings, match in (
        (dict(sigma=0.0), "sigma"),
        (dict(sigma=1.0, q=0), "q must"),
        (dict(sigma=1.0, q=5000), "coarser"),
    ):
        with pytest.raises(ValueError, match=match): RoundedGaussian(**settings)


@pytest.mark.parametrize(
    "noise",
    [
        rs.Gaussian(sigma=0.3),
        rs.Uniform(lam=0.4),
        rs.RoundedGaussian(sigma=0.5),
        rs.RoundedUniform(lam=0.4, q=16),
        rs.RoundedGaussian(sigma=2**-9, q=256),
        rs.MixedNormGaussian(sigma=0.3, k=1.5),
        rs.LinfGaussian(sigma=0.2, k=1),
    ],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(3,), (1, 3, 3), (2, 5)])
def test_many_chunks_of_a_tiny_image_are_what_one_by_one_are(noise, shape):
    "Bit for bit, with one generator that begins anew for every chunk, as the engine's does."
    levels = torch.arange(math.prod(shape)).reshape(1, *shape)
    x, rows, stream = noise.prepare(levels / getattr(noise, "q", 16))[0], 50, Stream(torch.device("cpu"))
    for chunks in (1, 2, 7):
        out = torch.full((chunks * rows, *shape), math.nan)
        noise.around(noise.tile(x, rows), (stream.at(1, 2, "estimation", chunk) for chunk in range(chunks)), out)
        for chunk, part in enumerate(out.split(rows)):
            assert torch.equal(part, noise.perturb(x, stream.at(1, 2, "estimation", chunk), torch.empty(rows, *shape)))


def test_a_noise_of_ones_own_need_not_know_tiny_images():
    class Coin(Noise):
        def perturb(self, x, generator, out):
            return out.copy_(x).add_(torch.randint(2, out.shape, generator=generator))
    x, stream = torch.rand(2), Stream(torch.device("cpu"))
    out = Coin().around(Coin().tile(x, 10), (stream.at(0, 0, "trial", chunk) for chunk in range(3)), torch.empty(30, 2))
    for chunk, part in enumerate(out.split(10)):
        assert torch.equal(part, Coin().perturb(x, stream.at(0, 0, "trial", chunk), torch.empty(10, 2)))
