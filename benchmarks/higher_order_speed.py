"""Seconds per first-order radius, and what collecting the moments adds to a vote. Prints ratios with their spread; run on a quiet machine:

    OMP_NUM_THREADS=1 python benchmarks/higher_order_speed.py
"""
import argparse
import statistics
import time

import numpy as np
import torch
from robust_smooth.methods import higher_order
from robust_smooth.training.models import resnet20, small_convnet
from robust_smooth.noise.additive import Gaussian
from robust_smooth.voting.votes import count_votes


def seconds(task, repeats):
    "Processor seconds of each repetition, after one warm-up: other processes do not count."
    task()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        task()
        times.append(time.process_time() - start)
    return times


def spread(values): return f"median {statistics.median(values):.4g}, from {min(values):.4g} to {max(values):.4g}"


def radii(repeats, batch=100):
    rng = np.random.default_rng(0)
    q = np.where(rng.random(batch) < 0.5, rng.uniform(0.51, 0.99, batch), 1 - 10 ** -rng.uniform(2, 5, batch))
    norm = rng.uniform(0.05, 0.99, batch) * higher_order.largest_norm(q)
    cosine = -rng.uniform(0.02, 0.9, batch)
    arguments = (q, norm * cosine, norm * np.sqrt(1 - cosine**2))
    solve = [t / batch for t in seconds(lambda: higher_order.solve_direction(*arguments), repeats)]
    found = higher_order.solve_direction(*arguments)
    prove = [
        t / batch
        for t in seconds(lambda: higher_order.dual_value(*arguments, found.radius, *found.multipliers.T), repeats)
    ]
    print(f"one radius with its proof, batch of {batch}: {spread(solve)} s (target 0.05)")
    print(f"one independent dual value, as `check` needs: {spread(prove)} s")


def moments(network, shape, draws, repeats):
    model, noise, x = (
        network.eval(),
        Gaussian(sigma=0.5),
        torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)),
    )
    options = dict(num_classes=10, seed=0, targets=[0], batch_size=250, progress=False)
    ratios = []
    for _ in range(repeats):
        plain = lambda: count_votes(model, x, noise, draws, **options)
        both = lambda: count_votes(
            model, x, noise, draws, observers=[higher_order.GradientMoments(noise, int(np.prod(shape)))], **options
        )
        once = {task: 0.0 for task in (plain, both)}
        for task in (plain, both, both, plain): # a drift of the clock cancels
            start = time.process_time()
            task()
            once[task] += time.process_time() - start
        ratios.append(once[both] / once[plain])
    print(
        f"votes with moments over votes alone, {type(network).__name__} on {shape}, {draws} draws: "
        f"{spread(ratios)} (target 1.15)"
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    radii(chosen.repeats)
    moments(resnet20(num_classes=10, in_channels=3), (3, 32, 32), 500, chosen.repeats)
    moments(small_convnet(in_channels=1, num_classes=10, size=8), (1, 8, 8), 20_000, chosen.repeats)
