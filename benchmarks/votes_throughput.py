"""Votes per second against the bare forward pass, in one run: ratios with their spread.

    python benchmarks/votes_throughput.py [--rounds 15] [--device cpu]

Each round times the bare forward at its best batch size, the plain loop that published code uses (repeat, randn_like, a Python count, batch 1000) and the
engine (with Gaussian noise, and with rounded Gaussian noise), one after the other, so that a busy machine slows all of them. Quoted: median of the per-round ratios, and their range. CPU time of the process
is used on a CPU, wall-clock time on a GPU.
"""
import argparse
import time

import numpy as np
import torch

from robust_smooth.training import models
from robust_smooth.core.seeds import chunk_size
from robust_smooth.noise.additive import Gaussian
from robust_smooth.noise.rounded import RoundedGaussian
from robust_smooth.voting.hardware import tune_batch_size
from robust_smooth.voting.votes import count_votes


def networks() -> dict:
    return {
        "ResNet 3 stages, 16x16": (models.ResNet(depth=8, num_classes=10, in_channels=3), (3, 16, 16), 20_000),
        "ResNet 3 stages, 8x8": (models.ResNet(depth=8, num_classes=10, in_channels=1), (1, 8, 8), 60_000),
        "MLP 2-64-64-10": (models.mlp(2, 10, (64, 64)), (2,), 1_000_000),
    }


def plain_loop(model, x, sigma, n, batch=1000):
    "The loop of published code, image by image."
    counts = np.zeros(10, dtype=int)
    with torch.no_grad():
        for start in range(0, n, batch):
            copies = x.repeat((min(batch, n - start), *[1] * x.ndim))
            predictions = model(copies + torch.randn_like(copies) * sigma).argmax(1)
            for index in predictions.cpu().numpy(): counts[index] += 1
    return counts


def bare(model, images, n):
    with torch.inference_mode():
        for _ in range(-(-n // len(images))): model(images)
    return -(-n // len(images)) * len(images)


def timed(clock, function, *args, **kwargs):
    start = clock()
    result = function(*args, **kwargs)
    return clock() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    if device.type == "cuda":
        def clock(): torch.cuda.synchronize(); return time.perf_counter()
    else: clock = time.process_time
    print(f"{'network':26s} {'batch':>5s} {'bare images/s':>14s}  engine / bare            rounded noise / bare     plain loop / bare")
    for name, (model, shape, n) in networks().items():
        model = model.eval().to(device)
        batch = tune_batch_size(model, shape, device)
        chunk = chunk_size(int(np.prod(shape)))
        if batch > chunk: batch -= batch % chunk  # as the engine does
        images, x = torch.rand((batch, *shape), device=device), torch.randint(256, (1, *shape)) / 255
        ratios, speeds = {"Gaussian": [], "rounded": [], "plain": []}, []
        for _ in range(args.rounds):
            seconds, done = timed(clock, bare, model, images, n)
            speeds.append(done / seconds)
            for kind, noise in dict(Gaussian=Gaussian(sigma=0.25), rounded=RoundedGaussian(sigma=0.25)).items():
                seconds, _ = timed(clock, count_votes, model, x, noise, n, num_classes=10, seed=0, batch_size=batch, progress=False)
                ratios[kind].append(n / seconds / speeds[-1])
            seconds, _ = timed(clock, plain_loop, model, x[0].to(device), 0.25, n // 4)
            ratios["plain"].append(n // 4 / seconds / speeds[-1])
        show = lambda r: f"{np.median(r):.3f} ({min(r):.3f} to {max(r):.3f})"
        print(f"{name:26s} {batch:5d} {np.median(speeds):14,.0f}  {show(ratios['Gaussian']):24s} {show(ratios['rounded']):24s} {show(ratios['plain'])}")


if __name__ == "__main__": main()
