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
    installed = home / "site-packages"
    installed.mkdir()
    (installed / "own_code.py").write_text("VALUE = 1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")]))
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


@pytest.fixture
def ask(tmp_path, monkeypatch):
    "Ask a server that imports a module of some code for a kernel; what came of it, and the server's status at its end."
    installed = tmp_path / "site-packages"
    installed.mkdir()

    def asked(code: str = "", before=lambda server: None) -> tuple[bool, int]:
        (installed / "installed_code.py").write_text(code)
        environment = {**os.environ, "OMP_NUM_THREADS": "1",
                       "PYTHONPATH": os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])}
        server = forkserver.ForkServer([])
        server.modules = ["installed_code"]
        before(server)
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", str(tmp_path / "kernel.json")]
        kernel = server.kernel(command, environment, str(tmp_path))
        if kernel is not None:
            kernel.kill()
            kernel.wait(10)
        server.close()
        return kernel is not None, server.process.returncode
    return asked


@pytest.mark.parametrize("code", ["print(1)", "import os; os.write(2, b'x')", "raise ValueError", "import sys; sys.exit(1)"])
def test_an_import_that_fails_or_says_something_is_left_to_the_kernels(ask, code, capfd):
    assert not ask(code)[0]
    assert capfd.readouterr() == ("", "")


def test_an_import_sees_how_its_processes_end(ask):
    assert ask("import subprocess; assert subprocess.run(['false']).returncode == 1")[0]


def test_a_server_ends_though_an_import_has_begun_a_thread(ask):
    assert ask("import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()") == (False, 0)


def test_a_server_that_hangs_is_given_up(ask, monkeypatch):
    monkeypatch.setattr(forkserver, "_PATIENCE", 1.0)
    assert ask("import time; time.sleep(600)") == (False, -signal.SIGKILL)


def test_a_kernel_that_cannot_be_watched_is_ended(ask, monkeypatch):
    begun = []

    def full(pid):
        begun.append(pid)
        raise OSError(24, "Too many open files")
    assert not ask(before=lambda server: monkeypatch.setattr(os, "pidfd_open", full))[0]
    assert len(begun) == 1 and gone(begun[0])


def test_a_server_without_processes_left_says_so(monkeypatch):
    import socket

    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")
    monkeypatch.setattr(forkserver, "_may_fork", lambda files: True)
    monkeypatch.setattr(os, "fork", fork)
    ours, theirs = socket.socketpair()
    ours.sendall(b"{}\n")
    ours.shutdown(socket.SHUT_WR)
    with ours, theirs:
        assert forkserver._serve(theirs) is None
        assert ours.recv(10) == b"null\n"


def test_a_module_beside_the_notebook_hides_an_installed_one_and_own_modules_see_their_run(home, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (home / "seaborn.py").write_text("import os, random\nRUN = os.path.isdir(os.environ.get('ROBUST_SMOOTH_RUN', ''))")
    found = swept(home, notebook(home, more="import seaborn", extra="seaborn.RUN"))
    assert found.parent[0] != os.getpid() and (found.extra == True).all() # noqa: E712


def test_copies_draw_seeds_of_their_own_and_loggers_reach_the_notebook(home, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    more = "import logging\nimport torch\nlogging.getLogger('torch').warning('heard')"
    path = notebook(home, more=more, extra="torch.rand(1).item()")
    done = reproduce.sweep(path, dict(seed=[0, 1, 2]), out=home / "out", jobs=1, quiet=True)
    found = pd.concat([pd.read_csv(task.folder / "table.csv") for task in done.tasks])
    assert found.parent.nunique() == 1 and found.extra.nunique() == 3
    assert all("heard" in (task.folder / "notebook.ipynb").read_text() for task in done.tasks)


@pytest.mark.parametrize(
    "cells",
    [
        ["import sys\nsys.path.insert(0, 'mine')\nimport seaborn"],
        ["import os", "os.environ['MPLBACKEND'] = 'agg'", "import sys, seaborn"],
        ["import sys, json", "%env MPLBACKEND=agg", "import seaborn"],
        ["import sys\nimport beside\nimport seaborn"],
        ["import sys\nfrom . import beside\nimport seaborn"],
        ["import sys\nimport own_code\nimport seaborn"],
        ["import sys\nn: int = len('a')\nimport seaborn"],
    ],
)
def test_what_a_notebook_does_first_may_decide_what_it_imports(cells, tmp_path, monkeypatch):
    "A folder that a notebook puts in front of the path, and variables that it sets, came after the imports of the server."
    import nbformat
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own_code.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "mine")
    sources = ["'A text.'", "seed = -1; sigmas = [0.5]", "import os, sys, json\nimport robust_smooth.core", "n: int = 3", "import seaborn"]
    places = []
    for name, texts in (("plain", sources), ("one", cells)):
        written = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in texts])
        nbformat.write(written, tmp_path / f"{name}.ipynb")
        places.append(tmp_path / f"{name}.ipynb")
    assert forkserver.common_imports(places[:1]) == ["json", "os", "robust_smooth.core", "seaborn", "sys"]
    assert "seaborn" not in forkserver.common_imports(places[1:])
    assert not {"seaborn", "robust_smooth.core"} & set(forkserver.common_imports(places))


def test_a_kernel_that_is_ended_takes_along_what_it_started():
    "Processes of a run that was interrupted, or over its limit, went on computing."
    from robust_smooth.lab import kernels
    with subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True) as kernel:
        child = int(kernel.stdout.readline())
        kernels._KERNELS["/no/run"] = kernel.pid
        try:
            kernels.kill_kernels("/no/run")
        finally:
            del kernels._KERNELS["/no/run"]
        assert kernel.wait(5) == -signal.SIGKILL and gone(child)


def test_a_limit_that_falls_before_a_kernel_starts_ends_it():
    from robust_smooth.lab import kernels
    with kernels._time_limit(Path("/no/run"), 0.05) as over:
        over.wait(5)
        process = subprocess.Popen(["sleep", "60"])
        kernels._KERNELS["/no/run"] = process.pid
        assert process.wait(5) == -signal.SIGKILL
    del kernels._KERNELS["/no/run"]
