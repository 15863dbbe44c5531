"Noises are described, loaded and certified in a process in which `import torch` raises."
import os
import subprocess
import sys

import numpy as np
import pytest

import robust_smooth as rs
from robust_smooth.core.record import Record

SCRIPT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch": raise ImportError("torch is not to be had")
sys.meta_path.insert(0, Refuse())
import robust_smooth as rs
noises = [rs.Gaussian(sigma=0.5), rs.Uniform(lam=0.5), rs.RoundedGaussian(sigma=0.5, q=16), rs.RoundedUniform.from_sigma(0.5, q=16),
          rs.Splitting.from_sigma(0.5, q=16), rs.noise.IndependentSplitting(n_splits=9, q=16)]
assert sum(rs.RoundedUniform(lam=0.5, q=16).law()) == 2**120 and rs.Splitting(n_splits=9, q=16).offsets(4).shape == (4,)
for path in sys.argv[1:]:
    record = rs.load(path)
    for norm in (["l1"] if "niform" in repr(record.noise) else ["l2", "l1"]):
        table = record.certify(norm)
        assert rs.check(table).all() and (table.radius > 0).all() and len(table.to_frame()) == 2, (path, norm)
assert "torch" not in sys.modules
print("done")
"""


@pytest.mark.parametrize(
    "noise",
    [
        rs.Gaussian(sigma=0.5),
        rs.Uniform(lam=0.5),
        rs.RoundedGaussian(sigma=0.5, q=16),
        rs.RoundedUniform(lam=0.5, q=16),
    ],
    ids=lambda noise: type(noise).__name__,
)
def test_votes_are_read_and_certified_without_torch(noise, tmp_path, root):
    counts = np.array([[995, 5], [10, 990]])
    path = Record.from_counts(counts // 10, counts, 1000, noise, 16).save(tmp_path / "a.votes")
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ran = subprocess.run([sys.executable, "-c", SCRIPT, path], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.strip() == "done", ran.stderr
