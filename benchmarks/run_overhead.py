"""Seconds that a run costs beyond its cells: starting a kernel, writing the notebook, keeping the run.

    python benchmarks/run_overhead.py [runs]

Target: at most three seconds on an idle machine. It depends on the load, so it is measured here and not tested.
"""
from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
import pandas as pd

TARGET = 3.0 # seconds
BODY = "from robust_smooth.lab.experiment import Experiment\nrun = Experiment('tiny', globals())\nrun.finish()"


def tiny(folder: str) -> Path:
    "A notebook that does nothing."
    parameters = nbformat.v4.new_code_cell(
        "dataset = 'digits'\nbudget = 'smoke'\nseed = 0", metadata=dict(tags=["parameters"])
    )
    path = Path(folder, "tiny.ipynb")
    nbformat.write(nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(BODY)]), path)
    return path


def main(runs: int = 5) -> None:
    from robust_smooth.lab import reproduce
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ROBUST_SMOOTH_HOME"] = folder
        outcome = reproduce.sweep(
            tiny(folder), dict(seed=list(range(runs))), out=Path(folder, "out"), jobs=1, quiet=True
        )
    seconds = pd.Series([report["overhead"] for report in outcome.reports])
    print(
        f"{runs} runs, load {os.getloadavg()[0]:.1f}: overhead {seconds.median():.2f} s (median), "
        f"{seconds.min():.2f} to {seconds.max():.2f} s; target {TARGET:g} s"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
