"JupyterLab in a real browser: a method, a proof and an experiment notebook open and run from top to bottom without an error."
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
NOTEBOOKS = ("methods/00_gaussian.ipynb", "proofs/gaussian_radius.ipynb", "experiments/gaussian_table1.ipynb")
TOKEN, PATIENCE = "0123456789abcdef", 240 # seconds per notebook before the test gives up; they take a few each


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port: int, what: str):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/{what}", headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=10) as answer: return json.load(answer)


@pytest.fixture
def copies(root, tmp_path) -> Path:
    "Copies of the notebooks, outputs removed; the experiment at the smallest budget."
    for name in NOTEBOOKS:
        notebook = nbformat.read(root / "nbs" / name, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code": cell.outputs, cell.execution_count = [], None
            if "parameters" in cell.metadata.get("tags", []):
                assert 'budget = "quick"' in cell.source, cell.source
                cell.source = cell.source.replace('budget = "quick"', 'budget = "smoke"')
        target = tmp_path / "nbs" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
    return tmp_path / "nbs"


@pytest.fixture
def lab(root, copies, tmp_path):
    "A JupyterLab server on the copies, with settings and results of its own; its port."
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    port = free_port()
    own = {
        name: str(tmp_path / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR",
            "ROBUST_SMOOTH_HOME",
        )
    }
    env = {
        **os.environ,
        **own,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")])),
        "OMP_NUM_THREADS": "1",
    }
    options = [
        f"--ServerApp.root_dir={copies}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--ServerApp.ip=127.0.0.1",
        f"--IdentityProvider.token={TOKEN}",
        "--ServerApp.allow_root=True",
        "--ServerApp.open_browser=False",
        "--LabApp.extension_manager=readonly",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with open(tmp_path / "server.log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=env, cwd=copies, stdout=log, stderr=log, start_new_session=True,
        )
        try:
            end = time.monotonic() + 120
            while True:
                assert server.poll() is None and time.monotonic() < end, (tmp_path / "server.log").read_text()[-3000:]
                try: ask(port, "status"); break
                except OSError: time.sleep(0.25)
            yield port
        finally:
            try:
                for kernel in ask(port, "kernels"):
                    urllib.request.urlopen(
                        urllib.request.Request(
                            f"http://127.0.0.1:{port}/api/kernels/{kernel['id']}",
                            method="DELETE",
                            headers={"Authorization": f"token {TOKEN}"},
                        ),
                        timeout=20,
                    )
            except OSError: pass
            if server.poll() is None: os.killpg(server.pid, signal.SIGTERM)
            try: server.wait(5)
            except subprocess.TimeoutExpired: os.killpg(server.pid, signal.SIGKILL)


def run_all(page, port: int, folder: Path, name: str) -> tuple[int, int]:
    "Open a notebook, choose Run All Cells, wait until the saved file has run; the number of code cells, and of pictures among their outputs."
    path, begin = folder / name, time.monotonic()
    page.goto(f"http://127.0.0.1:{port}/lab/tree/{name}?reset&token={TOKEN}")
    page.locator(".jp-Notebook").first.wait_for(timeout=60_000)
    choose = page.get_by_role("button", name="Select Kernel", exact=True)
    def state() -> str:
        found = [s["kernel"]["execution_state"] for s in ask(port, "sessions") if s["path"] == name and s["kernel"]]
        return found[0] if found else "absent"
    while state() != "idle":
        assert time.monotonic() - begin < PATIENCE, f"{name}: no idle kernel ({state()})"
        if choose.count() and choose.first.is_visible(): choose.first.click()
        page.wait_for_timeout(200)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    while True:
        page.wait_for_timeout(400)
        assert time.monotonic() - begin < PATIENCE, f"{name} is still running"
        if state() != "idle": continue
        page.keyboard.press("Control+s")
        page.wait_for_timeout(400)
        try: cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code" and c.source.strip()]
        except (ValueError, OSError): continue # read in the middle of a save
        errors = [f"{o.ename}: {o.evalue}" for c in cells for o in c.outputs if o.output_type == "error"]
        assert not errors, f"{name}: {errors[0]}"
        if all(c.execution_count for c in cells): break
    assert page.locator(".jp-Notebook .jp-RenderedHTMLCommon").count() > 0, f"{name}: no text is shown"
    return len(cells), sum("image/png" in o.get("data", {}) for c in cells for o in c.outputs)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium browser, which is not installed here")
def test_notebooks_run_in_jupyterlab(lab, copies, tmp_path):
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with driver.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport=dict(width=1400, height=1000))
        try:
            for name in NOTEBOOKS:
                cells, pictures = run_all(page, lab, copies, name)
                assert cells >= 5 and pictures >= 1, f"{name}: {cells} code cells, {pictures} pictures"
        except BaseException:
            page.screenshot(path=str(tmp_path / "jupyterlab.png"))
            raise
        finally: browser.close()
    assert list((tmp_path / "robust_smooth_home").rglob("finished.json")), "the experiment left no results"
