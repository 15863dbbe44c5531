"""Do two processes of a sweep vote twice as fast as one? Images per second of the clock on the wall, alone and side by side.

    OMP_NUM_THREADS=1 python benchmarks/two_jobs.py [--seconds 10] [--rounds 3]

Each round asks every way once: one process alone, then two at once, each with one thread. Quoted are the median of the ratio, two together over one alone, and its
range: 2 where both have a core of their own, 1 where they share one. OpenVINO and int8 are measured where they are installed. Nothing else may run beside it.
"""
import argparse
import multiprocessing
import os
import statistics
import time

import torch

from robust_smooth.training import models, openvino
from robust_smooth.training.speed import optimise

SHAPE, ROWS = (3, 32, 32), 64


def network(way):
    net = models.seeded(lambda: models.ResNet(depth=20, num_classes=10, in_channels=3)).eval()
    backend, precision = way.split(", ")
    noisy = torch.rand((64, *SHAPE)) + 0.25 * torch.randn((64, *SHAPE))
    return optimise(
        net, noisy[:8].clamp(0, 1), precision, backend=backend, calibration=noisy if precision == "int8" else None
    )


def work(way, seconds, start, found):
    "Images per second from the moment when all are ready."
    torch.set_num_threads(1)
    net, rows, passes = network(way), torch.rand((ROWS, *SHAPE)), 0
    with torch.inference_mode():
        net(rows)
        start.wait()
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            net(rows)
            passes += 1
        found.put(passes * ROWS / (time.perf_counter() - begin))


def together(way, seconds, jobs):
    "Images per second of all jobs."
    context = multiprocessing.get_context("spawn")
    start, found = context.Barrier(jobs), context.Queue()
    running = [context.Process(target=work, args=(way, seconds, start, found)) for _ in range(jobs)]
    for one in running: one.start()
    total = sum(found.get() for _ in running)
    for one in running: one.join()
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    ways = ["torch, float32"]
    if not openvino.missing(): ways.append("openvino, float32")
    if not openvino.missing("int8"): ways.append("openvino, int8")
    print(
        f"{openvino.instructions()}, torch {torch.__version__}, {args.rounds} rounds of {args.seconds:g} s, "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    rates = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way in ways: rates[way].append((together(way, args.seconds, 1), together(way, args.seconds, 2)))
    for way, pairs in rates.items():
        ratios = [two / one for one, two in pairs]
        alone = statistics.median(one for one, _ in pairs)
        print(
            f"{way:20s} alone {alone:7,.0f} images/s, two at once {statistics.median(ratios):.2f} ({min(ratios):.2f} "
            f"to {max(ratios):.2f}) times as many"
        )


if __name__ == "__main__":
    main()
