"""How many draws do sequential plans save on digits, and what do they cost in certified accuracy?

OMP_NUM_THREADS=1 python benchmarks/sequential_savings.py [images] [n] ["plan;plan;..."]

A network trained with Gaussian augmentation; test digits voted on with a fixed n and with plans whose last look is n (or a part of it), seeds apart. One-sided plans are held
against CERTIFY at n, two-sided ones against the exact limit at n; `short` is how far a plan's certified accuracy lies below that of the one-sided exact plan, where most."""
from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd
import torch

from robust_smooth.methods import exact, gaussian, sequential
from robust_smooth.noise.additive import Gaussian
from robust_smooth.smoothed import Smoothed
from robust_smooth.training import data, models, train

GRID, SEEDS = np.arange(0, 2, 0.25), (1, 2, 3)
PLANS = {
    "exact": {},
    "exact, gamma .05": dict(gamma=0.05),
    "union": dict(spending="union"),
    "anytime": dict(spending="anytime"),
    "two-sided": dict(two_sided=True),
    "two-sided, n / 4": dict(two_sided=True, part=4),
    "two-sided, n / 16": dict(two_sided=True, part=16),
}

def _network(digits, sigma):
    "A small network that has seen the noise."
    torch.manual_seed(0)
    net = models.mlp(64, 10)
    optimizer = lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-4)
    train.fit(
        net,
        digits,
        train.NoiseAugmentation(Gaussian(sigma=sigma)),
        epochs=60, optimizer=optimizer, batch_size=100, progress=False,
    )
    return net

def _rows(sigma, images, n, names):
    "A row for each plan and seed."
    test = data.load("digits", "test", subset=images)
    labels, smooth = test.labels.numpy(), Smoothed(_network(data.load("digits", "train"), sigma), Gaussian(sigma=sigma))
    def vote(stop=None, seed=0):
        start = time.perf_counter()
        record = smooth.vote(test.images, n=n, n0=100, stop=stop, seed=seed, progress=False)
        return record, time.perf_counter() - start
    def row(name, seed, record, clock, accuracy, **more):
        right = record.selected == labels
        told = dict(
            sigma=sigma, plan=name, seed=seed, draws=record.n.mean(), saving=n / record.n.mean(),
            saving_skip_wrong=n * len(labels) / record.n[right].sum(),
            seconds=clock,
        )
        return told | more | {f"{r:g}": a for r, a in zip(GRID, accuracy)}
    fixed, clock = vote()
    base = {
        False: gaussian.certify(fixed).certified_accuracy(labels, GRID),
        True: exact.certify(fixed).certified_accuracy(labels, GRID),
    }
    yield row("fixed n, CERTIFY", 0, fixed, clock, base[False])
    yield row("fixed n, exact", 0, fixed, clock, base[True])
    usual = {}
    for name in names:
        options = dict(PLANS[name])
        last = n // options.pop("part", 1)
        for seed in SEEDS:
            record, clock = vote(sequential.plan(GRID, sigma, 0.001, n_max=last, **options), seed)
            ours = sequential.certify(record).certified_accuracy(labels, GRID)
            usual.setdefault(seed, ours)
            change = ours - base[options.get("two_sided", False)]
            yield row(
                name, seed, record, clock, ours,
                worst_change=change[np.argmax(np.abs(change))],
                short=np.min(ours - usual[seed]),
            )

def main(images: int = 500, n: int = 100_000, names: str = ";".join(PLANS)) -> None:
    frame = pd.DataFrame([row for sigma in (0.5, 1.0) for row in _rows(sigma, images, n, names.split(";"))])
    print(frame.round(4).to_string(index=False))
    told = ["draws", "saving", "saving_skip_wrong", "seconds", "worst_change", "short"]
    print(
        frame[frame.worst_change.notna()]
        .groupby(["sigma", "plan"])[told]
        .agg(["min", "mean", "max"])
        .round(4)
        .to_string()
    )

if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:4])
