"""How much faster is an optimised base classifier than the plain float32 forward pass?

    OMP_NUM_THREADS=1 python benchmarks/optimise.py [--threads 1] [--rounds 9] [--compile]

Each round times every variant once, in turn, at the batch size that suited it best in a sweep; what is printed is the median over rounds of the
ratio to the plain float32 forward of the same round, with the smallest and the largest ratio. Goals: 1.5 for the three-stage ResNet on 16x16
inputs, 3.5 for ResNet-20 on 32x32 inputs where the CPU has bfloat16 instructions.
"""
import argparse
import statistics
import time
from pathlib import Path

import torch

from robust_smooth.training import models

BATCHES = (64, 128, 256, 512)


def seconds_per_image(model, batch, shape, budget):
    x, times, end = torch.rand(batch, *shape), [], time.perf_counter() + budget
    with torch.inference_mode():
        model(x)
        while not times or time.perf_counter() < end:
            start = time.process_time()
            model(x)
            times.append(time.process_time() - start)
    return min(times) / batch


def instructions():
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    return [name for name in ("avx512_bf16", "amx_bf16") if name in flags]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--budget", type=float, default=0.3, help="seconds per timing")
    parser.add_argument(
        "--compile", action="store_true", help="also torch.compile, for one batch shape (needs a C++ compiler)"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), bfloat16 instructions: {instructions() or 'none'}")
    cases = {"digits conv net, 8x8": (models.small_convnet, (1, 8, 8), None),
             "ResNet 16-32-64, one block each, 16x16": (lambda: models.ResNet(8, 10, 3), (3, 16, 16), 1.5),
             "ResNet-20, 32x32": (models.resnet20, (3, 32, 32), 3.5)}
    for title, (make, shape, goal) in cases.items():
        net, sample = models.seeded(make).eval(), torch.rand(8, *shape)
        variants = {"plain float32": net, "folded": models.optimise(net, sample, backend="torch folded"),
                    "folded, channels-last": models.optimise(net, sample, backend="torch channels-last"),
                    "folded, channels-last, bfloat16": models.optimise(net, sample, "bfloat16", "torch channels-last")}
        best = {
            name: min(BATCHES, key=lambda batch: seconds_per_image(model, batch, shape, options.budget))
            for name, model in variants.items()
        }
        if options.compile:
            best["... compiled"] = best["folded, channels-last, bfloat16"]
            variants["... compiled"] = models.optimise(
                net, torch.rand(best["... compiled"], *shape), "bfloat16", "torch compiled"
            )
        rounds = [{name: seconds_per_image(model, best[name], shape, options.budget) for name,
                   model in variants.items()} for _ in range(options.rounds)]
        print(f"\n{title}" + (f" (goal {goal} for bfloat16)" if goal else ""))
        for name in variants:
            ratios = [one["plain float32"] / one[name] for one in rounds]
            rate, ratio = 1 / statistics.median(one[name] for one in rounds), statistics.median(ratios)
            print(
                f"  {name:34s} batch {best[name]:4d}  {rate:9.0f} images/s  ratio {ratio:5.2f}  [{min(ratios):.2f}, "
                f"{max(ratios):.2f}]"
            )


if __name__ == "__main__":
    main()
