"Stored votes are read, certified, shown and checked in a process that cannot import torch."
import json
import os
import subprocess
import sys

import pytest

from robust_smooth import testing
from robust_smooth.core.registry import load_methods, method_named

PROGRAM = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError(f"{name} is absent here")

sys.meta_path.insert(0, Absent())
import robust_smooth as rs
path, method, norm = sys.argv[1:]
record = rs.load(path)
table = record.certify(norm, method=method, alpha=0.01)
frame = table.to_frame()
print(json.dumps(dict(rows=len(frame), checked=bool(rs.check(table).all()), method=table.method, torch="torch" in sys.modules)))
"""


def sampled():
    "One pair of each sampled method: the first noise that it certifies, and a norm."
    for name in sorted(load_methods()):
        method = method_named(name)
        if not method.deterministic:
            noise, norm = sorted(method.pairs)[0]
            yield testing.Case(name, noise, norm, n=1000, rows=3)


@pytest.mark.parametrize("case", sampled(), ids=str)
def test_load_certify_show_and_check(case, tmp_path):
    path = case.votes.save(tmp_path / "some.votes")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), case.method, case.norm],
        capture_output=True, text=True, timeout=300, env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == dict(rows=3, checked=True, method=case.table.method, torch=False)


def test_a_default_certificate_is_found_without_torch(tmp_path):
    "Without a name, only what fits is loaded."
    case = testing.Case("gaussian", "Gaussian", "l2", n=1000, rows=3)
    path = case.votes.save(tmp_path / "some.votes")
    program = PROGRAM.replace("method=method, ", "")
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), "", "l2"],
        capture_output=True, text=True, timeout=300, env=dict(os.environ),
    )
    assert done.returncode == 0 and json.loads(done.stdout.splitlines()[-1])["checked"], done.stderr[-2000:]
