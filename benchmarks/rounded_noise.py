"""What rounded noise costs beside normal numbers, in one run: ratios with their spread.

    python benchmarks/rounded_noise.py [--rounds 60]

Each round draws one chunk of each kind for one image, one after the other, so that a busy machine slows all of them. Quoted: nanoseconds a
number for normal numbers that are added to the image, and the ratios of the others to them (median of the rounds, and their range).
"""
import argparse
import time

import numpy as np
import torch

from robust_smooth.core.seeds import chunk_size, mersenne_state
from robust_smooth.noise.rounded import RoundedGaussian, RoundedUniform

SHAPES = {"1x8x8": (1, 8, 8), "3x32x32": (3, 32, 32), "3x64x64": (3, 64, 64), "3x224x224": (3, 224, 224)}
NOISES = (RoundedGaussian(sigma=0.25), RoundedGaussian(sigma=1.0), RoundedUniform(lam=0.5))


def timed(draw) -> float:
    start = time.process_time()
    draw()
    return time.process_time() - start


def ratios(shape: tuple[int, ...], rounds: int) -> tuple[float, dict[str, list[float]]]:
    generator = torch.Generator().manual_seed(0)
    out = torch.empty(chunk_size(int(np.prod(shape))), *shape)
    levels = torch.randint(256, shape, dtype=torch.int32)
    image = levels / 255
    draws = {repr(noise): (lambda noise=noise: noise.perturb(levels, generator, out)) for noise in NOISES}
    draws["seeding a chunk"] = lambda: generator.set_state(torch.from_numpy(mersenne_state(0, 1, "estimation", 2)))
    normal, found = [], {name: [] for name in draws}
    for number in range(rounds + 1):
        base = timed(lambda: out.normal_(0, 0.25, generator=generator).add_(image))
        for name, draw in draws.items():
            spent = timed(draw)
            if number:  # the first round makes the tables
                found[name].append(spent / base)
        normal.append(base)
    return float(np.median(normal)) / out.numel() * 1e9, found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, shape in SHAPES.items():
        nanoseconds, found = ratios(shape, args.rounds)
        print(f"{name}: normal numbers {nanoseconds:.2f} ns")
        for kind, values in found.items():
            print(f"    {kind:36s} {np.median(values):.3f} ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
