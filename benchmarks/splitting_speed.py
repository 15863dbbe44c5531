"""Speed of splitting noise: noise alone, a whole certification against the bare forward pass, DSSN against additive noise, the audit's fast path.

    OMP_NUM_THREADS=1 python benchmarks/splitting_speed.py [--quick]

Every ratio is a median over repetitions that alternate between the two sides, with the lowest and highest.
"""
import argparse
import time

import numpy as np
import torch

from robust_smooth.training import data, models
from robust_smooth.noise.additive import Uniform
from robust_smooth.noise.grid import Splitting
from robust_smooth.methods.splitting import audit, budget
from robust_smooth.voting.hardware import tune_batch_size
from robust_smooth.voting.votes import count_votes

SIGMAS = [0.15] + [0.25 * k for k in range(1, 15)]

def seconds(call) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start

def compare(first, second, repeats: int) -> tuple[float, float, float]:
    "Median, lowest and highest of time(second) / time(first), taken in turns."
    first(), second()
    ratios = [seconds(second) / seconds(first) for _ in range(repeats)]
    return float(np.median(ratios)), min(ratios), max(ratios)

def noise_alone(repeats: int) -> None:
    print("noise alone (million entries per second of CPU time)")
    for q, count, shape, rows in (
        (16, 193, (1, 8, 8), 193), (255, 132, (3, 32, 32), 132), (255, 441, (3, 32, 32), 441),
        (255, 3091, (3, 32, 32), 512),
    ):
        noise, image = Splitting(n_splits=count, q=q), torch.randint(q + 1, shape) / q
        out = torch.empty(rows, *shape)
        loops = max(1, int(2e7 // out.numel()))
        noise.visit(image, 0, out)
        speeds = [
            loops * out.numel() / seconds(lambda: [noise.visit(image, 0, out) for _ in range(loops)]) / 1e6
            for _ in range(repeats)
        ]
        print(
            f"  q = {q:3d}, N = {count:4d}, d = {image.numel():4d}: {np.median(speeds):6.0f}  ({min(speeds):.0f} to "
            f"{max(speeds):.0f})"
        )

def certification(repeats: int) -> None:
    test = data.load("digits", "test")
    model = models.wrap(models.seeded(models.small_convnet), num_classes=10)
    for sigma in (0.5, 1.0, 3.5):
        noise = Splitting.from_sigma(sigma, q=16)
        rows, batch = len(test) * noise.n_splits, tune_batch_size(model, (1, 8, 8))
        block = torch.rand(batch, 1, 8, 8)
        def bare():
            with torch.inference_mode():
                for _ in range(-(-rows // batch)): model(block)
        def certified():
            budget(
                count_votes(
                    model, test.images, noise, 1, num_classes=10, seed=0, batch_size=batch, progress=False
                ).counts
            )
        middle, low, high = compare(certified, bare, repeats)
        print(
            f"small conv net, {len(test)} digits, sigma = {sigma} (N = {noise.n_splits}), batch {batch}: "
            f"certified images/s over bare forward, {middle:.3f}  ({low:.3f} to {high:.3f})"
        )

def against_additive(repeats: int, draws: int) -> None:
    test = data.load("digits", "test", subset=200)
    model = models.wrap(models.seeded(models.small_convnet), num_classes=10)
    votes = lambda noise, n, images: count_votes(
        model, images, noise, n, num_classes=10, seed=0, batch_size=512, progress=False
    )
    sampled = [
        seconds(lambda: votes(Uniform.from_sigma(1.0), draws, test.images[:1])) * 100_000 / draws
        for _ in range(min(repeats, 3))
    ]
    print(
        f"additive noise, 100,000 samples: {np.median(sampled):.3f} s per image ({min(sampled):.3f} to "
        f"{max(sampled):.3f})"
        + ("" if draws == 100_000 else f", from {draws:,}")
    )
    for sigma in SIGMAS:
        noise, photographs = Splitting.from_sigma(sigma, q=16), Splitting.from_sigma(sigma, q=255).n_splits
        exact = [seconds(lambda: votes(noise, 1, test.images)) / len(test) for _ in range(repeats)]
        print(
            f"  sigma = {sigma:4g}: N = {noise.n_splits:3d} (photographs {photographs:4d}), "
            f"{np.median(exact) * 1e3:6.3f} ms per image ({min(exact) * 1e3:.3f} to {max(exact) * 1e3:.3f}), "
            f"additive / DSSN = {np.median(sampled) / np.median(exact):6.0f}; "
            f"by counts for photographs {100_064 / photographs:6.1f}"
        )

def fast_path(repeats: int) -> None:
    test, noise = data.load("digits", "test", subset=2), Splitting.from_sigma(0.5, q=16)
    for factor, widths in ((1, (128, 128)), (3, (256, 64)), (6, (256, 64))):
        model = models.wrap(models.seeded(lambda: models.mlp(64 * factor**2, 10, widths)), num_classes=10)
        images = test.images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        middle, low, high = compare(
            lambda: audit(model, images, noise), lambda: audit(model, images, noise, fast=False), repeats
        )
        print(
            f"audit, {64 * factor**2} inputs, hidden layers {widths}: full passes over fast path, "
            f"{middle:.2f}  ({low:.2f} to {high:.2f})"
        )

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, additive noise from 10,000 samples")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    noise_alone(3 if quick else 9)
    certification(5 if quick else 11)
    against_additive(3 if quick else 9, 10_000 if quick else 100_000)
    fast_path(3 if quick else 7)
