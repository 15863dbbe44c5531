"""How fast are bounds, certificates and boundaries, as ratios to the obvious loop? One core: OMP_NUM_THREADS=1 python benchmarks/certify_speed.py

Times are CPU seconds, so that a busy machine does not matter. The obvious loop is one call of statsmodels' proportion_confint(method="beta") per bound; where statsmodels is absent, the same two calls of scipy.stats.beta.ppf that it makes."""
from __future__ import annotations

import statistics
import time
import warnings

import numpy as np
from scipy import stats

from robust_smooth.maths import bounds, looks
from robust_smooth.methods import gaussian, sequential, tcertify
from robust_smooth.core.record import Record
from robust_smooth.noise.additive import Gaussian

try: from statsmodels.stats.proportion import proportion_confint
except ImportError: proportion_confint = None

def confint_lower(k: int, n: int, alpha: float) -> float:
    if proportion_confint is not None: return proportion_confint(k, n, alpha=2 * alpha, method="beta")[0]
    lower, _ = stats.beta.ppf(alpha, k, n - k + 1), stats.beta.isf(alpha, k + 1, n - k)
    return 0.0 if k == 0 else lower

def seconds(work, repeats: int = 5) -> list[float]:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return times

def report(name: str, times: list[float], against: float | None = None) -> None:
    middle = statistics.median(times)
    ratio = (
        ""
        if against is None
        else f"   {against / middle:8.1f} x faster than the loop ({against / max(times):.1f} to "
             f"{against / min(times):.1f})"
    )
    print(
        f"{name:62s} {1000 * middle:9.1f} ms (from {1000 * min(times):.1f} to {1000 * max(times):.1f}){ratio}",
        flush=True,
    )

def main() -> None:
    warnings.simplefilter("ignore")
    rng, n = np.random.default_rng(0), 100_000
    hits = rng.integers(0, n + 1, 10_000)
    start = time.process_time()
    looped = np.array([confint_lower(int(k), n, 0.001) for k in hits[:1000]])
    loop = (time.process_time() - start) * 10
    print(
        "loop:",
        "statsmodels" if proportion_confint is not None else "scipy.stats.beta, as statsmodels calls it",
        f"{loop:.2f} s for 10,000 bounds (timed on 1000)",
    )
    assert np.allclose(looped, bounds.binomial_lower(hits[:1000], n, 0.001), rtol=1e-9)
    report("10,000 Clopper-Pearson lower bounds", seconds(lambda: bounds.binomial_lower(hits, n, 0.001)), loop)
    report(
        "10,000 two-sided limits (lower and upper)",
        seconds(lambda: (bounds.binomial_lower(hits, n, 0.0005), bounds.binomial_upper(hits, n, 0.0005))),
        loop,
    )

    top = rng.beta(2, 1, 500)
    masses = np.c_[top, rng.dirichlet(np.full(999, 0.05), 500) * (1 - top)[:, None]]
    record = Record.from_counts(
        rng.multinomial(100, masses), rng.multinomial(n, masses), n, Gaussian(sigma=0.5), 150_528
    )
    cohen = seconds(lambda: [confint_lower(int(k), n, 0.001) for k in record.hits], 2)
    report("500 images x 1000 classes: CERTIFY", seconds(lambda: gaussian.certify(record)), min(cohen))
    for name, options in {
        "sound": {},
        "paper, grid of 10": dict(mode="paper"),
        "sound, t from selection": dict(t="selection"),
    }.items():
        report(f"500 images x 1000 classes: T-CERTIFY, {name}", seconds(lambda: tcertify.certify(record, **options), 3))

    looks._plan.cache_clear()
    def boundaries():
        looks._plan.cache_clear()
        return sequential.plan(None, sigma=0.5, alpha=0.001)
    rule = boundaries()
    report(f"boundaries and futility: {len(rule.radii)} radii x {len(rule.looks)} looks", seconds(boundaries))
    counts = np.stack([hits[:1000], n - hits[:1000]], axis=1)
    report("decision for 1000 images at one look", seconds(lambda: rule(counts, np.full(1000, n), np.zeros(1000, int))))

if __name__ == "__main__": main()
