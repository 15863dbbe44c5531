"""How often does noise on the machine spoil the batch that a sweep chooses? A simulation with a clock of its own: python benchmarks/batch_choice.py [--tries 1000]

A network is a curve of throughput over batch size, shaped like ResNet-20's measured ones. Other work slows it down in bursts whose lengths have heavy tails
(Pareto, 1.2, from 20 ms on), and one pass in fifty is long by itself. Beside the sweep as it is, two other second looks: one that drops a size as soon as it
is more than 4 % behind, and so times the last few more often, and one that compares sizes over equal numbers of rows. Printed: the share of tries whose size
has less than .98 and less than .95 of the best throughput, the mean, and the clock's largest answer in seconds."""
from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from robust_smooth.voting import hardware

ROWS = 2.0 ** np.arange(3, 12)
CURVES = { # images a second at the best size, and the share of it at 8, 16, 32, ... rows
    "ResNet-20": (900, (.88, .95, 1, .98, .93, .80, .70, .65, .65)),
    "ResNet-20, channels-last": (1375, (.85, .93, 1, .96, .92, .80, .70, .65, .65)),
    "ResNet-20, int8": (4500, (.60, .75, .85, .93, .97, .99, 1, .98, .90))}
LOADS = {"a fifth of the time up to 1.3 times slower": (0.2, 0.3), "half the time up to 1.3 times": (0.5, 0.3),
         "half the time up to twice": (0.5, 1.0), "four fifths of the time up to twice": (0.8, 1.0)}
BEHIND = 0.96 # of the best: what is below is dropped

class Timed(nn.Module):
    "Moves a clock instead of computing."

    def __init__(self, curve: tuple, load: tuple[float, float], seed: int):
        super().__init__()
        self.top, self.shares = curve
        self.busy, self.depth = load
        self.rng, self.clock, self.until, self.factor = np.random.default_rng(seed), 0.0, 0.0, 1.0

    def share(self, rows: int) -> float: # of the best throughput
        return float(np.interp(math.log2(rows), np.log2(ROWS), self.shares))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left = len(x) / (self.top * self.share(len(x))) * (1 + abs(self.rng.normal(0, 0.01)))
        if self.rng.random() < 0.02:
            left *= 1 + 0.3 * self.rng.pareto(1.5)
        while left > 0:
            if self.clock >= self.until:
                self.factor = 1 + self.depth * self.rng.random() * (self.rng.random() < self.busy)
                self.until = self.clock + 0.02 * (1 + self.rng.pareto(1.2))
            step = min(left * self.factor, self.until - self.clock)
            self.clock, left = self.clock + step, left - step / self.factor
            if step < 1e-12:
                break
        return x

def near(spent: dict[int, float], share: float, among: list[int]) -> list[int]:
    best = max(rows / spent[rows] for rows in among)
    return [rows for rows in among if rows / spent[rows] >= share * best]

def dropping(model, shape, device, spent, end) -> None:
    "In turn, without the sizes that were seen to be behind."
    left = near(spent, hardware.NEAR, list(spent))
    while len(left) > 1 and hardware._now(device) + sum(spent[rows] for rows in left) < end:
        for rows in left:
            spent[rows] = min(spent[rows], hardware._once(model, torch.zeros(rows, *shape)))
        left = near(spent, BEHIND, left)

def equal_rows(model, shape, device, spent, end) -> None:
    "In turn, as many passes each as make up the largest size."
    left, seen = near(spent, hardware.NEAR, list(spent)), {}
    while len(left) > 1 and hardware._now(device) + sum(max(left) / rows * spent[rows] for rows in left) < end:
        for rows in left:
            passes = max(left) // rows
            took = sum(hardware._once(model, torch.zeros(rows, *shape)) for _ in range(passes)) / passes
            seen[rows] = min(seen.get(rows, math.inf), took)
        left = near(seen, BEHIND, left)
    spent.update(seen)

LOOKS: dict[str, Callable] = {"as it is": hardware._look_again, "dropping": dropping, "equal rows": equal_rows}

# share of the best, seconds
def tried(curve: tuple, load: tuple[float, float], look: Callable, seed: int) -> tuple[float, float]:
    net = Timed(curve, load, seed).eval()
    hardware._look_again, hardware._now = look, lambda device: net.clock # a clock that only the network moves
    rows = hardware.tune_batch_size(net, (1,))
    return net.share(rows) / max(curve[1]), net.clock

def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--tries", type=int, default=1000)
    options = made.parse_args()
    for load, settings in LOADS.items():
        print(load)
        for name, curve in CURVES.items():
            for way, look in LOOKS.items():
                found, took = np.array([tried(curve, settings, look, seed) for seed in range(options.tries)]).T
                below = [float((found < limit - 1e-9).mean()) for limit in (0.98, 0.95)]
                print(
                    f"  {name:26s}{way:12s}below .98 {below[0]:.3f}, below .95 {below[1]:.3f}, "
                    f"mean {found.mean():.4f}, "
                    f"at most {took.max():.1f} s, median {np.median(took):.1f} s",
                    flush=True,
                )

if __name__ == "__main__":
    main()
