"Fixtures shared by all tests: the folder of published material, and small classifiers whose truth is known."
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path: return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    "Folder with published logs, printed tables and data sets; tests that need it skip where it is absent."
    folder = Path(os.environ.get("ROBUST_SMOOTH_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the folder of published material, absent at {folder.name} beside the checkout")
    return folder


class HalfSpace(nn.Module):
    "Class 1 where <direction, x> is above a threshold: its smoothed probability and radius are known in closed form."
    num_classes = 2

    def __init__(self, direction: np.ndarray, threshold: float):
        super().__init__()
        self.register_buffer("direction", torch.as_tensor(np.asarray(direction), dtype=torch.float32))
        self.threshold = float(threshold)

    def forward(self, x):
        margin = x.flatten(1) @ self.direction - self.threshold
        return torch.stack([-margin, margin], 1)


@pytest.fixture
def half_space(): return lambda direction, threshold: HalfSpace(direction, threshold).eval()


def pytest_collection_modifyitems(items):
    "The site's tests first: its build is the longest single piece, and no worker should wait for it at the end."
    items.sort(key=lambda item: item.path.name != "test_docs.py")
