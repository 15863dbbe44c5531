"""Does ADRE raise certified accuracy at large radii over Gaussian augmentation? Digits, several seeds. OMP_NUM_THREADS=1 python benchmarks/adre_gain.py [seeds]

Each seed is a training run (initial weights, order, noise); 500 test digits, sequential votes up to n = 100,000, alpha = 0.001."""
from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import torch

from robust_smooth.methods import sequential
from robust_smooth.training import data, models, train
from robust_smooth.training.adre import ADRE
from robust_smooth.noise.additive import Gaussian
from robust_smooth.training.smoothadv import SmoothAdv
from robust_smooth.smoothed import Smoothed

def main(seeds: int = 4) -> None:
    digits, test, rows = data.load("digits", "train"), data.load("digits", "test"), []
    for sigma, grid in ((0.25, np.arange(0, 1, 0.25)), (0.5, np.arange(0, 1.75, 0.25))):
        recipes = {
            "Basic": train.NoiseAugmentation(Gaussian(sigma=sigma)),
            "ADRE_REG lam=0 (k=8)": ADRE(sigma, 0.0, 8),
            "ADRE_REG lam=.1": ADRE(sigma, 0.1, 8),
            "ADRE_REG lam=.3": ADRE(sigma, 0.3, 8),
        }
        if sigma == 0.5:
            recipes |= {"SmoothAdv": SmoothAdv(sigma, 0.5, 8), "ADRE_ADV lam=.3": ADRE(sigma, 0.3, 8, eps=0.5)}
        for name, recipe in recipes.items():
            for seed in range(seeds):
                torch.manual_seed(seed)
                net = models.mlp(64, 10)
                history = train.fit(
                    net, digits, recipe, epochs=60,
                    optimizer=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-4),
                    batch_size=100,
                    seed=seed,
                    progress=False,
                )
                record = Smoothed(net, Gaussian(sigma=sigma)).vote(
                    test.images, stop=sequential.plan(grid, sigma, 0.001), seed=seed, progress=False
                )
                accuracy = sequential.certify(record).certified_accuracy(test.labels.numpy(), grid)
                rows.append(
                    dict(
                        sigma=sigma,
                        method=name,
                        seed=seed,
                        gap=history.rows[-1].get("logit_gap"),
                        draws=record.n.mean(),
                    )
                    | {f"{r:g}": a for r, a in zip(grid, accuracy)}
                )
        frame = pd.DataFrame([row for row in rows if row["sigma"] == sigma])
        radii = [f"{r:g}" for r in grid]
        mean, spread = (
            frame.groupby("method", sort=False)[radii].mean(),
            frame.groupby("method", sort=False)[radii].std(),
        )
        print(f"sigma = {sigma}: mean certified accuracy (standard deviation over {seeds} seeds)")
        print((mean.round(3).astype(str) + " (" + spread.round(3).astype(str) + ")").to_string())
        paired = frame.set_index(["method", "seed"])[radii]
        print("difference from Basic, seed by seed: mean (standard error)")
        for name in list(recipes)[1:]:
            gain = paired.loc[name] - paired.loc["Basic"]
            print(
                f"  {name:26s}",
                "  ".join(
                    f"{r}: {gain[r].mean():+.3f} ({gain[r].std() / max(len(gain), 1) ** 0.5:.3f})" for r in radii
                ),
                flush=True,
            )

if __name__ == "__main__": main(*map(int, sys.argv[1:]))
