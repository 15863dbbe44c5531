"Sweeps with real processes: killed workers, kernels and drivers, two sweeps at once, hostile values. The notebook is tiny and imports no torch."
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

pytest.importorskip("papermill", reason="needs the extra [repro]")

from robust_smooth.lab import reproduce
from robust_smooth.lab import experiment
from robust_smooth.lab import cache
from robust_smooth.lab import schedulers
from robust_smooth.lab import grids
from robust_smooth.lab import notebooks
from robust_smooth.lab import tasks
from robust_smooth.lab import kernels

ROOT = Path(reproduce.__file__).resolve().parents[2]
BODY = """
import os, time
import pandas as pd
from pathlib import Path
from types import SimpleNamespace
from robust_smooth.lab import cache, experiment
run = experiment.Experiment("tiny", dataset=dataset, budget=budget, seed=seed)
def train(part):
    with open(Path(os.environ["ROBUST_SMOOTH_HOME"]) / "trained.log", "a") as log: log.write(f"{sigma}\\n")
    time.sleep(pause)
    part.write_text(str(1 / sigma))
cache.cached(cache.home() / "nets" / f"{sigma}.txt", train)
if (flag := os.environ.get("TINY_PIDS")): Path(flag, f"kernel-{sigma}-{seed}").write_text(f"{os.getpid()} {os.getppid()}")
time.sleep(pause)
weight = float((cache.home() / "nets" / f"{sigma}.txt").read_text())
run.table(pd.DataFrame(dict(radius=[0.0, 0.5], value=[weight + seed, sigma / 3])))
run.value("weight", weight)
run.claim("weights are positive", f"{weight}", weight > 0)
run.finish()
"""
PARAMETERS = "dataset = 'digits'\nbudget = 'smoke'\nsigma = 0.5\nseed = 0\npause = 0.0\ntext = ''"


def notebook(folder, body=BODY, parameters=PARAMETERS, name="tiny"):
    import nbformat
    cells = [
        nbformat.v4.new_code_cell(parameters, metadata=dict(tags=["parameters"])),
        *(nbformat.v4.new_code_cell(part) for part in body.split("\n---\n")),
    ]
    for number, cell in enumerate(cells): cell["id"] = f"cell{number}"
    path = Path(folder) / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def driver(home, path, grid, out, scheduler=None, jobs=2, **env):
    "A sweep in a process of its own."
    code = textwrap.dedent(f"""
        from robust_smooth import reproduce
        if __name__ == "__main__":
            outcome = reproduce.sweep({str(path)!r}, {grid!r}, scheduler={scheduler!r}, out={str(out)!r}, jobs={jobs}, quiet=True)
            raise SystemExit(1 if outcome.failed else 0)
        """)
    script = home / f"drive-{len(list(home.glob('drive-*')))}.py"
    script.write_text(code)
    return subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, **env}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := condition()): return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def files(out): return {name: (Path(out) / name).read_bytes() for name in ("summary.csv", "summary.md")}


def trained(home): return (home / "home" / "trained.log").read_text().split()


def test_twelve_runs_on_two_local_workers_with_a_killed_worker_and_a_killed_kernel(home):
    pytest.importorskip("distributed", reason="needs the extra [cluster]")
    grid, path, pids = dict(sigma=[0.25, 0.5, 1.0], seed=[0, 1, 2, 3], pause=[0.2]), notebook(home), home / "pids"
    pids.mkdir()
    process = driver(home, path, grid, home / "rough", scheduler="local", TINY_PIDS=str(pids))
    seen = lambda: sorted(
        tuple(map(int, text.split())) for p in pids.glob("kernel-*") if (text := p.read_text()).count(" ") == 1
    )  # kernel, worker
    kernel, _ = wait_for(seen)[0]
    os.kill(kernel, signal.SIGKILL)
    _, worker = wait_for(lambda: [pair for pair in seen() if pair[0] != kernel])[0]
    os.kill(worker, signal.SIGKILL)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output.decode()
    rough = trained(home)
    # each network once, or again where its trainer was killed
    assert {"0.25", "0.5", "1.0"} == set(rough) and len(rough) <= 5
    calm = reproduce.sweep(path, grid, out=home / "calm", jobs=2, quiet=True)
    assert [r["status"] for r in calm.reports] == ["done"] * 12 and trained(home) == rough
    assert files(home / "rough") == files(home / "calm")
    assert len(pd.read_csv(home / "rough" / "summary.csv")) == 24


def test_a_sweep_killed_as_a_whole_resumes_and_ends_with_the_same_bytes(home):
    grid, path = dict(sigma=[0.25, 0.5], seed=[0, 1], pause=[0.3]), notebook(home)
    process = driver(home, path, grid, home / "rough", jobs=1)
    wait_for(lambda: list((home / "rough").glob("runs/tiny/*/result.json")))
    finished = {p: p.stat().st_mtime_ns for p in (home / "rough").glob("runs/tiny/*/result.json")}
    # without a word; its kernel ends when it finds its parent gone
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (home / "rough" / "summary.csv").exists()
    again = driver(home, path, grid, home / "rough")
    assert again.wait(timeout=200) == 0
    assert all(p.stat().st_mtime_ns == then for p, then in finished.items())     # what was finished was not made again
    assert not list((home / "rough").glob("runs/tiny/*.tmp-*")) and len(trained(home)) <= 3
    calm = driver(home, path, grid, home / "calm", ROBUST_SMOOTH_HOME=str(home / "other"))
    assert calm.wait(timeout=200) == 0
    assert files(home / "rough") == files(home / "calm")


def test_a_scheduler_that_is_killed_loses_nothing_finished(home):
    pytest.importorskip("distributed", reason="needs the extra [cluster]")
    grid, path, where = dict(seed=[0, 1, 2, 3], pause=[0.5]), notebook(home), home / "scheduler.json"
    start = lambda *words: subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    scheduler = start(
        "distributed.cli.dask_scheduler",
        "--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(where),
    )
    worker = start(
        "distributed.cli.dask_worker", "--scheduler-file", str(where), "--nthreads", "1",
        "--no-dashboard", "--no-nanny", "--memory-limit", "0",
    )
    try:
        address = wait_for(lambda: where.exists() and where.read_text() and json.loads(where.read_text())["address"])
        process = driver(
            home, path, grid, home / "out", scheduler=address, DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="3s"
        )
        finished = wait_for(lambda: list((home / "out").glob("runs/tiny/*/result.json")), 120)
        scheduler.kill()
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1 and b"the dask scheduler is gone; finished runs are kept" in output, (
            output.decode()
        )
    finally:
        for child in (scheduler, worker): child.kill(); child.wait()
    kept = {p: p.stat().st_mtime_ns for p in finished}
    again = reproduce.sweep(path, grid, out=home / "out", jobs=2, quiet=True)
    assert (
        not again.failed and all(p.stat().st_mtime_ns == then for p, then in kept.items()) and len(again.table()) == 8
    )


def test_helpers_share_the_work_of_a_run_and_leave_nothing(home):
    outcome = schedulers.drive(
        [task := tasks.make_task(notebook(home), dict(pause=0.2), out=home / "out")], jobs=2, shards=2, quiet=True
    )
    assert outcome[0]["status"] == "done" and task.done and trained(home) == ["0.5"]
    wait_for(lambda: sorted(p.name for p in task.folder.parent.iterdir() if not p.name.endswith(".lock")) == [task.key])


def test_two_sweeps_into_one_folder_share_the_work(home):
    grid = dict(sigma=[0.25, 0.5], seed=[0, 1], pause=[0.3])
    path = notebook(home)
    pair = [driver(home, path, grid, home / "out") for _ in range(2)]
    assert [p.wait(timeout=200) for p in pair] == [0, 0]
    assert sorted(trained(home)) == ["0.25", "0.5"]             # no network twice
    table = pd.read_csv(home / "out" / "summary.csv")
    assert len(table) == 8 and (table.status == "finished").all()
    assert len(list((home / "out").glob("runs/tiny/*/result.json"))) == 4
    assert not list((home / "out").glob("runs/tiny/*.tmp-*"))


def test_a_dead_kernel_is_tried_again_and_a_failure_is_named_while_others_go_on(home):
    body = (
        "import os, pathlib\nseen = pathlib.Path(os.environ['ROBUST_SMOOTH_HOME']) / f'seen-{sigma}'\nfresh = not "
        "seen.exists()\nseen.write_text('x')\n"
        "if sigma == 1.0 and fresh: os._exit(9)\nif sigma == 2.0: os._exit(9)\nassert sigma != 3.0, 'three is refused'"
    )
    outcome = reproduce.sweep(
        notebook(home, body), dict(sigma=[0.5, 1.0, 2.0, 3.0]), out=home / "out", jobs=2, retries=1, quiet=True
    )
    assert [r["status"] for r in outcome.reports] == ["done", "done", "FAILED", "FAILED"]
    assert "kernel died" in outcome.reports[2]["error"] and "three is refused" in outcome.reports[3]["error"]
    for report in outcome.reports[2:]: assert Path(report["notebook"]).is_file() and report["notebook"] in repr(outcome)
    assert "2 done, 0 cached, 2 FAILED" in repr(outcome)
    again = reproduce.sweep(home / "tiny.ipynb", dict(sigma=[0.5, 1.0]), out=home / "out", quiet=True)
    assert [r["status"] for r in again.reports] == ["cached", "cached"]


HOSTILE = [
    '"; import os; os._exit(3) #',
    "'; raise SystemExit #",
    "\\", '\\"', '"""', "'''", "{x}", "{{1/0}}", "\n1/0\n", "\r\n1/0", "\u2028import os",
    "$(touch pwned)", "`id`", "%%bash\nls", "!ls", "\x00\x1b[2J",
]


def test_what_changed_since_a_run_was_planned_is_not_kept_under_its_key(home, monkeypatch):
    "A worker of dask in another checkout made runs by its own code, and they were handed out as the sweep's from then on."
    path = notebook(home, "assert seed >= 0")
    planned = [tasks.make_task(path, dict(seed=seed), out=home / "runs") for seed in (0, 1)]
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(tasks, "_code_version", lambda sources: "that of another checkout")
        for helper in (None, (1, 2)):
            report = kernels.execute(planned[0], helper=helper)
            assert report["status"] == "FAILED" and "not made here: the package" in report["error"]
        [report] = schedulers.drive(planned[:1], quiet=True)
        assert report["status"] == "FAILED" and not planned[0].done
    assert kernels.execute(planned[0])["status"] == "done"
    notebook(home, "assert seed >= 1")
    assert kernels.execute(planned[0])["status"] == "cached"
    assert "the notebook" in kernels.execute(planned[1])["error"] and not planned[1].done
    path.unlink()
    assert "the notebook" in kernels.execute(planned[1])["error"]


def test_a_run_that_one_worker_refuses_is_made_by_another(home):
    "Runs that came to a worker in another checkout failed, though the other workers could make them."
    pytest.importorskip("distributed", reason="needs the extra [cluster]")
    where, path = home / "scheduler.json", notebook(home, "import time; time.sleep(0.3)")
    (home / "foreign.py").write_text(
        "from robust_smooth.lab import tasks\ntasks._code_version = lambda sources: 'that of another checkout'\n"
    )
    start = lambda *words: subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    common = ("--scheduler-file", str(where), "--nthreads", "1", "--no-dashboard", "--no-nanny", "--memory-limit", "0")
    processes = [start("distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard",
                       "--scheduler-file", str(where))]
    try:
        address = wait_for(lambda: where.exists() and where.read_text() and json.loads(where.read_text())["address"])
        processes.append(start("distributed.cli.dask_worker", *common, "--preload", str(home / "foreign.py")))
        from distributed import Client
        with Client(address) as client:
            client.wait_for_workers(1, timeout=60)
            planned = [tasks.make_task(path, dict(seed=seed), out=home / "runs") for seed in range(3)]
            [report] = schedulers.drive(planned[:1], scheduler=address, quiet=True)
            assert report["status"] == "FAILED" and "not made here: the package" in report["error"]
            processes.append(start("distributed.cli.dask_worker", *common))
            client.wait_for_workers(2, timeout=60)
            reports = schedulers.drive(planned, scheduler=address, quiet=True)
        assert [report["status"] for report in reports] == ["done"] * 3, [report["error"] for report in reports]
    finally:
        for child in processes: child.kill(); child.wait()


def test_a_run_whose_workers_have_left_may_go_to_any():
    "A run that may go to one worker only would wait for ever when that one is gone."
    from concurrent.futures import Future
    from types import SimpleNamespace
    pool, job, task = object.__new__(schedulers._Dask), Future(), SimpleNamespace(key="k", experiment="tiny")
    job.key = "job"
    asked, workers = [], dict(a=1, b=1)
    pool.client = SimpleNamespace(nthreads=lambda: workers, who_has=lambda jobs: {"job": ("a",)},
                                  submit=lambda *_, workers=None, **__: asked.append(workers) or job)
    pool.refused, pool.bound, pool.stranded, pool.limit = {}, {}, set(), None
    pool.submit(task, 0, None, 1)
    assert pool.elsewhere(task, job) and pool.refused == {"k": {"a"}}
    pool.submit(task, 0, None, 1)
    assert asked == [None, ["b"]] and pool.ready([job], 0.0) == []
    del workers["b"]
    assert pool.ready([job], 0.0) == [job]
    with pytest.raises(kernels.DeadKernel, match="have left"):
        pool.result(job)
    pool.submit(task, 1, None, 1)
    assert asked[-1] is None and not pool.bound and not pool.elsewhere(task, job)


def test_no_string_in_a_grid_becomes_code(home):
    body = (
        "import json, os, pathlib\n(pathlib.Path(os.environ['ROBUST_SMOOTH_RUN']) / "
        "'said.json').write_text(json.dumps(text))"
    )
    path = notebook(home, body)
    made = [tasks.make_task(path, dict(text=text), out=home / "out") for text in HOSTILE[:3]]
    reports = schedulers.drive(made, jobs=2, quiet=True)
    assert [r["status"] for r in reports] == ["done"] * 3
    assert [json.loads((t.folder / "said.json").read_text()) for t in made] == HOSTILE[:3]
    # the injected cell of each reads back as the same string
    for text in HOSTILE:
        made = kernels._with_parameters(str(path), dict(text=text))
        scope = {}
        exec(
            next(c.source for c in made.cells if "injected-parameters" in c.metadata.tags), {"__builtins__": {}}, scope
        )
        assert scope == dict(text=text)


@pytest.mark.parametrize(
    "value, said",
    [
        ({1, 2}, "plain data"), (object(), "plain data"), (float("nan"), "finite"),
        (b"x", "plain data"), (lambda: 0, "plain data"), ({1: 2}, "text keys"),
    ],
)
def test_only_plain_data_is_a_parameter(home, value, said):
    path = notebook(home, parameters="value = None")
    with pytest.raises(ValueError, match=said): tasks.make_task(path, dict(value=value), out=home)


def test_a_name_is_not_code_either(home):
    path = notebook(home)
    with pytest.raises(ValueError, match="no parameter"): tasks.make_task(path, {"sigma; import os": 1})
    with pytest.raises(ValueError, match="unknown"): tasks.make_task("../../etc/passwd", {})


@pytest.mark.parametrize(
    "text, said",
    [
        ("experiment: tiny\ngrid: {seed: [007]}", "octal"),
        ("experiment: tiny\ngrid: {text: [no]}", "quotes"),
        ("experiment: tiny\ngrid: {text: [2026-01-01]}", None),
        ("experiment: tiny\ngrid: {sigma: ['1e-3']}", "looks like a number"),
        ("experiment: tiny\ngrid: {sigma: [1e-3]}", None),
        ("experiment: tiny\ngrid: {sigma: [1:30]}", "text"),
        ("experiment: tiny\ngrid: {text: [7]}", "quotes"),
        ("experiment: tiny\ngrid: {sigma: []}", "alternatives"),
        ("experiment: nothere\ngrid: {sigma: [1]}", "unknown"),
        ("experiment: tiny\nsigma: [1]", "must hold"),
        ("- 1\n- 2", "must hold"),
        ("experiment: tiny\ngrid: {seed: [0.5]}", "whole number"),
        ("experiment: tiny\ngrid: {sigma: [true]}", "true/false"),
        ("experiment: !!python/object/apply:os.system ['touch pwned']\ngrid: {}", "not YAML"),
        ("a: *b", "aliases"),
    ],
)
def test_yaml_traps(home, monkeypatch, text, said):
    path = notebook(home)
    monkeypatch.setattr(
        notebooks, "assets", lambda kind: path.parent if kind == "experiments" else ROOT / "data" / "papers"
    )
    (home / "grid.yaml").write_text(text)
    plan = lambda: reproduce.sweep(grids.read_grid(home / "grid.yaml"), out=home / "out", dry_run=True)
    if said is None: assert len(plan()) == 1
    else:
        with pytest.raises(ValueError, match=said): plan()
    assert not (home / "pwned").exists() and not Path("pwned").exists()


def test_1e_3_in_yaml_is_the_number(home):
    (home / "grid.yaml").write_text(
        "experiment: tiny\ngrid:\n  sigma: [1e-3, 1.0E+2, -.5, 1_000, 12]\n  text: ['007', \"no\", 1e-3x, 1:30]"
    )
    assert grids.read_grid(home / "grid.yaml")[0]["grid"] == dict(
        sigma=[0.001, 100.0, -0.5, 1000, 12], text=["007", "no", "1e-3x", "1:30"]
    )


def test_an_unwritable_folder_is_said_before_anything_runs(home):
    (home / "file").write_text("")
    with pytest.raises(OSError, match="cannot write into"):
        reproduce.sweep(notebook(home), dict(seed=[0]), out=home / "file" / "below", quiet=True)


def test_a_full_disk_is_said_and_loses_nothing_finished(home):
    "A limit on file sizes stands in for a full disk: the second run writes too much."
    body = (
        BODY + "\n---\nPath(os.environ['ROBUST_SMOOTH_RUN'], 'big.bin').write_bytes(b'x' * (200_000 if seed else 10))"
    )
    code = textwrap.dedent(f"""
        import resource, signal
        from robust_smooth import reproduce
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        outcome = reproduce.sweep({str(notebook(home, body))!r}, dict(seed=[0, 1]), out={str(home / "out")!r}, quiet=True)
        print([r["status"] for r in outcome.reports], outcome.reports[1]["error"])
        """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "['done', 'FAILED']" in done.stdout and "File too large" in done.stdout, done.stdout + done.stderr
    assert len(list((home / "out").glob("runs/tiny/*/result.json"))) == 1
    assert pd.read_csv(home / "out" / "summary.csv").status.tolist() == ["finished", "finished", "FAILED"]


def test_a_summary_that_cannot_be_written_says_so(home, monkeypatch):
    import errno
    path = notebook(home)
    def full(*args, **more): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(reproduce.results, "save", full)
    with pytest.raises(OSError, match="No space left on device.*finished runs are kept"):
        reproduce.sweep(path, dict(seed=[0]), out=home / "out", quiet=True)
    monkeypatch.undo()
    os.environ["ROBUST_SMOOTH_HOME"] = str(home / "home")
    try:
        assert [r["status"] for r in reproduce.sweep(path, dict(seed=[0]), out=home / "out", quiet=True).reports] == [
            "cached"
        ]
    finally:
        del os.environ["ROBUST_SMOOTH_HOME"]


def test_dry_run_says_what_would_run_and_how_long(home):
    path = notebook(home)
    reproduce.sweep(path, dict(seed=[0]), out=home / "out", quiet=True)
    plan = reproduce.sweep(path, dict(seed=[0, 1, 2]), out=home / "out", dry_run=True)
    assert (
        plan.state.tolist() == ["cached", "to run", "to run"]
        and plan.attrs["to_run"] == 2
        and plan.attrs["unknown"] == 0
        and plan.attrs["seconds"] > 0
    )
    assert len(list((home / "out").glob("runs/tiny/*/result.json"))) == 1


def test_the_same_run_asked_for_twice_is_made_once_and_counted_as_cached(home):
    outcome = reproduce.sweep(
        notebook(home), [dict(seed=0), dict(seed=0), dict(seed=0, text="")], out=home / "out", quiet=True
    )
    assert [r["status"] for r in outcome.reports] == ["done", "cached", "cached"] and trained(home) == ["0.5"]
    table = pd.read_csv(home / "out" / "summary.csv") # its two rows stood there three times, as if it had been repeated
    assert len(table) == len(outcome.table()) == 2 and len(outcome.claims()) == 1
    assert len(json.loads((home / "out" / "last_run.json").read_text())["runs"]) == 1


def test_a_preview_shows_whole_numbers_as_such_and_leaves_blank_what_a_run_does_not_say(home, capsys):
    from robust_smooth import cli
    entries = [{"experiment": str(notebook(home)), "grid": {"seed": [0, 0]}},
               {"experiment": str(notebook(home)), "parameters": {"sigma": 0.25}}]
    (home / "grid.yaml").write_text(json.dumps(entries))
    assert cli.main(["sweep", str(home / "grid.yaml"), "--out", str(home / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "NaN" not in said and "0.0" not in said and "2 to run" in said


def test_what_cannot_be_published_is_said_before_anything_runs(home, capsys):
    "The refusal came after the last run of the sweep."
    from robust_smooth import cli
    grid = home / "grid.yaml"
    grid.write_text(json.dumps({"experiment": str(notebook(home)), "grid": {"seed": [0, 1]}}))
    assert cli.main(["sweep", str(grid), "--out", str(home / "out"), "--publish"]) == 2
    assert "share one folder" in capsys.readouterr().err and not (home / "trained.log").exists()
    bare = notebook(home, body="print(value)", parameters="value = 1", name="bare")
    grid.write_text(json.dumps({"experiment": str(bare)}))
    assert cli.main(["sweep", str(grid), "--out", str(home / "out"), "--publish"]) == 2
    assert "has no parameter 'dataset'" in capsys.readouterr().err and not (home / "out" / "runs").exists()


def test_a_sweep_can_be_reported(home, capsys):
    "After a sweep `report` knew nothing of it: no run to report yet."
    from robust_smooth import cli
    reproduce.sweep(notebook(home), dict(seed=[0, 1]), out=home / "out", quiet=True)
    assert cli.main(["report", "--out", str(home / "out")]) == 0
    page = Path(capsys.readouterr().out.strip()).read_text()
    assert "2 of 2 runs have finished" in page and "tiny, seed = 1" in page


def test_an_address_where_no_scheduler_is(home):
    pytest.importorskip("distributed", reason="needs the extra [cluster]")
    with pytest.raises((ConnectionError, ValueError), match="scheduler"):
        reproduce.sweep(notebook(home), dict(seed=[0]), scheduler="nonsense", out=home / "out", quiet=True)


def test_a_log_gets_a_line_per_stage_and_a_sign_of_life_a_minute(tmp_path, monkeypatch):
    stream, clock = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(schedulers.time, "monotonic", lambda: clock[0])
    task = SimpleNamespace(folder=tmp_path / "key", key="key", experiment="gaussian_table1")
    (tmp_path / "key.tmp-1").mkdir()
    board = schedulers._Board(1)
    for seconds, text in (
        (1, "train  epoch 1/9"), (5, "train  epoch 2/9"), (9, "vote sigma 0.5  1/99"),
        (30, "vote sigma 0.5  9/99"), (70, "vote sigma 0.5  20/99"),
    ):
        clock[0] = seconds
        (tmp_path / "key.tmp-1" / "status.txt").write_text(text)
        board.show([task], None)
    assert [line.split("  ", 1)[1] for line in stream.getvalue().splitlines()] == [
        "train  epoch 1/9",
        "vote sigma 0.5  1/99",
        "vote sigma 0.5  20/99",
    ]


def test_a_kernel_that_is_closed_says_nothing(home):
    "'KeyboardInterrupt caught in kernel' stood among the lines of a sweep in which all went well."
    body = "from ipykernel.kernelapp import IPKernelApp\nassert IPKernelApp.instance().log_level == 50"
    outcome = reproduce.sweep(notebook(home, body=body), dict(seed=[0]), out=home / "out", quiet=True)
    assert [report["status"] for report in outcome.reports] == ["done"], outcome
