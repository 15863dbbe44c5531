"""Denoisers: what the two lessons teach, checked against closed forms; a classifier in front of which one learns stays as it is."""
import pytest
import torch
from torch import nn

from robust_smooth.noise.additive import Gaussian
from robust_smooth.training import models, train
from robust_smooth.training.data import ImageSet
from robust_smooth.training.denoisers import (
    Denoising, fit_denoiser, Frozen, residual_denoiser, ResidualDenoiser,
)
from robust_smooth.training.identity import fingerprint
from robust_smooth.training.recipes import NoiseAugmentation
from robust_smooth.training.train import fit

QUIET = dict(progress=False, batch_size=50)


class Scale(nn.Module):
    "The smallest denoiser: a number times the image."
    def __init__(self, start=1.0): super().__init__(); self.factor = nn.Parameter(torch.tensor(start))
    def forward(self, x): return self.factor * x


def uniform_images(count=1000, classes=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, 4, 4, generator=generator)
    return ImageSet(
        images=images,
        labels=torch.randint(classes, (count,), generator=generator),
        index=torch.arange(count),
        name="uniform",
    )


def classifier():
    "With batch normalisation, whose statistics a careless training would move."
    net = models.seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
        )
    )
    net[1].running_mean.uniform_(-1, 1, generator=torch.Generator().manual_seed(3))
    return net.eval()


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_squares_find_the_best_factor(sigma):
    images = uniform_images()
    power = float(images.images.square().mean())
    best = power / (power + sigma**2)             # minimises E (a (x + noise) - x)^2
    net = Scale()
    told = fit_denoiser(
        net, images, Gaussian(sigma=sigma), 15, optimizer=lambda w: torch.optim.Adam(w, lr=0.05), **QUIET
    )
    assert abs(float(net.factor.detach()) - best) < 0.02
    assert abs(told.rows[-1]["left"] - (power * sigma**2 / (power + sigma**2)) ** 0.5) < 0.01
    assert "Denoising" in repr(told)


def test_what_a_denoiser_that_does_nothing_leaves():
    x, none = (
        torch.rand(200, 1, 16, 16, generator=torch.Generator().manual_seed(0)),
        torch.zeros(200, dtype=torch.int64),
    )
    for sigma in (0.1, 0.7):
        loss, told = Denoising(Gaussian(sigma=sigma)).loss(nn.Identity(), x, none, torch.Generator().manual_seed(1))
        assert abs(float(told["left"]) - sigma) < 0.02 * sigma and float(loss) == pytest.approx(
            float(told["left"]) ** 2, rel=1e-5
        )
    loss, _ = Denoising(Gaussian(sigma=3.0)).loss(
        Scale(0.0).requires_grad_(False), x, none, torch.Generator().manual_seed(1)
    )
    assert float(loss) == pytest.approx(float(x.square().mean()), rel=1e-6)


def test_no_label_is_looked_at_in_the_first_lesson():
    images, prints = uniform_images(200), []
    for classes in (2, 1000): # labels beyond anything that the output could be taken to count
        net = models.seeded(lambda: residual_denoiser(1, 4, 1))
        fit_denoiser(net, uniform_images(200, classes), Gaussian(sigma=0.5), 1, **QUIET)
        prints.append(fingerprint(net))
    untrained = models.seeded(lambda: residual_denoiser(1, 4, 1))
    assert prints[0] == prints[1] != fingerprint(untrained)
    fit_denoiser(untrained, images, Gaussian(sigma=0.5), 1, seed=1, **QUIET)
    assert fingerprint(untrained) != prints[0]


def test_the_second_lesson_is_the_classifiers_own_loss():
    "A step of plain gradient descent, against the derivative by finite differences in float64."
    images, noise, net, rate = uniform_images(50), Gaussian(sigma=0.3), classifier(), 1e-2
    before = Scale(0.8)
    fit_denoiser(
        before, images, noise, 1, classifier=net, schedule=None,
        optimizer=lambda w: torch.optim.SGD(w, lr=rate),
        **QUIET,
    )
    moved = (0.8 - float(before.factor.detach())) / rate

    class Watch:
        "The same step again, by a recipe that tells the loss near the start."
        def loss(self, model, x, y, generator):
            state, exact = generator.get_state(), classifier().double().requires_grad_(False)
            def at(factor):
                generator.set_state(state)
                return NoiseAugmentation(noise).loss(lambda noisy: exact(factor * noisy.double()), x, y, generator)[0]
            self.slope = float(at(0.8 + 1e-5) - at(0.8 - 1e-5)) / 2e-5
            return model(x).sum() * 0

    watch = Watch()
    fit(
        nn.Sequential(Scale(0.8), nn.Flatten()),
        images, watch, 1, schedule=None,
        optimizer=lambda w: torch.optim.SGD(w, lr=rate),
        **QUIET,
    )
    assert abs(watch.slope) > 1e-3 and moved == pytest.approx(watch.slope, rel=1e-2)


def test_the_classifier_stays_as_it_is():
    net, images = classifier(), uniform_images(200)
    net[0].weight.requires_grad_(False)           # as somebody left it
    marks, before = fingerprint(net), Scale(0.8)
    fit_denoiser(before, images, Gaussian(sigma=0.3), 2, classifier=net, **QUIET)
    assert fingerprint(net) == marks and float(before.factor.detach()) != pytest.approx(0.8) and not net.training
    assert [weight.requires_grad for weight in net.parameters()] == [False] + 5 * [True]
    assert all(weight.grad is None for weight in net.parameters())


def test_weights_take_gradients_again_after_an_error():
    net = classifier()
    with pytest.raises(ValueError, match="epochs"):
        fit_denoiser(Scale(), uniform_images(50), Gaussian(sigma=0.3), 0, classifier=net, **QUIET)
    assert all(weight.requires_grad for weight in net.parameters())


def test_frozen_stays_in_eval_mode():
    held = Frozen(classifier())
    outer = nn.Sequential(nn.Dropout(0.5), held).train()
    assert outer[0].training and not any(module.training for module in held.modules())
    assert Frozen(nn.Dropout(0.5)).train()(torch.ones(64)).eq(1).all()


@pytest.mark.parametrize("through", [False, True])
def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch, through):
    images, noise, written = uniform_images(200), Gaussian(sigma=0.5), []
    options = dict(QUIET, classifier=classifier() if through else None)
    whole, stopped, again = (Scale(0.8) for _ in range(3))
    fit_denoiser(whole, images, noise, 3, **options)
    write = train.write_checkpoint

    def once_too_often(*args):
        write(*args)
        written.append(args)
        if len(written) == 8: raise KeyboardInterrupt

    kept = dict(options, checkpoint=tmp_path / "run", save_every=0)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train, "write_checkpoint", once_too_often)
        fit_denoiser(stopped, images, noise, 3, **kept)
    told = fit_denoiser(again, images, noise, 3, **kept)
    assert told.resumed == 8 and torch.equal(again.factor, whole.factor)
    assert not torch.equal(stopped.factor, whole.factor)


def test_residual_denoiser():
    net, x = models.seeded(lambda: residual_denoiser(3, 8, 2)).double(), torch.rand(2, 3, 12, 10, dtype=torch.float64)
    assert isinstance(net, ResidualDenoiser) and net(x).shape == x.shape
    ends = [module for module in net.noise if isinstance(module, nn.Conv2d)]
    assert [(end.in_channels, end.out_channels) for end in ends] == [(12, 8), (8, 12)]
    with torch.no_grad():
        each = torch.cat([net(image[None]) for image in x]) # no image looks at another
        assert torch.allclose(each, net(x), atol=1e-12)
        ends[-1].weight.zero_(), ends[-1].bias.zero_()
        assert torch.equal(net(x), x)                       # nothing taken for noise: the image


def test_residual_denoiser_moves_with_the_image():
    net = models.seeded(lambda: residual_denoiser(1, 8, 1)).double()
    x = torch.rand(1, 1, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        moved, still = net(x.roll((2, 4), (2, 3))), net(x).roll((2, 4), (2, 3))
    inside = (..., slice(14, 26), slice(14, 26))            # four convolutions see eight pixels far
    assert torch.allclose(moved[inside], still[inside], atol=1e-12) and not torch.allclose(moved, still, atol=1e-6)


@pytest.mark.parametrize(
    "settings, words", [((0,), "in_channels"), ((3, 0), "width"), ((3, 8, 0), "blocks"), ((3, 8, 1.5), "blocks")]
)
def test_wrong_sizes(settings, words):
    with pytest.raises((ValueError, TypeError), match=words): residual_denoiser(*settings)


@pytest.mark.parametrize("shape", [(1, 1, 7, 8), (1, 1, 8, 7)])
def test_odd_sides(shape):
    with pytest.raises(ValueError, match="even height and width"): residual_denoiser(1, 4)(torch.zeros(shape))


def test_wrap_takes_it():
    net, images = classifier(), uniform_images(20).images
    before = models.seeded(lambda: residual_denoiser(1, 4, 1))
    pair = models.wrap(net, 0.0, 1.0, 2, before=before)
    with torch.no_grad(): assert torch.allclose(pair(images), net(before(images)), atol=1e-6)
    assert fingerprint(pair) != fingerprint(models.wrap(net, 0.0, 1.0, 2))


class Sees(nn.Module):
    "What a denoiser may do wrong."
    def __init__(self, act): super().__init__(); self.act = act
    def forward(self, x): return self.act(x)


class Told(nn.Module):
    def forward(self, x, sigma): return x


@pytest.mark.parametrize(
    "before, error, words",
    [
        (Sees(lambda x: x * torch.nan), ValueError, "finite numbers"),
        (Told(), TypeError, r"return denoiser\(x, sigma\)"),
        (residual_denoiser(3, 4, 1), ValueError, r"of shape \[2, 64\].*3 channels"),
        (Sees(lambda x: x + torch.rand_like(x)), ValueError, "deterministic"),
    ],
)
def test_a_denoiser_that_does_not_fit_is_refused_in_words(before, error, words):
    with pytest.raises(error, match=words): models.wrap(models.mlp(64, 10), 0.0, 1.0, before=before)


@pytest.mark.parametrize("channels, numbers", [(1, 64), (3, 48)])
def test_a_network_of_flat_vectors_behind_a_denoiser_of_pictures(channels, numbers):
    net, before = models.mlp(numbers, 10), models.seeded(lambda: residual_denoiser(channels, 4, 1))
    pair, images = (
        models.wrap(net, 0.0, 1.0, before=before),
        torch.rand(3, channels, *[int((numbers // channels) ** 0.5)] * 2),
    )
    with torch.no_grad(): assert torch.allclose(pair(images), net(before(images)), atol=1e-6)
    one = models.wrap(models.mlp(numbers, 2), 0.0, 1.0, before=before)
    with torch.no_grad(): assert one(images).shape == (3, 2)


class Bare(torch.utils.data.Dataset):
    def __init__(self, images): self.images = images
    def __len__(self): return len(self.images)
    def __getitem__(self, i): return self.images[i]


def test_pictures_come_in_whatever_holds_them():
    held, told = uniform_images(64), {}
    loader = torch.utils.data.DataLoader
    ways = dict(
        set=held,
        tensor=held.images,
        array=held.images.numpy(),
        pair=(held.images, held.labels),
        bare=loader(Bare(held.images), batch_size=16),
        labelled=loader(held, batch_size=16),
        numbered=loader(list(zip(held.images, range(64))), batch_size=16),
        data=Bare(held.images),
    )
    for name, images in ways.items():
        before = Scale(0.8)
        told[name] = (
            fit_denoiser(before, images, Gaussian(sigma=0.5), 2, **(QUIET | dict(seed=3))),
            float(before.factor.detach()),
        )
    assert len({told[name][1] for name in ("set", "tensor", "array", "pair")}) == 1
    assert told["bare"][1] == told["labelled"][1] == told["numbered"][1] != 0.8 != told["data"][1]
    with pytest.raises(TypeError, match=r"\(images, labels\)"):
        fit_denoiser(Scale(0.8), held.images, Gaussian(sigma=0.5), 1, classifier=classifier(), **QUIET)
