"""How much faster is a training step in the ways that a budget can name, for ResNet-20 on random 32x32 images?

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py [--rounds 3] [--steps 3] [--batch 64] [--plain]

Each round times every way once, in turn: some steps of SGD, noise included, by the processor's clock (one thread). Quoted are the median of images per second and
of the ratios to bfloat16, which `fast` budgets took before they named their ways, with their range. `--plain` leaves the compiled ones out (they need a C++ compiler).
"""
import argparse
import contextlib
import os
import statistics
import time

import torch

from robust_smooth.training import models, train  # noqa: F401  # a training keeps its memory: room `memory`

SIGMA, SHAPE = 0.25, (3, 32, 32)


def stepper(batch, *, layout=torch.contiguous_format, amp=False, compiled=False):
    "A function that does one step."
    net = models.seeded(lambda: models.ResNet(depth=20, num_classes=10, in_channels=3)).train().to(memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    images, labels = torch.rand(batch, *SHAPE).contiguous(memory_format=layout), torch.randint(10, (batch,))
    run = torch.compile(net, dynamic=False) if compiled else net

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if amp else contextlib.nullcontext():
            logits = run(images + SIGMA * torch.randn_like(images))
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
    return step


def timed(step, steps):
    begin = time.process_time()
    for _ in range(steps):
        step()
    return time.process_time() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--plain", action="store_true", help="nothing compiled")
    args = parser.parse_args()
    torch.set_num_threads(1)
    last = torch.channels_last
    ways = {"float32": {}, "bfloat16": dict(amp=True), "float32, channels-last": dict(layout=last),
            "bfloat16, channels-last": dict(layout=last, amp=True)}
    if not args.plain:
        ways["float32, channels-last, compiled"] = dict(layout=last, compiled=True)
    steps = {name: stepper(args.batch, **way) for name, way in ways.items()}
    for step in steps.values():
        timed(step, 2) # compiles
    found = [{name: timed(step, args.steps) for name, step in steps.items()} for _ in range(args.rounds)]
    print(
        f"torch {torch.__version__}, one thread, {args.rounds} rounds of {args.steps} steps of {args.batch} images, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    for name in ways:
        ratios = [one["bfloat16"] / one[name] for one in found]
        rate = args.steps * args.batch / statistics.median(one[name] for one in found)
        print(
            f"{name:34s} {rate:6.0f} images/s   {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}) times bfloat16"
        )


if __name__ == "__main__":
    main()
