"""Seconds of the Bernstein certificate on one core: random ReLU heads d-32-32-10, l2, gap 0.1 %. Prints medians, spread and the ratio to the targets.

    OMP_NUM_THREADS=1 python benchmarks/bernstein_speed.py [heads]
"""
import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from robust_smooth.methods import bernstein

TARGETS = {(5, 1): 0.1, (5, 3): 0.2, **{(3, n): 0.05 for n in range(1, 8)}}
PRINTED = 6.48 # seconds per example on a GPU, Kao et al., n = 1, d = 5


def random_head(rng, d, K=10, hidden=32):
    sizes = (d, hidden, hidden, K)
    layers = [
        (rng.normal(size=(a, b)) * (3.5 if i == 0 else 2.1) / np.sqrt(a), 0.7 * rng.normal(size=b))
        for i, (a, b) in enumerate(zip(sizes, sizes[1:]))
    ]
    def head(x):
        x = np.maximum((x - 0.5) @ layers[0][0] + layers[0][1], 0)
        return np.maximum(x @ layers[1][0] + layers[1][1], 0) @ layers[2][0] + layers[2][1]
    return head


def timed(action):
    begin = time.process_time()
    out = action()
    return time.process_time() - begin, out


def saturated(heads: int) -> None:
    "Features of 0 or 1 to the last bits, as networks without normalisation make them; gap 1 %."
    seconds, boxes, said = [], [], []
    for seed in range(heads):
        rng = np.random.default_rng(seed)
        table, u0 = bernstein.coefficients(random_head(rng, 5), 5, 3), rng.choice([-1, 1], 5) * rng.uniform(100, 1000, 5)
        spent, result = timed(lambda: bernstein.sound_radius(table, u0, "l2", rtol=0.01, space="sigmoid"))
        seconds.append(spent); boxes.append(result.boxes); said.append(result.status)
    print(
        f"saturated features, d = 5, n = 3: {np.median(seconds):.3f} s (to {max(seconds):.3f}), {int(np.median(boxes))} boxes; "
        f"{said.count('budget')} of {heads} stopped early"
    )


def main(heads: int = 15) -> None:
    rows = []
    for d, n in [(2, 1), (2, 7), *((3, n) for n in (1, 3, 5, 7)), *((5, n) for n in (1, 2, 3, 5, 7)), (6, 1), (6, 3)]:
        seconds, boxes, paper, one = [], [], [], []
        for seed in range(heads if (d, n) not in ((5, 7),) else max(3, heads // 3)):
            rng = np.random.default_rng(seed)
            table, x0 = bernstein.coefficients(random_head(rng, d), d, n), rng.uniform(size=d)
            spent, result = timed(lambda: bernstein.sound_radius(table, x0, "l2"))
            seconds.append(spent); boxes.append(result.boxes)
            paper.append(timed(lambda: (bernstein.evaluate(table, x0), bernstein.root_radius(table, x0)))[0])
            one.append(timed(lambda: [bernstein.evaluate(table, x0) for _ in range(20)])[0] / 20)
        target = TARGETS.get((d, n))
        rows.append(
            dict(
                d=d,
                n=n,
                median_s=np.median(seconds),
                q90_s=np.quantile(seconds, 0.9),
                max_s=max(seconds),
                boxes=int(np.median(boxes)),
                of_target=np.median(seconds) / target if target else np.nan,
                paper_radius_ms=1000 * np.median(paper),
                evaluate_ms=1000 * np.median(one),
                times_faster_than_printed=PRINTED / np.median(seconds) if (d, n) == (5, 1) else np.nan,
            )
        )
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    saturated(heads)


if __name__ == "__main__": main(*(int(v) for v in sys.argv[1:]))
