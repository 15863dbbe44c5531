"""Base classifiers: wrapping other people's networks, own networks, optimise, fingerprints, the zoo."""
import copy
import importlib
import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import robust_smooth as rs
from robust_smooth.training import models
from robust_smooth.training.identity import fingerprint, identity
from robust_smooth.training.weights import load_into, read_weights
from robust_smooth.training.models import Centre, Normalize, seeded, wrap
from robust_smooth.training.speed import optimise
from robust_smooth.noise.additive import Gaussian
from robust_smooth.training.vision import torchvision
from robust_smooth.voting.votes import count_votes


def small(channels=3, classes=5):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes),
    )


def shaken(net):
    """Batch normalisation with statistics that matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                (
                    module.running_mean.normal_(0, 0.3, generator=generator),
                    module.running_var.uniform_(0.5, 2, generator=generator),
                )
                module.weight.uniform_(0.5, 1.5, generator=generator), module.bias.normal_(0, 0.3, generator=generator)
    return net.eval()


@pytest.fixture(scope="module")
def resnet18():
    return seeded(lambda: torchvision().models.resnet18(weights=None))


def test_torchvision_resnet18_at_224(resnet18):
    weights = torchvision().models.ResNet18_Weights.IMAGENET1K_V1
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    want_mean, want_std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        want = resnet18.eval()((x - want_mean[:, None, None]) / want_std[:, None, None])
        for how in (
            dict(preprocessing=weights),
            dict(preprocessing=weights.transforms()),
            dict(mean=want_mean, std=want_std),
            dict(mean=weights.transforms()),
        ):
            model = wrap(copy.deepcopy(resnet18).train(), **how)
            assert not any(m.training for m in model.modules()) and model.num_classes == 1000
            torch.testing.assert_close(model(x), want, atol=1e-4, rtol=1e-4)
        assert "threat model" in repr(model) and "0.485" in repr(model)


@pytest.mark.parametrize("place", ["pretrained_cfg", "default_cfg"])
@pytest.mark.parametrize("form", [dict, SimpleNamespace])
def test_timm_style(place, form):
    net = small()
    setattr(net, place, form(mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2), input_size=(3, 64, 64), num_classes=5))
    model, x = wrap(net), torch.rand(2, 3, 64, 64)
    assert model.num_classes == 5 and model.normalize.std.tolist() == pytest.approx([0.5, 0.25, 0.2])
    torch.testing.assert_close(
        model(x), net((x - model.normalize.mean[:, None, None]) / model.normalize.std[:, None, None])
    )


def test_lists_of_transforms_are_read():
    tf, v2 = torchvision().transforms, importlib.import_module("torchvision.transforms.v2")
    for pipeline in (tf.Compose([tf.Resize(8), tf.ToTensor(), tf.Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])]),
                     tf.Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]),
                     v2.Compose([v2.ToImage(), v2.Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])])):
        assert wrap(small(), preprocessing=pipeline).normalize.mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="preprocessing"):
        wrap(small(), preprocessing=tf.Compose([tf.ToTensor()]))


@pytest.mark.parametrize(
    "settings, match",
    [
        (dict(mean=0.5), "go together"),
        (dict(std=0.5), "go together"),
        (dict(mean=0, std=1, num_classes=6), "num_classes must be 5"),
        (dict(mean=[0.5] * 3, std=[0.5, 0, 0.5]), "std"),
        (dict(mean=[0.1, 0.2], std=[0.1, 0.2, 0.3]), "length"),
        (dict(mean=[123.7] * 3, std=[58.4] * 3), "by 255"),
        (dict(mean=float("nan"), std=1), "finite"),
        (dict(mean=0.5, std=0.5, preprocessing=dict(mean=0.5, std=0.5)), "not both"),
        (dict(preprocessing=dict(size=3)), "preprocessing"),
    ],
)
def test_wrap_refuses(settings, match):
    with pytest.raises(ValueError, match=match):
        wrap(small(), **settings)


def test_library_networks_without_metadata_are_refused_own_ones_warned_about(resnet18):
    for net in (resnet18, nn.Sequential(resnet18)):
        with pytest.raises(ValueError, match="cannot know the normalisation"):
            wrap(net)
    with pytest.warns(UserWarning, match="taken to read"):
        model = wrap(small())
    assert model.normalize is None and "taken to read" in repr(model)


def test_wrap_refuses_other_objects_and_second_normalisations():
    with pytest.raises(TypeError, match="Module"):
        wrap(lambda x: x)
    for net in (models.small_convnet(3), models.resnet20(), nn.Sequential(Normalize(0.5, 0.5), small())):
        assert wrap(net).normalize is None
        with pytest.raises(ValueError, match="already normalises"):
            wrap(net, mean=0.5, std=0.5)
    assert wrap(small(), mean=0, std=1).normalize is None
    with pytest.raises(ValueError, match="logits"):
        wrap(nn.Conv2d(3, 4, 3), mean=0, std=1)


def test_wrap_without_a_possible_trial():
    class Odd(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :4]

    with pytest.raises(ValueError, match="num_classes"):
        wrap(Odd(), mean=0, std=1)
    model = wrap(Odd(), mean=0, std=1, num_classes=3)
    with pytest.raises(ValueError, match=r"logits \[1, 3\]"):
        model(torch.rand(1, 3, 2, 2))


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: models.mlp(64, 10), (1, 8, 8)),
        (models.small_convnet, (1, 8, 8)),
        (models.lenet, (1, 28, 28)),
        (models.resnet20, (3, 32, 32)),
        (lambda: models.resnet20(7, 1), (1, 16, 16)),
        (lambda: models.resnet110(100), (3, 32, 32)),
    ],
)
def test_own_networks(make, shape):
    net, x = seeded(make).eval(), torch.rand(2, *shape)
    with torch.no_grad():
        logits = net(x)
        torch.testing.assert_close(logits[:1], net(x[:1]), atol=1e-4, rtol=1e-4)
    assert logits.shape == (2, net.num_classes) and torch.isfinite(logits).all()
    assert fingerprint(net) == fingerprint(seeded(make)) != fingerprint(seeded(make, 1))
    assert wrap(net).num_classes == net.num_classes


def test_resnet_option_a_by_hand():
    """With convolutions at zero a block passes its shortcut: every second pixel, zero channels on both sides."""
    block = models.ResidualBlock(4, 8, 2).eval()
    with torch.no_grad():
        block.conv2.weight.zero_()
    x = torch.rand(1, 4, 6, 6)
    want = torch.zeros(1, 8, 3, 3)
    want[:, 2:6] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), want)
    assert [n for n, _ in models.resnet20().named_children()] == [
        "normalize", "conv1", "bn1", "layer1", "layer2", "layer3", "linear",
    ]


def test_resnet50_is_torchvisions():
    net = models.resnet50(num_classes=10)
    assert net.num_classes == 10 and net.normalize.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    "call",
    [
        lambda: models.mlp(0, 10),
        lambda: models.mlp(4, 1),
        lambda: models.mlp(4, 10, (0,)),
        lambda: models.small_convnet(size=6),
        lambda: models.ResNet(18),
        lambda: models.resnet20(1),
    ],
)
def test_networks_refuse(call):
    with pytest.raises(ValueError, match="must be"):
        call()


@pytest.mark.parametrize(
    "make, shape",
    [
        (models.small_convnet, (1, 8, 8)),
        (lambda: models.ResNet(8, 10, 3), (3, 16, 16)),
        (lambda: models.mlp(12, 4), (3, 2, 2)),
        (lambda: wrap(small(), 0.4, 0.3), (3, 16, 16)),
        (
            lambda: wrap(
                nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)), 0, 1
            ),
            (3, 2, 2),
        ),
    ],
)
def test_optimise_keeps_the_function(make, shape):
    model, x = shaken(seeded(make)), torch.rand(64, *shape, generator=torch.Generator().manual_seed(0))
    last = "torch channels-last" if x.ndim == 4 else "torch folded"
    plain, half = optimise(model, x[:2], backend=last), optimise(model, x[:2], "bfloat16", last)
    with torch.inference_mode():
        want, folded, rounded = model(x), plain(x), half(x)
    torch.testing.assert_close(folded, want, atol=1e-4, rtol=1e-4)
    assert rounded.dtype == torch.float32 and (rounded - want).abs().max() < 0.1 * (1 + want.abs().max())
    assert not any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in plain.modules())
    assert (
        (plain.precision, half.precision) == ("float32", "bfloat16")
        and "folded" in half.optimised
        and half.num_classes == model.num_classes
    )
    assert half.memory_format == torch.channels_last and not half.training
    assert len({fingerprint(m) for m in (model, plain, half)}) == 3 and fingerprint(half) == fingerprint(
        optimise(model, x[:2], **half.setting)
    )
    torch.testing.assert_close(model(x), want)  # the original is untouched


@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_keeps_the_function():
    import torch._inductor.config as inductor
    with inductor.patch(compile_threads=1): # else a pool of processes starts, and each imports torch
        check_a_compiled_network()


def check_a_compiled_network():
    model, x = (
        shaken(seeded(lambda: models.ResNet(8))),
        torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    )
    fast, plain = (
        optimise(model, x, "bfloat16", "torch compiled"),
        optimise(model, x, "bfloat16", "torch channels-last"),
    )
    with torch.inference_mode(): want, got = plain(x), fast(x)
    assert got.dtype == torch.float32 and (got - want).abs().max() < 0.1 * (1 + want.abs().max())
    assert "compiled" in fast.optimised and len({fingerprint(m) for m in (model, plain, fast)}) == 3
    assert count_votes(
        fast, x[:2], Gaussian(sigma=0.1), 40, num_classes=10, seed=0, batch_size=16, progress=False
    ).counts.sum(1).tolist() == [40, 40]


def test_optimise_torchvision(resnet18):
    model, x = shaken(wrap(copy.deepcopy(resnet18), 0.5, 0.25)), torch.rand(2, 3, 64, 64)
    fast = optimise(model, x, backend="torch folded")
    assert "20 batch normalisations folded" in fast.optimised
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), model(x), atol=1e-3, rtol=1e-3)


def test_optimise_without_tracing_and_refusals(branching):
    model, x = branching, torch.rand(3, 4)
    fast = optimise(model, x, backend="torch folded")
    assert "not traceable" in fast.optimised
    torch.testing.assert_close(fast(x), model(x))
    for settings, match in (
        (dict(precision="int8"), "calibration"),
        (dict(precision="float16"), "precision"),
        (dict(backend="torch channels-last"), "channels-last needs"),
        (dict(backend="jax"), "backend"),
    ):
        with pytest.raises(ValueError, match=match):
            optimise(model, x, **settings)
    with pytest.raises(ValueError, match="eval"):
        optimise(branching.train(), x)


def test_shared_batch_normalisation_is_not_folded():
    class Twice(nn.Module):
        num_classes = 3

        def __init__(self):
            super().__init__()
            self.a, self.b, self.bn, self.out = (
                nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3),
                nn.Linear(3, 3),
            )

        def forward(self, x):
            y = self.a(x)
            return self.out((self.bn(self.b(torch.relu(self.bn(y)))) + y).mean((2, 3)))

    model, x = shaken(Twice()), torch.rand(4, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(optimise(model, x, backend="torch folded")(x), model(x), atol=1e-5, rtol=1e-5)


def test_fingerprint_sees_every_weight_setting_and_type():
    net = seeded(models.small_convnet).eval()
    base, seen = fingerprint(net), set()
    for name, value in net.state_dict().items():
        other = copy.deepcopy(net)
        state = other.state_dict()
        state[name].view(-1)[0] += 1
        seen.add(fingerprint(other))
    assert base not in seen and len(seen) == len(net.state_dict())
    assert fingerprint(copy.deepcopy(net)) == base and fingerprint(net.train()) == base
    assert len({fingerprint(nn.Sequential(nn.Conv2d(1, 1, 1), nn.LeakyReLU(slope))) for slope in (0.1, 0.2)}) == 2
    assert (
        len(
            {
                fingerprint(m)
                for m in (
                    nn.Sequential(nn.Flatten(), nn.ReLU()),
                    nn.Sequential(nn.Flatten(), nn.Tanh()),
                    nn.Sequential(Normalize(0.5), nn.ReLU()),
                    nn.Sequential(Centre(0.4), nn.ReLU()),
                )
            }
        )
        == 4
    )


def test_zoo(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_SMOOTH_ZOO", str(tmp_path))
    net = seeded(lambda: models.resnet20(10, 1)).eval()
    models.save_pretrained(
        net, "digits-resnet20", tmp_path, "resnet20", dict(num_classes=10, in_channels=1), data="digits train"
    )
    assert models.zoo()["digits-resnet20"]["data"] == "digits train"
    again = models.pretrained("digits-resnet20")
    assert fingerprint(again) == fingerprint(net) and not again.training and again.card["architecture"] == "resnet20"
    with pytest.raises(ValueError, match="digits-resnet20"):
        models.pretrained("resnet20")
    card = json.loads((tmp_path / "digits-resnet20.json").read_text())
    (tmp_path / "digits-resnet20.json").write_text(json.dumps(card | dict(fingerprint="0" * 16)))
    with pytest.raises(ValueError, match="fingerprint"):
        models.pretrained("digits-resnet20")
    with pytest.raises(ValueError, match="architecture"):
        models.save_pretrained(net, "x", tmp_path, "os.system")


ZOO = Path(models.__file__).resolve().parents[2] / "data" / "zoo"


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in ZOO.glob("*.safetensors") if not path.stem.endswith("-int8"))
)  # twins: tests/lab/test_twins.py
def test_networks_of_the_zoo_are_those_of_their_cards(name, monkeypatch):
    monkeypatch.delenv("ROBUST_SMOOTH_ZOO", raising=False)
    net = models.pretrained(name) # compares the fingerprint
    card = net.card
    assert {"dataset", "data", "recipe", "epochs", "seed", "accuracy_without_noise", "provenance"} <= set(card)
    assert 1 / card["settings"]["num_classes"] < card["accuracy_without_noise"] <= 1
    if name.endswith("-clean"): # has seen no noise, and certifies nothing without a denoiser in front
        assert name == f"{card['dataset']}-{card['architecture']}-clean" and not {"noise", "certified"} & set(card)
        assert card["recipe"].startswith("Standard(") and card["accuracy_without_noise"] > 0.85
    else:
        assert (
            name
            == f"{card['dataset']}-{card['architecture']}-{card['noise']['name'].lower()}-{card['noise']['sigma']:.2f}"
        )
        shares = list(card["certified"]["accuracy"].values())
        assert shares == sorted(shares, reverse=True) and shares[0] > 0.2
    size = {"lenet": 28, "resnet20": 32}[card["architecture"]]
    with torch.inference_mode():
        assert models.wrap(net)(torch.rand(2, card["settings"]["in_channels"], size, size)).shape == (
            2,
            card["settings"]["num_classes"],
        )


def test_the_zoo_is_small(): assert sum(path.stat().st_size for path in ZOO.glob("*")) <= 40 * 2**20


def test_import_trouble_of_another_kind_is_passed_on(monkeypatch):
    from robust_smooth.training import vision

    def broken(name):
        raise RuntimeError("something else")

    monkeypatch.setattr(vision.importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="something else"):
        vision.torchvision.__wrapped__()


# -- networks as people have them ---------------------------------------------


class NormalizeLayer(nn.Module):
    "The layer that the published code of this field puts first."

    def __init__(self, means, sds):
        super().__init__()
        self.means, self.sds = torch.tensor(means), torch.tensor(sds)

    def forward(self, x):
        batch, _, height, width = x.shape
        means, sds = (v.repeat((batch, height, width, 1)).permute(0, 3, 1, 2) for v in (self.means, self.sds))
        return (x - means) / sds


class InputCenterLayer(nn.Module):
    "Its variant that centres only."

    def __init__(self, means):
        super().__init__()
        self.means = torch.tensor(means)

    def forward(self, x):
        return x - self.means[:, None, None]


class Normalises(nn.Module):
    "A network that normalises in its own forward, with numbers that it keeps."

    def __init__(self):
        super().__init__()
        self.net = small()
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]))
        self.register_buffer("std", torch.tensor([0.5, 0.4, 0.3]))

    def forward(self, x):
        return self.net((x - self.mean[:, None, None]) / self.std[:, None, None])


class LateLayer(nn.Module):
    "A network whose normalisation is not its first child."

    def __init__(self):
        super().__init__()
        self.net = small()
        self.normalise = NormalizeLayer(*models.STATISTICS["cifar10"])

    def forward(self, x):
        return self.net(self.normalise(x))


INSIDE = {
    "means and sds": lambda: nn.Sequential(NormalizeLayer(*models.STATISTICS["cifar10"]), small()),
    "means alone": lambda: nn.Sequential(InputCenterLayer([0.4, 0.5, 0.6]), small()),
    "in forward": Normalises,
    "not first": LateLayer,
    "torchvision's": lambda: nn.Sequential(torchvision().transforms.Normalize([0.5] * 3, [0.5] * 3), small()),
    "before a library's network": lambda: nn.Sequential(
        NormalizeLayer(*models.STATISTICS["imagenet"]), torchvision().models.squeezenet1_0(weights=None, num_classes=5)
    ),
}


@pytest.mark.parametrize("where", INSIDE)
def test_a_normalisation_inside_is_seen_whatever_its_name(where):
    with warnings.catch_warnings():
        warnings.simplefilter("error") # nothing to be warned about
        net = seeded(INSIDE[where]).eval()
        model = wrap(net)
        same = wrap(net, mean=0, std=1)
    x = torch.rand(3, 3, 64, 64)
    assert model.normalize is None and same.normalize is None and "inside" in repr(model)
    torch.testing.assert_close(model(x), net(x))
    with pytest.raises(ValueError, match="already normalises"):
        wrap(net, mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(ValueError, match="3 channels"): # arithmetic would copy the one channel into all three
        model(torch.rand(2, 1, 64, 64))


def test_an_identity_normalisation_is_allowed_for_every_network():
    for net in (models.small_convnet(3), models.resnet20(), nn.Sequential(Normalize(0.5, 0.5), small()), small()):
        assert wrap(net, mean=0, std=1).normalize is None
        assert wrap(net, mean=[0.0] * 3, std=[1.0] * 3).normalize is None


def test_grey_images_do_not_pass_as_colour_ones():
    with pytest.raises(ValueError, match="images must have 3 channels"):
        wrap(models.resnet20())(torch.rand(2, 1, 32, 32))
    with pytest.raises(ValueError, match="3 channels"):
        models.resnet20()(torch.rand(2, 1, 32, 32))
    with pytest.raises(ValueError, match="3 channels"):
        wrap(small(), 0.5, [0.5, 0.4, 0.3])(torch.rand(2, 1, 32, 32))
    assert wrap(models.resnet20(10, 1))(torch.rand(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("how", [dict(mean=models.STATISTICS["imagenet"][0], std=models.STATISTICS["imagenet"][1]), {},
                                 dict(preprocessing=dict(mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2]))])
def test_means_of_three_channels_before_a_grey_network_are_refused_at_wrap(how):
    grey = small(channels=1)
    grey.pretrained_cfg = dict(
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), input_size=(3, 64, 64), num_classes=5
    )  # as timm leaves it
    with pytest.raises(ValueError, match="reads 1 channels"):
        wrap(grey, **how)
    assert wrap(grey, mean=0.45, std=0.22)(torch.rand(2, 1, 64, 64)).shape == (2, 5)


def test_a_network_whose_first_convolution_does_not_read_the_image_is_not_refused():
    net = nn.Sequential(
        nn.PixelUnshuffle(4), nn.Conv2d(48, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    assert wrap(net, [0.5] * 3, [0.5] * 3, num_classes=4)(torch.rand(2, 3, 32, 32)).shape == (2, 4)


class Output(dict):
    "An output object as libraries return it: attributes and keys."
    __getattr__ = dict.__getitem__


class Library(nn.Module):
    "An image classifier that returns an output object."

    def __init__(self, kind):
        super().__init__()
        self.net, self.kind = small(), kind

    def forward(self, pixel_values):
        return self.kind(logits=self.net(pixel_values), loss=None)


@pytest.mark.parametrize("kind", [SimpleNamespace, dict, Output])
def test_logits_are_taken_out_of_an_output_object(kind):
    net = seeded(lambda: Library(kind)).eval()
    processor = SimpleNamespace(image_mean=[0.5, 0.4, 0.3], image_std=[0.5, 0.25, 0.2], do_normalize=True)
    model, x = wrap(net, preprocessing=processor), torch.rand(4, 3, 32, 32)
    assert model.num_classes == 5 and model.normalize.mean.tolist() == pytest.approx([0.5, 0.4, 0.3])
    want = net.net((x - model.normalize.mean[:, None, None]) / model.normalize.std[:, None, None])
    torch.testing.assert_close(model(x), want)
    torch.testing.assert_close(optimise(model, x, backend="torch folded")(x), want, atol=1e-4, rtol=1e-4)
    processor.do_normalize = False
    assert wrap(net, preprocessing=processor).normalize is None


def test_transformers_and_timm_if_they_are_here():
    torchvision() # mended where it must be, before other libraries import it
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.ResNetConfig(
        num_channels=3, embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=4
    )
    net = transformers.ResNetForImageClassification(config).eval()
    with pytest.raises(ValueError, match="cannot know the normalisation"):
        wrap(net)
    processor = transformers.ViTImageProcessor()
    model, x = wrap(net, preprocessing=processor), torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model(x), net((x - 0.5) / 0.5).logits)
    timm = pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(ValueError, match="reads 1 channels"):
        wrap(timm.create_model("resnet10t", pretrained=False, in_chans=1, num_classes=4))
    assert wrap(
        timm.create_model("resnet10t", pretrained=False, num_classes=4)
    ).normalize.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize("shape", ["column", "vector"])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_one_number_becomes_two_classes(shape, sigmoid):
    layers = [
        nn.Flatten(),
        nn.Linear(12, 1),
        *([nn.Flatten(0)] if shape == "vector" else []),
        *([nn.Sigmoid()] if sigmoid else []),
    ]
    net = seeded(lambda: nn.Sequential(*layers)).eval()
    with torch.no_grad():
        net[1].weight.mul_(30)
        net[1].bias.copy_(-net[1].weight.sum() / 2) # undecided at the grey image
    model, x = wrap(net, mean=0, std=1), torch.rand(200, 3, 2, 2)
    with torch.no_grad():
        positive = (x.flatten(1) @ net[1].weight[0] + net[1].bias > 0).long()
        assert model.num_classes == 2 and model(x).shape == (200, 2) and 20 < positive.sum() < 180
        assert torch.equal(model(x).argmax(1), positive)
        for count in (1, 2, 3):
            assert torch.equal(model(x[:count]).argmax(1), positive[:count])
        assert torch.equal(optimise(model, x[:4], backend="torch folded")(x).argmax(1), positive)
    with pytest.raises(ValueError, match="num_classes must be 2"):
        wrap(net, mean=0, std=1, num_classes=3)
    votes = count_votes(model, x[:2], Gaussian(sigma=0.1), 40, num_classes=2, seed=0, batch_size=16, progress=False)
    assert votes.counts.sum(1).tolist() == [40, 40]


def test_one_number_that_may_be_a_probability_is_warned_about():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 1)

        def forward(self, x):
            return torch.sigmoid(self.linear(x.flatten(1)))

    with pytest.warns(UserWarning, match="If it is a probability"):
        wrap(Functional(), mean=0, std=1)


def test_shells_are_taken_off_and_the_identity_stays():
    net = seeded(small).eval()
    plain = identity(wrap(net, 0.5, 0.5))
    for shell in (
        nn.DataParallel(net),
        torch.compile(net),
        nn.DataParallel(nn.DataParallel(net)),
        torch.compile(nn.DataParallel(net)),
    ):
        model = wrap(shell, 0.5, 0.5)
        assert model.net is net and identity(model) == plain and fingerprint(model) == fingerprint(wrap(net, 0.5, 0.5))
    wrapped = wrap(net, 0.5, 0.5)
    assert wrap(nn.DataParallel(wrapped)) is wrapped
    hooked = nn.DataParallel(net)
    hooked.register_forward_hook(lambda module, inputs, output: -output)
    assert wrap(hooked, 0.5, 0.5).net is hooked # it may change the result, so it stays


# -- honest about speed, robust about cards -----------------------------------


def test_a_parametrised_convolution_is_left_and_said():
    net = shaken(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
        )
    )
    torch.nn.utils.parametrizations.weight_norm(net[3])
    model, x = wrap(net, 0.5, 0.5), torch.rand(4, 3, 16, 16)
    fast = optimise(model, x, backend="torch folded")
    assert "1 batch normalisations folded, 1 kept (4: ParametrizedConv2d is parametrised)" in fast.optimised
    torch.testing.assert_close(fast(x), model(x), atol=1e-4, rtol=1e-4)


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "layer, norm, said",
    [
        (lambda: nn.Conv2d(3, 4, 3), lambda: nn.BatchNorm2d(4, track_running_stats=False), "no stored statistics"),
        (lambda: Doubled(3, 4, 3), lambda: nn.BatchNorm2d(4), "not directly behind a layer"),
        (lambda: nn.ConvTranspose2d(3, 4, 3), lambda: nn.BatchNorm2d(4), "behind a ConvTranspose2d"),
    ],
)
def test_what_is_not_plain_is_not_folded(layer, norm, said):
    net = nn.Sequential(layer(), norm(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    model, x = (
        wrap(shaken(net) if said != "no stored statistics" else net, 0.5, 0.5, num_classes=5),
        torch.rand(4, 3, 16, 16),
    )
    fast = optimise(model, x, backend="torch folded")
    assert "0 batch normalisations folded, 1 kept (1: " in fast.optimised and said in fast.optimised
    torch.testing.assert_close(fast(x), model(x), atol=1e-4, rtol=1e-4)


def test_a_broken_card_is_named_and_disables_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_SMOOTH_ZOO", str(tmp_path))
    net, broken = seeded(models.small_convnet), ("torn", "listed", "binary", "nested")
    for name in ("good", *broken):
        models.save_pretrained(net, name, tmp_path, "small_convnet")
    (tmp_path / "torn.json").write_text('{"architecture": "small')
    (tmp_path / "listed.json").write_text("[1, 2]")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "nested.json").write_text("[" * 100_000)
    with pytest.warns(UserWarning) as said:
        cards = models.zoo()
    texts = " ".join(str(each.message) for each in said)
    assert "good" in cards and not set(broken) & set(cards)
    assert all(str(tmp_path / f"{name}.json") in texts for name in broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error") # asked for one, the others are not spoken of
        assert fingerprint(models.pretrained("good")) == fingerprint(net)
    for name in broken:
        with pytest.raises(ValueError, match=f"{name}.json is not a card"):
            models.pretrained(name)


def test_a_denoiser_in_front_is_part_of_the_base_classifier():
    class Half(nn.Module):
        def __init__(self, share): super().__init__(); self.share = share
        def forward(self, x): return x * self.share
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x = torch.rand(4, 3, 2, 2)
    plain, behind = wrap(net, 0.5, 0.25), wrap(net, 0.5, 0.25, before=Half(0.5))
    torch.testing.assert_close(behind(x), plain(x * 0.5)) # the denoiser reads [0, 1], normalisation comes after it
    assert len({fingerprint(m) for m in (plain, behind, wrap(net, 0.5, 0.25, before=Half(0.25)))}) == 3
    assert identity(behind) == identity(wrap(net, 0.5, 0.25, before=nn.DataParallel(Half(0.5))))
    record = rs.Smoothed(behind, rs.Gaussian(sigma=0.5)).vote(x, n=100, n0=10, progress=False)
    assert "denoised by Half, then Normalize" in record.provenance[
        "preprocessing"
    ] == behind.preprocessing and "denoised by Half" in repr(behind)
    dropout = wrap(net, 0.5, 0.25, before=nn.Dropout(0.5).train())
    torch.testing.assert_close(dropout(x), plain(x)) # in eval mode
    class Random(nn.Module):
        def forward(self, x): return x + torch.randn_like(x)
    with pytest.raises(ValueError, match="deterministic"): wrap(net, 0.5, 0.25, before=Random())
    with pytest.raises(ValueError, match="shape that it was given"): wrap(net, 0.5, 0.25, before=nn.Linear(12, 6))
    with pytest.raises(TypeError, match="torch.nn.Module"): wrap(net, 0.5, 0.25, before=lambda x: x)
    with pytest.raises(ValueError, match="wrapped already"): wrap(plain, before=Half(0.5))
    with pytest.raises((ValueError, TypeError)): rs.lipschitz.lipschitz_bound(behind, "l2", (3, 2, 2))


@pytest.mark.parametrize("key", [None, "state_dict", "model", "net", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_checkpoints_as_people_have_them(key, prefix, tmp_path):
    net, path = small(), tmp_path / "a.pt"
    state = {prefix + name: value for name, value in net.state_dict().items()}
    torch.save(
        state
        if key is None
        else {key: state, "epoch": 3, "accuracy": np.float64(0.5), "best": np.float32(1), "names": ["a"]},
        path,
    )
    fresh = small()
    with torch.no_grad(): [value.zero_() for value in fresh.parameters()]
    assert identity(wrap(load_into(fresh, path), 0.5, 0.5)) == identity(wrap(net, 0.5, 0.5)) # so votes go on


def test_what_a_checkpoint_must_not_hold(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(small(), path)
    with pytest.raises(ValueError, match="without running what is in it.*network.state_dict"): read_weights(path)
    torch.save(dict(state_dict=small().state_dict(), args=__import__("argparse").Namespace(lr=1)), path)
    with pytest.raises(ValueError, match="weights alone"): read_weights(path)
    torch.save(dict(epoch=3), path)
    with pytest.raises(ValueError, match=r"under one of .*got \['epoch'\]"): read_weights(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="without running"): read_weights(path)
    other = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).state_dict(), path)
    with pytest.raises(ValueError, match="other classes"): load_into(other, path)
    with pytest.raises(ValueError, match="are missing"): load_into(small(), path)


class Returns(nn.Module):
    "A network of five classes whose last line is another."
    def __init__(self, last):
        super().__init__()
        self.net, self.last = seeded(lambda: nn.Linear(12, 5)), last

    def forward(self, x): return self.last(self.net(x.flatten(1)))


@pytest.mark.parametrize(
    "last, words",
    [
        (lambda y: y.argmax(1), "number of a class, not logits"),
        (lambda y: y.argmax(1, keepdim=True), "got int64"),
        (lambda y: y.argmax(1).float(), "number of a class, not logits"),
        (lambda y: y[:, 0] > 0, "got bool"),
        (lambda y: (y[:, 0] > 0).float(), "got 0, 1"),
        (lambda y: {"out": y}, r"net\(x\)\['out'\]"),
        (lambda y: (y, None), r"net\(x\)\[0\]"),
    ],
)
def test_what_are_no_logits_is_refused_with_the_line_to_write(last, words):
    with pytest.raises(ValueError, match=words): wrap(Returns(last), mean=0, std=1)
    if words == "got int64":
        with pytest.raises(ValueError, match=words):
            models.BaseClassifier(Returns(last), None, 2, "given")(torch.rand(3, 3, 2, 2))


@pytest.mark.parametrize(
    "last",
    [
        lambda y: y[:, 0],
        lambda y: y[:, 0].relu(),
        lambda y: y[:, 0].sign(),
        lambda y: torch.zeros_like(y[:, 0]),
        lambda y: y[:, 0] * 1e9,
        lambda y: (y[:, 0] * 300).bfloat16(),
        lambda y: y[:, :1].sigmoid(),
    ],
)
def test_an_honest_number_is_a_logit(last):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert wrap(Returns(last), mean=0, std=1).num_classes == 2


@pytest.mark.parametrize(
    "wrong, words",
    [
        ("net.pt", r"load_state_dict\(torch.load\('net.pt'\)\)"),
        (nn.Linear(4, 3).state_dict(), "weights without their network"),
        (nn.Linear, r"Linear\(\.\.\.\)"),
        (len, "into the forward"),
        (SimpleNamespace(predict=len), "returns its scores as a tensor"),
    ],
)
def test_what_is_no_network_is_refused_with_the_line_to_write(wrong, words):
    with pytest.raises(TypeError, match=words): wrap(wrong)


def test_a_lazy_layer_is_not_told_a_wrong_size():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"net\(images\[:2\]\)"): wrap(net, mean=0, std=1)
    net(torch.rand(2, 1, 8, 8))
    assert wrap(net, mean=0, std=1).num_classes == 3


def test_a_table_has_any_mean():
    net, table = seeded(lambda: nn.Linear(20, 3)), 5 + 10 * torch.randn(6, 20)
    with pytest.raises(ValueError, match="domain=None"): wrap(net, mean=5, std=10)
    with pytest.raises(ValueError, match=r"in \[-1, 1\] input units, got \[5.0\]$"):
        wrap(net, mean=5, std=10, domain=(-1, 1))
    with pytest.raises(ValueError, match="std above 0"): wrap(net, mean=5, std=0, domain=None)
    with pytest.raises(ValueError, match="domain must be"): wrap(net, mean=5, std=1, domain=(1, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error") # who names the domain has said how the network reads
        models_of = [wrap(net, 5, 10, domain=None), wrap(net, 5, 10, domain=(-50, 50)), wrap(net, domain=None)]
    for model, want in zip(models_of, (net((table - 5) / 10), net((table - 5) / 10), net(table))):
        torch.testing.assert_close(model(table), want)
    assert identity(models_of[0]) == identity(models_of[1])     # the domain is of the inputs, no part of the network
    assert identity(wrap(net, 0.5, 0.5)) == identity(wrap(net, 0.5, 0.5, domain=None)) and "resizing" not in repr(
        models_of[0]
    )
    assert "resizing and cropping" in repr(wrap(small(), 0.5, 0.5))
    record = rs.Smoothed(models_of[0], Gaussian(sigma=1.0), domain=None).vote(
        table, n=100, batch_size=50, progress=False
    )
    assert (record.counts.sum(1) == 100).all()


def test_files_that_hold_no_plain_weights_are_answered_with_a_line_that_works(tmp_path):
    import argparse
    import re
    net, path, new = models.mlp(4, 2), tmp_path / "a.pt", tmp_path / "b.pt"
    state = net.state_dict()
    for content in (
        dict(net=state, args=argparse.Namespace(lr=0.1)),
        dict(model={name: value.numpy() for name, value in state.items()}),
        {name: value.numpy() for name, value in state.items()},
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match="without running") as error: load_into(net, path)
        line = re.search(r"torch\.save\(\{.*?\}, NEW\)", str(error.value))[0]
        exec(line, dict(torch=torch, FILE=path, NEW=new)) # what it says can be followed
        assert all(
            torch.equal(value, state[name]) for name, value in load_into(models.mlp(4, 2), new).state_dict().items()
        )
    for junk in (b"nothing of the kind", b"", b"PK\x03\x04 cut", bytes(range(256)), b"\x80\x02}q\x00."):
        for name in ("a.pt", "a.safetensors"):
            (tmp_path / name).write_bytes(junk)
            with pytest.raises(ValueError, match=re.escape(name) + "|Safetensor|header"):
                load_into(net, tmp_path / name)
    (tmp_path / "a.csv").write_text("index,label\n0,4\n")
    with pytest.raises(ValueError, match=r"cannot be read as one: it begins with b'index,label"):
        load_into(net, tmp_path / "a.csv")


class _Own(nn.Module):
    "A normalisation with names of its own."

    def __init__(self, centre, scale):
        super().__init__()
        self.register_buffer(centre, torch.tensor([0.4, 0.4, 0.4]))
        self.register_buffer(scale, torch.tensor([0.2, 0.2, 0.2]))
        self.names = centre, scale

    def forward(self, x):
        centre, scale = (getattr(self, name).view(1, -1, 1, 1) for name in self.names)
        return (x - centre) / scale


@pytest.mark.parametrize(
    "centre, scale",
    [
        ("_mean", "_std"), ("new_mean", "new_std"), ("pixel_mean", "pixel_std"),
        ("mean_rgb", "std_rgb"), ("image_mean", "image_std"),
    ],
)
def test_a_normalisation_under_other_names_is_one(centre, scale):
    layers = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    with pytest.raises(ValueError, match="second normalisation"):
        models.wrap(nn.Sequential(_Own(centre, scale), *layers), mean=0.5, std=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert models.wrap(nn.Sequential(_Own(centre, scale), *layers)).normalize is None
        models.wrap(nn.Sequential(nn.BatchNorm2d(3), *layers), mean=0.5, std=0.5) # running statistics are no constants
