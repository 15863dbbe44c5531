"""How many draws does the sequential plan save on digits, and what does it cost in certified accuracy? OMP_NUM_THREADS=1 python benchmarks/sequential_savings.py [images] [n]

A network trained with Gaussian augmentation; the 500 test digits voted on with fixed n = 100,000 and with plans of the same last look, seeds apart."""
from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd
import torch

from robust_smooth.methods import gaussian, sequential, tcertify
from robust_smooth.training import data, models, train
from robust_smooth.noise.additive import Gaussian
from robust_smooth.smoothed import Smoothed

def main(images: int = 500, n: int = 100_000) -> None:
    grid, rows = np.arange(0, 2, 0.25), []
    digits, test = data.load("digits", "train"), data.load("digits", "test", subset=images)
    labels = test.labels.numpy()
    for sigma in (0.5, 1.0):
        torch.manual_seed(0)
        net = models.mlp(64, 10)
        train.fit(net, digits, train.NoiseAugmentation(Gaussian(sigma=sigma)), epochs=60, optimizer=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-4), batch_size=100, progress=False)
        def vote(stop=None, seed=0):
            start = time.perf_counter()
            record = Smoothed(net, Gaussian(sigma=sigma)).vote(test.images, n=n, n0=100, stop=stop, seed=seed, progress=False)
            return record, time.perf_counter() - start
        fixed, clock = vote()
        one_sided, both = gaussian.certify(fixed), tcertify.certify(fixed)
        base = {False: one_sided.certified_accuracy(labels, grid), True: both.certified_accuracy(labels, grid)}
        rows.append(dict(sigma=sigma, plan="fixed n, CERTIFY", seed=0, draws=float(n), seconds=clock, **{f"{r:g}": a for r, a in zip(grid, base[False])}))
        rows.append(dict(sigma=sigma, plan="fixed n, T-CERTIFY", seed=0, draws=float(n), seconds=clock, **{f"{r:g}": a for r, a in zip(grid, base[True])}))
        for name, options in {"exact": {}, "exact, gamma .05": dict(gamma=0.05), "union": dict(spending="union"), "anytime": dict(spending="anytime"), "two-sided": dict(two_sided=True)}.items():
            for seed in (1, 2, 3):
                record, clock = vote(sequential.plan(grid, sigma, 0.001, n_max=n, **options), seed)
                ours = sequential.certify(record).certified_accuracy(labels, grid)
                right = record.selected == labels
                rows.append(dict(sigma=sigma, plan=name, seed=seed, draws=record.n.mean(), seconds=clock, saving=n / record.n.mean(), saving_skip_wrong=n * len(labels) / record.n[right].sum(),
                                 worst_change=(ours - base[options.get("two_sided", False)])[np.argmax(np.abs(ours - base[options.get("two_sided", False)]))],
                                 **{f"{r:g}": a for r, a in zip(grid, ours)}))
    frame = pd.DataFrame(rows)
    print(frame.round(4).to_string(index=False))
    sequential_rows = frame[frame.saving.notna()]
    print(sequential_rows.groupby(["sigma", "plan"])[["saving", "saving_skip_wrong", "seconds", "worst_change"]].agg(["min", "mean", "max"]).round(4).to_string())

if __name__ == "__main__": main(*map(int, sys.argv[1:]))
