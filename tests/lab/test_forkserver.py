"Kernels that are forked: each is its own, none is left behind, and none runs code that has changed."
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("papermill", reason="needs the extra [repro]")

from robust_smooth.lab import forkserver, reproduce

pytestmark = pytest.mark.skipif(not forkserver._possible(), reason="needs fork and process descriptors (Linux)")

BODY = """
import os, random, time
import numpy as np
import pandas as pd
from robust_smooth.lab import cache, experiment
{more}
run = experiment.Experiment("tiny", dataset="digits", budget="smoke", seed=seed)
row = dict(parent=os.getppid(), pid=os.getpid(), left=getattr(cache, "left_behind", -1), a=random.random(), b=np.random.rand(),
           own=os.getsid(0) == os.getpid(), threads=int(os.environ["OMP_NUM_THREADS"]), extra={extra})
cache.left_behind = seed
run.table(pd.DataFrame([row]))
run.claim("it ran", "", True)
run.finish()
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path


def notebook(folder: Path, more: str = "", extra: str = "0") -> Path:
    import nbformat
    cells = [
        nbformat.v4.new_code_cell("seed = 0", metadata=dict(tags=["parameters"])),
        nbformat.v4.new_code_cell(BODY.format(more=more, extra=extra)),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "tiny.ipynb")
    return folder / "tiny.ipynb"


def swept(home: Path, path: Path, runs: int = 3) -> pd.DataFrame:
    "What runs say of themselves, one after the other."
    done = reproduce.sweep(path, dict(seed=list(range(runs))), out=home / "out", jobs=1, quiet=True)
    assert not done.failed, [report["error"] for report in done.failed]
    return pd.concat([pd.read_csv(task.folder / "table.csv") for task in done.tasks], ignore_index=True)


def gone(pid: int, seconds: float = 10) -> bool:
    "Whether a process ends in time."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_kernels_have_one_parent_and_share_nothing(home, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = swept(home, notebook(home))
    assert found.parent.nunique() == 1 and found.parent[0] != os.getpid()
    assert found.pid.nunique() == 3 and found.own.all()
    assert (found.left == -1).all()
    assert found.a.nunique() == 3 and found.b.nunique() == 3
    assert all(gone(pid) for pid in [found.parent[0], *found.pid])


def test_two_runs_and_kernels_with_threads_start_as_usual(home, monkeypatch):
    path = notebook(home)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert (swept(home, path, runs=2).parent == os.getpid()).all()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    found = swept(home, notebook(home, more="# with threads"))
    assert (found.parent == os.getpid()).all() and (found.threads == 2).all()


def test_code_that_changes_during_a_sweep_is_read_anew(home, monkeypatch):
    (home / "own_code.py").write_text("VALUE = 1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")]))
    more = "from pathlib import Path\nimport own_code"
    path = notebook(home, more=more, extra="(own_code.VALUE, Path(own_code.__file__).write_text(f'VALUE = {seed + 10}'))[0]")
    found = swept(home, path)
    assert found.extra.tolist() == [1, 10, 11]
    assert found.parent[0] != os.getpid() and (found.parent[1:] == os.getpid()).all()


def test_a_server_that_is_killed_costs_a_try(home, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    more = textwrap.dedent(f"""
        if seed == 1 and not os.path.exists({str(home / "killed")!r}):
            open({str(home / "killed")!r}, "w").close()
            os.kill(os.getppid(), 9)
            time.sleep(60)
        """)
    found = swept(home, notebook(home, more=more))
    assert (home / "killed").exists()
    assert found.parent[0] != os.getpid() and (found.parent[1:] == os.getpid()).all()


def test_nothing_outlives_an_owner_that_is_killed(home):
    more = f"open({str(home / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{os.getppid()}} '); time.sleep(60)"
    path = notebook(home, more=more)
    code = f"from robust_smooth import reproduce\nreproduce.sweep({str(path)!r}, dict(seed=[0, 1, 2]), out={str(home)!r}, jobs=1)"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    owner = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (home / "pids").exists() or (home / "pids").read_text().count(" ") < 2:
        assert time.monotonic() < end and owner.poll() is None
        time.sleep(0.1)
    kernel, server = map(int, (home / "pids").read_text().split())
    assert server != owner.pid
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert gone(server) and gone(kernel)
