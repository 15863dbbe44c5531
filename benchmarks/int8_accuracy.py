"""What does voting in int8 cost in certified accuracy? Twins of the zoo beside their originals in float32, on the same images under the same noise,
image by image: OMP_NUM_THREADS=1 ROBUST_SMOOTH_DATA=FOLDER python benchmarks/int8_accuracy.py [NETWORK ...] [--images 500] [--n 1000]

NETWORK is a float32 network of the zoo, all seven with a twin if none is named. Method `gaussian`, alpha = 0.001, radii 0, 1/2, 1, 3/2 and 2 sigma. The
float32 networks vote as the zoo hands them out (`--float32 openvino`: as OpenVINO computes them, in half the time). The error is the standard error of the
mean of paired differences. `--twin`: not the zoo's, but one made anew from the same calibration images with other settings of NNCF, whose rows are kept
beside: "defaults" is how twins were made before, "accurate biases" half of the way. Votes are kept in the home of the library, so that a run that was
stopped goes on; the rows of a network in int8_accuracy.csv beside this file are replaced at once, when all its images are done. `--table` prints the file as it stands in the README."""
from __future__ import annotations

import argparse
import math
import warnings
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch

import robust_smooth as rs
from robust_smooth.core.places import home, write_atomic
from robust_smooth.lab.claims import outcomes
from robust_smooth.lab.twins import calibration
from robust_smooth.training import openvino, zoo

TWIN = "-int8"
SHARES = (0, 0.5, 1, 1.5, 2) # of sigma, the radii
MARGIN = 0.01                # a difference that is small enough whatever its error
OF_ZOO = "zoo"
# of NNCF; twins made anew
OTHERS: dict[str, dict] = {"accurate biases": dict(fast_bias_correction=False), "defaults": {}}
PARTS = 5                    # after each of which a table is printed
BATCH = 64                   # rows of a forward pass
FILE = Path(__file__).with_suffix(".csv")

def anew(name: str, original: torch.nn.Module, settings: dict) -> torch.nn.Module:
    "The twin made again from its calibration images, NNCF with other settings."
    card = zoo.zoo()[name]
    train = rs.data.load(card["dataset"], "train", subset=zoo.zoo()[name + TWIN]["calibration"]["of"])
    seen = [calibration(train, rs.Gaussian(sigma=card["noise"]["sigma"]), seed=seed) for seed in (1, 0)]
    with mock.patch.object(
        openvino, "_in_integers", partial(openvino._in_integers, how=lambda library: dict(settings))
    ):
        return rs.models.optimise(original, seen[0], "int8", "openvino", seen[1])

def networks(name: str, sample: torch.Tensor, way: str, twin: str) -> dict:
    "The original in float32, and the twin."
    original = rs.wrap(zoo.pretrained(name), num_classes=10)
    made = zoo.pretrained(name + TWIN) if twin == OF_ZOO else anew(name, original, OTHERS[twin])
    if way == "openvino":
        original = rs.models.optimise(original, sample, "float32", "openvino")
    return {f"{way} float32": original, "int8" if twin == OF_ZOO else f"int8 {twin}": made}

def votes(name: str, way: str, net: torch.nn.Module, images: rs.data.ImageSet, rows: np.ndarray, n: int) -> rs.Record:
    "Votes on some of the images, in a file that keeps those of all."
    kept = home() / "int8_accuracy" / f"{name}-{way.replace(' ', '-')}-{n}.votes"
    noise = rs.Gaussian(sigma=zoo.zoo()[name]["noise"]["sigma"])
    some = dict(index=np.asarray(images.index)[rows], save=kept, batch_size=BATCH, progress=False)
    return rs.Smoothed(net, noise).vote(images.images[rows], n=n, n0=100, **some)

def row(before: np.ndarray, after: np.ndarray) -> dict: # outcomes [B] of float32 and int8
    "Certified accuracy of both at one radius, and their difference with its standard error."
    each = after.astype(float) - before
    difference, error = each.mean(), each.std(ddof=1) / math.sqrt(len(each))
    within = (
        "margin" if abs(difference) <= MARGIN + 1e-12 else "two errors" if abs(difference) <= 2 * error else "neither"
    )
    return dict(
        float32=round(before.mean(), 4),
        int8=round(after.mean(), 4),
        difference=round(difference, 4),
        error=round(error, 4),
        only_float32=int((each < 0).sum()),
        only_int8=int((each > 0).sum()),
        within=within,
    )

def compared(name: str, way: str, twin: str, n: int, images: rs.data.ImageSet) -> list[dict]: # a row a radius
    "Both networks on all images."
    sigma = zoo.zoo()[name]["noise"]["sigma"]
    nets, radii = networks(name, images.images[:8], way, twin), np.array(SHARES) * sigma
    found: dict = {key: [] for key in nets}
    fragile = dict.fromkeys(nets, 0)
    for first in range(PARTS):
        rows = np.arange(first, len(images), PARTS)
        for key, net in nets.items():
            record = votes(name, key, net, images, rows, n)
            # [R, B]
            found[key].append(outcomes(record.certify("l2", method="gaussian"), images.labels.numpy()[rows], radii))
            fragile[key] += int(record.fragile.sum())
        before, after = (np.concatenate(parts, axis=1) for parts in found.values())
        facts = dict(images=before.shape[1], n=n, sigma=sigma, float32_by=way, twin=twin)
        made = [dict(network=name, radius=radius) | row(*pair) | facts for radius, *pair in zip(radii, before, after)]
        print(pd.DataFrame(made).drop(columns=[*facts, "network"]).to_string(index=False))
        print(f"{name}, {facts}, draws whose best two nearly tie: {fragile}", flush=True)
    return made

def keep(made: list[dict]) -> None:
    "Replace the rows of a network in the file, whose networks stay in the order of the zoo."
    table = pd.DataFrame(made)
    if FILE.exists():
        others = pd.read_csv(FILE)
        same = (others.network == made[0]["network"]) & (others.twin == made[0]["twin"])
        table = pd.concat([others[~same], table])
    write_atomic(
        FILE, table.sort_values(["network", "twin", "radius"], ascending=[True, False, True]).to_csv(index=False)
    )

def cell(one) -> str: # a row of the file; bold where it is within neither
    "What a table says of one radius."
    said = f"{one.float32:.3f} / {one.int8:.3f}, {one.difference:+.3f} ({one.error:.3f})"
    return f"**{said}**" if one.within == "neither" else said

def show() -> None:
    "The file as a table for the README."
    table = pd.read_csv(FILE)
    print(
        "| network | " + " | ".join(f"{share:g} sigma" for share in SHARES) + " |\n" + "|---" * (len(SHARES) + 1) + "|"
    )
    for (name, twin), rows in table.groupby(["network", "twin"], sort=False):
        images = rows.images.iloc[0]
        said = ("" if twin == OF_ZOO else f", {twin}") + ("" if images == table.images.max() else f", {images} images")
        print(f"| `{name}`{said} | " + " | ".join(map(cell, rows.itertuples())) + " |")
    print(table.groupby("twin").within.value_counts().to_dict())

def main() -> None:
    warnings.simplefilter("ignore")
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("networks", nargs="*", help="float32 networks of the zoo; none: all that have a twin")
    made.add_argument("--images", type=int, default=500)
    made.add_argument("--n", type=int, default=1000, help="draws of each image")
    made.add_argument("--float32", choices=("torch", "openvino"), default="torch")
    made.add_argument("--twin", choices=(OF_ZOO, *OTHERS), default=OF_ZOO, help="whose rows")
    made.add_argument("--table", action="store_true", help="print the kept table only")
    options = made.parse_args()
    if options.table:
        show()
        return
    torch.set_num_threads(1)
    cards = zoo.zoo()
    for name in options.networks or [name for name in cards if name + TWIN in cards]:
        images = rs.data.load(cards[name]["dataset"], "test", subset=options.images)
        keep(compared(name, options.float32, options.twin, options.n, images))

if __name__ == "__main__":
    main()
