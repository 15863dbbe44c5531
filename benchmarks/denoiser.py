"""What does a denoiser in front buy a network that has never seen noise? CIFAR-10, ResNet-20, Gaussian noise, four ways beside each other:
OMP_NUM_THREADS=1 ROBUST_SMOOTH_DATA=FOLDER python benchmarks/denoiser.py [--images 200] [--n 500]

The clean network alone; behind a denoiser that learned squared error; behind the same after a second lesson through the frozen network; and the network of
the zoo that was trained with noise. Same images, noise and draws for all, method `gaussian`, alpha = 0.001. Writes denoiser.csv beside this file. Denoisers
and votes are kept in the home of the library, so that a run that was stopped goes on. All four vote in bfloat16."""
from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import torch

import robust_smooth as rs
from robust_smooth.core.places import home
from robust_smooth.lab.claims import outcomes, paired
from robust_smooth.training import denoisers, models, zoo

SIGMA, WIDTH, BLOCKS = 0.25, 64, 3
RADII = (0, 0.125, 0.25, 0.375, 0.5)
LESSONS = {"denoiser by squares": (4, 5e-3), "denoiser through the network": (2, 3e-4)} # epochs, learning rate
ALONE, NOISY = "clean network alone", "network trained with noise"

def taught(clean: torch.nn.Module, noise: rs.Gaussian) -> dict: # denoisers
    "A denoiser after each lesson; the second starts from the first."
    train, made = rs.data.load("cifar10", "train"), {}
    for number, (name, (epochs, rate)) in enumerate(LESSONS.items()):
        net = models.seeded(lambda: denoisers.residual_denoiser(3, WIDTH, BLOCKS)).to(memory_format=torch.channels_last)
        if made:
            net.load_state_dict(list(made.values())[-1].state_dict())
        start = time.process_time()
        told = denoisers.fit_denoiser(
            net, train, noise, epochs,
            classifier=clean if number else None,
            batch_size=64,
            augment="crop_flip",
            amp=True,
            optimizer=lambda weights: torch.optim.Adam(weights, lr=rate),
            schedule=rs.train.Cosine(warmup=0.1),
            checkpoint=home() / "denoiser" / f"{number}.checkpoint",
            progress=False,
        )
        made[name] = net
        print(f"{name}: {(time.process_time() - start) / 60:.1f} minutes of this process, {told.rows[-1]}", flush=True)
    return made

def row(name: str, model, test: rs.data.ImageSet, n: int, alone) -> tuple[dict, object]:
    "Accuracy with and without noise, certified accuracy, and the gain over the clean network alone, in pairs."
    kept = home() / "denoiser" / f"{name.replace(' ', '-')}-{len(test)}-{n}.votes"
    record = rs.Smoothed(model, rs.Gaussian(sigma=SIGMA)).vote(
        test, n=n, n0=100, batch_size=64, progress=False, save=kept
    )
    certified = outcomes(record.certify("l2", method="gaussian"), test.labels.numpy(), RADII) # [R, B]
    shares = {f"radius {radius:g}": round(float(share), 3) for radius, share in zip(RADII, certified.mean(1))}
    gain = paired(certified[0], certified[0] if alone is None else alone[0])
    with torch.inference_mode():
        right = float((model(test.images).argmax(1) == test.labels).float().mean())
    return dict(way=name, without_noise=round(right, 3), **shares, gain=round(gain.difference, 3),
                gain_error=round(gain.error, 3), images=len(test), n=n, sigma=SIGMA), certified

def left(net: torch.nn.Module, test: rs.data.ImageSet) -> float:
    "Root mean square of what a denoiser leaves of the noise, in units of [0, 1]."
    noisy = test.images + SIGMA * torch.randn(test.images.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return float((net(noisy) - test.images).square().mean().sqrt())

def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--images", type=int, default=200)
    made.add_argument("--n", type=int, default=500, help="draws of each image")
    options = made.parse_args()
    torch.set_num_threads(1)
    net = zoo.pretrained("cifar10-resnet20-clean")
    clean = rs.wrap(net)
    nets = taught(clean, rs.Gaussian(sigma=SIGMA))
    test = rs.data.load("cifar10", "test", subset=options.images)
    ways = {ALONE: clean} | {name: rs.wrap(net, before=before) for name, before in nets.items()}
    ways[NOISY] = rs.wrap(zoo.pretrained(f"cifar10-resnet20-gaussian-{SIGMA:.2f}"))
    rows, alone = [], None
    for name, model in ways.items():
        model = rs.models.optimise(model, test.images[:16], precision="bfloat16")
        found, certified = row(name, model, test, options.n, alone)
        alone = certified if alone is None else alone
        rows.append(found | dict(left=round(left(nets[name], test), 3) if name in nets else ""))
        print(found, flush=True)
    pd.DataFrame(rows).to_csv(Path(__file__).with_suffix(".csv"), index=False)

if __name__ == "__main__":
    main()
