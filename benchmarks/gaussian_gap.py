"""Why do our Gaussian networks on CIFAR-10 certify a little less than the printed ones? More epochs and more width, each from the same start:
OMP_NUM_THREADS=1 ROBUST_SMOOTH_DATA=FOLDER python benchmarks/gaussian_gap.py [--epochs 3] [--long 0] [--images 500] [--n 500] [--backend openvino]

The start is the zoo's ResNet-20 (20 epochs, sigma 0.5; print has ResNet-110 after 90). It is trained on as it is, and once more with every channel doubled,
which leaves its function as it was: each channel stands twice and counts half. Same epochs, rate, order and noise for both. With `--long 16` both also go on
for that many epochs from a rate that lets them leave their start, in bfloat16. Accuracy under noise is that of all test images, four draws each; certified
accuracy that of the experiment's images. Gains are paired, image by image. Training is kept in the home of the library and goes on where it was stopped.
Writes gaussian_gap.csv beside this file."""
from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

import robust_smooth as rs
from robust_smooth.core.places import home
from robust_smooth.lab.claims import outcomes, paired
from robust_smooth.training import models, zoo
from robust_smooth.training.networks import ResidualBlock

SIGMA, RATE, LONG_RATE, DRAWS = 0.5, 0.05, 0.1, 4
RADII = (0, 0.25, 0.5, 0.75, 1)

def doubled(weight: torch.Tensor, inputs: bool) -> torch.Tensor:
    "Each output twice, one beside the other; each input twice, with half its weight."
    weight = weight.repeat_interleave(2, 0)
    return weight.repeat_interleave(2, 1) / 2 if inputs else weight

def wide(net: models.ResNet, seed: int = 0) -> models.ResNet:
    "The same function with twice the channels; a little noise on the weights lets the twins part in training."
    twin = models.seeded(lambda: models.resnet20(net.num_classes))
    twin.load_state_dict(net.state_dict())
    generator = torch.Generator().manual_seed(seed)
    for name, layer in [*twin.named_modules()]:
        parent = twin.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, nn.BatchNorm2d):
            new: nn.Module = nn.BatchNorm2d(2 * layer.num_features)
            kept = layer.state_dict().items()
            new.load_state_dict({key: value.repeat_interleave(2, 0) if value.dim() else value for key, value in kept})
        elif isinstance(layer, nn.Conv2d):
            first = layer.in_channels == 3
            inputs = layer.in_channels * (1 if first else 2)
            new = nn.Conv2d(inputs, 2 * layer.out_channels, 3, layer.stride, 1, bias=False)
            weight = doubled(layer.weight.detach(), not first)
            new.weight.data = weight + 0.05 * weight.std() * torch.randn(weight.shape, generator=generator)
        elif isinstance(layer, nn.Linear):
            new = nn.Linear(2 * layer.in_features, layer.out_features)
            new.weight.data, new.bias.data = layer.weight.detach().repeat_interleave(2, 1) / 2, layer.bias.detach()
        else:
            if isinstance(layer, ResidualBlock):
                layer.extra *= 2
            continue
        setattr(parent, name.rpartition(".")[2], new)
    return twin.eval()

def trained_on(name: str, net: nn.Module, epochs: int, rate: float = RATE, amp: bool = False) -> nn.Module:
    "The network after some more epochs, kept under its name."
    net = net.to(memory_format=torch.channels_last)
    start = time.process_time()
    told = rs.train.fit(
        net,
        rs.data.load("cifar10", "train"),
        rs.train.NoiseAugmentation(rs.Gaussian(sigma=SIGMA)),
        epochs,
        augment="crop_flip",
        optimizer=lambda weights: torch.optim.SGD(weights, lr=rate, momentum=0.9, weight_decay=1e-4, nesterov=True),
        amp=amp,
        compile=True,
        checkpoint=home() / "gaussian_gap" / f"{name.replace(' ', '-')}.checkpoint",
        progress=False,
    )
    print(f"{name}: {(time.process_time() - start) / 60:.1f} minutes of this process, {told.rows[-1]}", flush=True)
    return net.eval()

def under_noise(model: nn.Module, test: rs.data.ImageSet) -> np.ndarray: # [B]
    "The share of draws that are classified correctly, of each image."
    generator, hits = torch.Generator().manual_seed(0), []
    with torch.inference_mode():
        for x, y in zip(test.images.split(64), test.labels.split(64)):
            draws = [model(x + SIGMA * torch.randn(x.shape, generator=generator)).argmax(1) == y for _ in range(DRAWS)]
            hits.append(torch.stack(draws).double().mean(0))
    return torch.cat(hits).numpy()

def row(name: str, net: nn.Module, options: argparse.Namespace) -> tuple[dict, np.ndarray, np.ndarray]:
    "What a network does, its certified images at each radius, and its share of correct draws, image by image."
    test = rs.data.load("cifar10", "test", subset=options.images)
    model = models.optimise(rs.wrap(net), test.images[:16], backend=options.backend)
    record = rs.Smoothed(model, rs.Gaussian(sigma=SIGMA)).vote(
        test, n=options.n, n0=64, batch_size=64, progress=False,
        save=home() / "gaussian_gap" / f"{name.replace(' ', '-')}-{options.images}-{options.n}-{options.backend}.votes",
    )
    certified = outcomes(record.certify("l2", method="gaussian"), test.labels.numpy(), RADII)
    hits = under_noise(model, rs.data.load("cifar10", "test"))
    shares = {f"radius {radius:g}": round(float(share), 3) for radius, share in zip(RADII, certified.mean(1))}
    weights = sum(weight.numel() for weight in net.parameters())
    return dict(network=name, weights=weights, under_noise=round(float(hits.mean()), 4), **shares), certified, hits

def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--epochs", type=int, default=3, help="that both are trained on for")
    made.add_argument("--images", type=int, default=500)
    made.add_argument("--n", type=int, default=500, help="draws of each image")
    made.add_argument("--backend", default="torch", help="that votes: torch or openvino")
    made.add_argument("--long", type=int, default=0, help="epochs from a larger rate, after the others; 0: none")
    options = made.parse_args()
    torch.set_num_threads(1)
    start = zoo.pretrained(f"cifar10-resnet20-gaussian-{SIGMA:.2f}")
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        moved, size = (wide(start)(x) - start(x)).abs().max(), start(x).abs().max()
        print(f"widening moves the logits by {moved:.3f} of {size:.3f}")
    more, name = options.epochs, f"ResNet-20, {options.epochs} epochs more"
    ways = {
        "ResNet-20 of the zoo": lambda: start,
        name: lambda: trained_on(name, zoo.pretrained(f"cifar10-resnet20-gaussian-{SIGMA:.2f}"), more),
        f"{name}, doubled": lambda: trained_on(f"{name}, doubled", wide(start), more),
    }
    if options.long:
        far = f"ResNet-20, {options.long} epochs more from {LONG_RATE}"
        again = zoo.pretrained(f"cifar10-resnet20-gaussian-{SIGMA:.2f}")
        ways[far] = lambda: trained_on(far, again, options.long, LONG_RATE, amp=True)
        ways[f"{far}, doubled"] = lambda: trained_on(f"{far}, doubled", wide(start), options.long, LONG_RATE, amp=True)
    rows, first = [], None
    for way, make in ways.items():
        found, certified, hits = row(way, make(), options)
        first = (certified, hits) if first is None else first
        noisy, at_0 = paired(hits, first[1]), paired(certified[0], first[0][0])
        rows.append(
            found
            | dict(gain=round(noisy.difference, 4), gain_error=round(noisy.error, 4))
            | dict(certified_gain=round(at_0.difference, 3), certified_error=round(at_0.error, 3))
            | dict(images=options.images, n=options.n, sigma=SIGMA)
        )
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(Path(__file__).with_suffix(".csv"), index=False)

if __name__ == "__main__":
    main()
