"""How long does the exact certificate take an image, and its check? OMP_NUM_THREADS=1 python benchmarks/exact_speed.py [images]

Distinct counts of six classes, all images in one call; processor time, which other work on the machine stretches less than the clock's, and the check over the certificate in the same run."""
from __future__ import annotations

import sys
import time

import numpy as np

from robust_smooth.core.record import Record
from robust_smooth.methods import exact
from robust_smooth.noise.additive import Gaussian, Uniform

def votes(n: int, images: int, noise, seed: int) -> Record:
    "Votes of images with a top class, like those of a classifier that was trained with the noise."
    rng = np.random.default_rng(seed)
    masses = np.sort(rng.dirichlet(np.full(6, 0.4), images))[:, ::-1]
    return Record.from_counts(rng.multinomial(100, masses), rng.multinomial(n, masses), n, noise, 64)

def main(images: int = 60) -> None:
    exact.certify(votes(100, 5, Gaussian(sigma=1.0), 0), progress=False)
    for noise, norm in ((Gaussian(sigma=1.0), "l2"), (Uniform(lam=1.0), "l1")):
        for n in (1000, 100_000):
            rounds = []
            for seed in range(3):
                record = votes(n, images, noise, seed)
                start = time.process_time()
                table = exact.certify(record, norm=norm, progress=False)
                middle = time.process_time()
                assert exact.check(table).all()
                rounds.append((1000 * (middle - start) / images, (time.process_time() - middle) / (middle - start)))
            times, ratios = np.array(rounds).T
            print(f"{norm}, n = {n:,}: {np.median(times):.1f} ({times.min():.1f} to {times.max():.1f}) ms an image, "
                  f"check {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}) times that", flush=True)

if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
