"How runs end that do not end well: stopped, flooded, left early, forged, terminated. Real kernels, tiny notebooks."
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

pytest.importorskip("papermill", reason="needs the extra [repro]")

from robust_smooth.lab import grids, kernels, reproduce, schedulers, tasks

PARAMETERS = "dataset = 'digits'\nbudget = 'smoke'\nseed = 0\ntext = ''"
EXPERIMENT = "from robust_smooth.lab.experiment import Experiment\nrun = Experiment('tiny', globals())"


def notebook(folder, *cells, parameters=PARAMETERS):
    first = nbformat.v4.new_code_cell(parameters, metadata=dict(tags=["parameters"]))
    book = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    path = Path(folder) / "tiny.ipynb"
    nbformat.write(book, path)
    return path


def sweep(home, path, grid=None, **more):
    return reproduce.sweep(path, grid or dict(seed=[0]), out=home / "out", quiet=True, **more)


def test_a_notebook_that_leaves_before_finish_has_failed(home):
    path = notebook(home, EXPERIMENT, "import sys\nif seed == 1: sys.exit(0)", "run.finish()")
    outcome = sweep(home, path, dict(seed=[0, 1]))
    assert [one["status"] for one in outcome.reports] == ["done", "FAILED"]
    assert "before run.finish()" in outcome.reports[1]["error"]
    assert json.loads((outcome.tasks[0].folder / "result.json").read_text())["material"] == "not asked for"


def test_a_notebook_that_leaves_after_finish_is_done(home):
    path = notebook(home, EXPERIMENT, "run.finish()", "import sys\nsys.exit(0)")
    assert sweep(home, path).reports[0]["status"] == "done"


def test_a_hanging_notebook_is_stopped_at_its_limit_and_not_tried_again(home):
    path = notebook(home, "import time\nif seed == 1: time.sleep(600)")
    outcome = sweep(home, path, dict(seed=[0, 1]), limit=15, jobs=2)
    assert [one["status"] for one in outcome.reports] == ["done", "FAILED"]
    assert "longer than the limit of 15 s" in outcome.reports[1]["error"]
    assert not kernels._KERNELS
    with pytest.raises(ValueError, match="limit"): sweep(home, path, limit=-1)


def test_a_suspended_worker_keeps_its_run_no_longer_than_the_limit_and_no_other(home, monkeypatch):
    "SIGSTOP: the process that would keep the limit sleeps itself, and holds the lock of its run."
    pytest.importorskip("distributed", reason="needs the extra [cluster]")
    monkeypatch.setattr(schedulers, "PATIENCE", 5.0)
    path = notebook(
        home,
        EXPERIMENT,
        "import os, signal, time\nif seed == 0: os.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(2)",
        "run.finish()",
    )
    # on a busy machine a kernel needs half of it
    outcome = sweep(home, path, dict(seed=list(range(6))), limit=60, jobs=2, scheduler="local")
    assert [one["status"] for one in outcome.reports] == ["FAILED"] + ["done"] * 5
    assert "longer than the limit of 60 s, and whoever makes it does not end it" in outcome.reports[0]["error"]
    assert outcome.reports[0]["seconds"] >= 65
    again = sweep(home, path, dict(seed=list(range(1, 6))), jobs=2)
    assert [one["status"] for one in again.reports] == ["cached"] * 5


def test_a_flood_of_output_has_its_own_sentence(home, monkeypatch):
    from nbclient.exceptions import CellTimeoutError
    import papermill
    def flooded(*args, **more): raise CellTimeoutError("Timeout waiting for IOPub output.")
    monkeypatch.setattr(papermill, "execute_notebook", flooded)
    report = sweep(home, notebook(home, "pass")).reports[0]
    assert (
        report["status"] == "FAILED"
        and "printed more than a notebook can hold" in report["error"]
        and "space" not in report["error"]
    )


FORGED = """
import json, os, pathlib
facts = dict(claims=["x", 7, dict(claim="\\ud800", evidence=[1])], tables=["../../../secret", 7], figures="figure",
             values=dict(status="fine", experiment="other", a=[1, 2], b="\\ud800", c=3), budget=[1], provenance="none", parameters=7)
pathlib.Path(os.environ["ROBUST_SMOOTH_RUN"], "finished.json").write_text(json.dumps(facts if seed else [1, 2]))
pathlib.Path(os.environ["ROBUST_SMOOTH_RUN"], "table.csv").write_bytes(b"" if seed else b"\\xff\\xfe,\\n1")
"""


def test_a_forged_file_does_not_kill_the_summary(home):
    outcome = sweep(home, notebook(home, FORGED), dict(seed=[0, 1]))
    assert [one["status"] for one in outcome.reports] == ["done", "done"], outcome
    table = pd.read_csv(home / "out" / "summary.csv")
    assert (
        table.status.tolist() == ["finished"] * 2
        and table.experiment.tolist() == ["tiny"] * 2
        and table.c.tolist()[1] == 3
    )
    assert len(outcome.claims()) == 1 and "tiny" in repr(outcome.frame()) and repr(outcome)
    assert json.loads((outcome.tasks[1].folder / "result.json").read_text())["tables"] == []


@pytest.mark.parametrize("text", ["\ud800", "fine\udfff"])
def test_half_a_character_is_refused_before_anything_runs(home, text):
    with pytest.raises(ValueError, match="UTF-8"): tasks.make_task(notebook(home, "pass"), dict(text=text), out=home)


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := condition()): return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def sockets(folder): return list(Path(folder).glob("rs-*"))


def start(home, path, **more):
    "A sweep of the command line in a process of its own, with a folder of its own for sockets."
    (home / "grid.yaml").write_text(f"experiment: {path}\ngrid: {{seed: [0]}}\n")
    # in /tmp: names of sockets are short
    temporary = tempfile.mkdtemp(prefix="t")
    command = [sys.executable, "-m", "robust_smooth.cli", "sweep", str(home / "grid.yaml"), "--out", str(home / "out")]
    process = subprocess.Popen(
        command, env={**os.environ, "TMPDIR": temporary}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process, temporary


SLOW = (
    "import os, pathlib, time\npathlib.Path(os.environ['ROBUST_SMOOTH_HOME'], "
    "'pid').write_text(str(os.getpid()))\ntime.sleep(600)"
)


def alive(pid):
    try: return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError: return False


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_sigterm_comes_to_a_clean_end_with_a_sentence(home):
    process, temporary = start(home, notebook(home, SLOW))
    pid = int(wait_for(lambda: (home / "home" / "pid").exists() and (home / "home" / "pid").read_text()))
    assert sockets(temporary)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "terminated; what was finished is kept" in said and "Traceback" not in said, (
        said
    )
    assert not sockets(temporary) and wait_for(lambda: not alive(pid), 20)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_what_a_killed_sweep_leaves_is_removed_by_the_next(home):
    process, temporary = start(home, notebook(home, SLOW))
    wait_for(lambda: (home / "home" / "pid").exists() and (home / "home" / "pid").read_text())
    process.kill()
    process.communicate()
    left = sockets(temporary)
    assert left
    code = "from robust_smooth.lab import schedulers\nschedulers.drive([])"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": temporary}, check=True, timeout=60)
    assert not sockets(temporary)


def test_a_local_cluster_is_for_its_owner_only(home):
    distributed = pytest.importorskip("distributed", reason="needs the extra [cluster]")
    pytest.importorskip("cryptography", reason="needs the extra [cluster]")
    cluster = schedulers._local_cluster(1)
    try:
        assert cluster.scheduler_address.startswith("tls://")
        with distributed.Client(cluster) as client: assert client.submit(sum, [1, 2]).result(timeout=30) == 3
        for address in (cluster.scheduler_address, cluster.scheduler_address.replace("tls://", "tcp://")):
            with pytest.raises((OSError, TimeoutError, ValueError, TypeError)):
                distributed.Client(address, timeout="3s")
    finally:
        cluster.close()


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    "text, said",
    [
        (BOMB, "aliases"),
        ("experiment: tiny\nparameters: [1]", "map names to values"),
        ("experiment: tiny\nparameters: 7", "map names to values"),
        ("experiment: tiny\nparameters: {<<: {seed: 1}}", "merge keys"),
        ("experiment: tiny\ngrid: {seed: [1e999]}", "too large"),
        ("experiment: tiny\n? [1]\n: 2", "must be a word"),
        ("experiment: tiny\ngrid: 7", "map names to values"),
    ],
)
def test_grids_that_are_refused_say_why(home, text, said):
    (home / "grid.yaml").write_text(text)
    with pytest.raises(ValueError, match=said): grids.read_grid(home / "grid.yaml")


def test_long_digits_are_read_in_one_pass(home):
    "A pattern that backtracks takes more steps than there are atoms; one that does not is done at once. No clock: the process is given ten seconds."
    (home / "grid.yaml").write_text(f"experiment: tiny\ngrid: {{text: [{'9' * 50_000}x, {'1_' * 25_000}y]}}\n")
    code = (
        "from robust_smooth.lab.grids import "
        f"read_grid\nprint(len(read_grid({str(home / 'grid.yaml')!r})[0]['grid']['text'][0]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "50001", done.stderr


def test_a_notebook_reads_its_parameters_from_its_own_cell(home):
    body = (
        "import json, os, pathlib\npathlib.Path(os.environ['ROBUST_SMOOTH_RUN'], "
        "'said.json').write_text(json.dumps(run.parameters))"
    )
    path = notebook(home, EXPERIMENT, body, "run.finish()", parameters=PARAMETERS + "\nlevels = [1.0]")
    outcome = sweep(home, path, dict(seed=[3]), parameters=dict(levels=[2.0]))
    assert outcome.reports[0]["status"] == "done", outcome
    said = json.loads((outcome.tasks[0].folder / "said.json").read_text())
    assert (said["seed"], said["levels"], said["text"], said["budget"]) == (3, [2.0], "", "smoke")
