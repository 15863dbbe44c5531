"""What does voting in int8 cost in certified accuracy? Twins of the zoo beside their originals in float32 (both computed by OpenVINO), on the same images under
the same noise, image by image: OMP_NUM_THREADS=1 ROBUST_SMOOTH_DATA=FOLDER python benchmarks/int8_accuracy.py 0.25 0.5 [--images 500] [--n 500]

The error is the standard error of the mean of paired differences. A table is printed after every fifth of the images, so that a run may be stopped."""
from __future__ import annotations

import argparse
import warnings

import numpy as np

import robust_smooth as rs
from robust_smooth.lab.claims import outcomes, paired
from robust_smooth.training import zoo

RADII = np.array([0, 0.25, 0.5, 0.75, 1, 1.5, 2])
PARTS = 5

def networks(name: str, sample) -> dict:
    "The original as OpenVINO computes it in float32, and the twin."
    original = rs.wrap(zoo.pretrained(name), num_classes=10)
    return dict(float32=rs.models.optimise(original, sample, "float32", "openvino"), int8=zoo.pretrained(f"{name}-int8"))

def show(sigma: float, n: int, found: dict) -> None:
    certified = {way: np.concatenate(parts, axis=1) for way, parts in found.items()} # [R, B]
    print(f"sigma {sigma:g}, n = {n}, {certified['int8'].shape[1]} images")
    for radius, before, after in zip(RADII, certified["float32"], certified["int8"]):
        if before.any() or after.any():
            gain, changed = paired(after, before), int((after != before).sum())
            print(f"  radius {radius:4.2f}: float32 {before.mean():.3f}, int8 {after.mean():.3f}, "
                  f"difference {gain.difference:+.4f} (error {gain.error:.4f}), {changed} images differ", flush=True)

def main() -> None:
    warnings.simplefilter("ignore")
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("sigmas", type=float, nargs="+")
    made.add_argument("--images", type=int, default=500)
    made.add_argument("--n", type=int, default=500, help="draws of each image")
    options = made.parse_args()
    images = rs.data.load("cifar10", "test", subset=options.images)
    for sigma in options.sigmas:
        nets = networks(f"cifar10-resnet20-gaussian-{sigma:.2f}", images.images[:8])
        found: dict = {way: [] for way in nets}
        for first in range(PARTS):
            rows = np.arange(first, len(images), PARTS)
            for way, net in nets.items():
                record = rs.Smoothed(net, rs.Gaussian(sigma=sigma)).vote(
                    images.images[rows], n=options.n, n0=100, index=np.asarray(images.index)[rows], batch_size=64, progress=False)
                found[way].append(outcomes(record.certify("l2", method="gaussian"), images.labels.numpy()[rows], RADII))
            show(sigma, options.n, found)

if __name__ == "__main__":
    main()
