"Fixtures of the lab's tests: a home of their own, for this process and for those that it starts."
import os
from pathlib import Path

import pytest

import robust_smooth

CHECKOUT = Path(robust_smooth.__file__).resolve().parents[1]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("ROBUST_SMOOTH_RUN", raising=False)
    return tmp_path
