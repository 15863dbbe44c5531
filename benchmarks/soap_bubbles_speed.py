"""Speed of the soap-bubble certificates and of voting with their noises. Prints rates and ratios with their spread; run with OMP_NUM_THREADS=1.

    python benchmarks/soap_bubbles_speed.py [--quick]
"""
import argparse
import time

import numpy as np
import torch

from robust_smooth.methods import soap_bubbles
from robust_smooth.training.models import resnet20, wrap
from robust_smooth.noise.additive import Gaussian
from robust_smooth.noise.shells import LinfGaussian, MixedNormGaussian, RadialGaussian
from robust_smooth.voting.votes import count_votes
from robust_smooth.maths import shell_radii


def seconds(work) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def certificates(repeats: int) -> None:
    q = np.sort(10.0 ** -np.random.default_rng(0).uniform(0.302, 5, 1000))
    for d, k in ((64, 30.0), (784, 100.0), (3072, 500.0), (150_528, 50_000.0)):
        shell_radii._table.cache_clear()
        setup = seconds(lambda: soap_bubbles.verified_radius(q, d, k, "l2"))
        rates = [len(q) / seconds(lambda: soap_bubbles.verified_radius(q, d, k, "l2")) for _ in range(repeats)]
        print(
            f"l2 d={d} k={k:g}: first batch {setup:.2f} s with set-up; then {np.median(rates):,.0f} verified radii/s "
            f"(from {min(rates):,.0f} to {max(rates):,.0f})"
        )
    for d, k in ((2, 1.5), (5, 3.0), (20, 12.0), (64, 20.0), (64, 50.0), (3072, 250.0)):
        times = [seconds(lambda: soap_bubbles.radius(p, d, k, "mixed")) for p in np.linspace(0.6, 0.999, 2 + repeats)]
        print(
            f"mixed d={d} k={k:g}, no table: {np.median(times):.2f} s per radius (from {min(times):.2f} to "
            f"{max(times):.2f})"
        )


def steepest() -> None:
    "One proved radius at a time, where the exponent is as close to d as it may be: processor time."
    def spent(d: int, k: float, q: float) -> float:
        begin = time.process_time()
        try: soap_bubbles.verified_radius(np.array([q]), d, k, "mixed")
        except ValueError: return float("nan") # refused: not resolved
        return time.process_time() - begin
    for d in (2, 3, 5, 7, 8, 12, 16, 20, 24, 30, 64, 784):
        times = np.array([spent(d, 0.9 * d, q) for q in (0.49, 0.3, 0.1, 1e-2, 1e-4, 1e-9)])
        done = times[~np.isnan(times)]
        print(
            f"mixed d={d} k={0.9 * d:g}, proved: {np.median(done):.2f} s of processor time a radius (from "
            f"{done.min():.2f} to {done.max():.2f}); refused {np.isnan(times).sum()} of {len(times)}",
            flush=True,
        )


def next_to_the_pole() -> None:
    "One proved radius at a time, where the noise is almost a point: processor time and evaluations of the law."
    for family in ("l2", "linf"):
        for d in (1, 2, 12, 64, 3072):
            times, radii = [], []
            for gap in (0.5, 0.1, 0.02, 0.005):
                for q in (0.49, 0.1, 1e-2, 1e-9):
                    begin = time.process_time()
                    radii.append(soap_bubbles.verified_radius(np.array([q]), d, d - gap, family)[0][0])
                    times.append(time.process_time() - begin)
            print(
                f"{family} d={d}, d - k from 0.005 to 0.5, proved: {np.median(times):.2f} s of processor time a radius "
                f"(from {min(times):.2f} to {max(times):.2f}); {np.count_nonzero(radii)} of {len(radii)} above 0",
                flush=True,
            )


def votes(repeats: int, n: int) -> None:
    "Interleaved, so that other load on the machine meets all noises alike."
    torch.set_num_threads(1)
    net = resnet20(10, in_channels=3).eval()
    net.unit_input = True
    model, x = wrap(net, num_classes=10), torch.rand(1, 3, 32, 32)
    noises = [
        Gaussian(sigma=0.25),
        RadialGaussian.matched(0.25, 500, 3072),
        MixedNormGaussian.matched(0.25, 250, 3072),
        LinfGaussian(sigma=0.01, k=250),
    ]
    run = lambda noise: seconds(
        lambda: count_votes(model, x, noise, n, num_classes=10, seed=0, batch_size=100, progress=False)
    )
    for noise in noises: run(noise)
    times = np.array([[run(noise) for noise in noises] for _ in range(repeats)])
    for noise, column in zip(noises[1:], times.T[1:]):
        ratio = times[:, 0] / column
        print(
            f"votes, ResNet-20, {type(noise).__name__}: {np.median(ratio):.3f} of the Gaussian's throughput (from "
            f"{ratio.min():.3f} to {ratio.max():.3f})"
        )
    for noise in noises:
        out, generator = torch.empty(125, 3072), torch.Generator().manual_seed(0)
        rate = out.numel() * 20 / seconds(lambda: [noise.sample(out, generator) for _ in range(20)])
        print(f"draws, {type(noise).__name__}: {rate / 1e6:,.0f} million numbers/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    quick = parser.parse_args().quick
    certificates(3 if quick else 7)
    steepest()
    next_to_the_pole()
    votes(3 if quick else 9, 300 if quick else 2000)
