"Memory of released tensors stays in the process: counted in pages that the system hands out, not in seconds."
import os
import platform
import subprocess
import sys

import pytest

PAGES = """
import resource
import torch
torch.set_num_threads(1)
net = torch.nn.Sequential(*[torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)])

def pages(rows):
    images = torch.zeros(rows, 16, 32, 32)
    with torch.inference_mode():
        for _ in range(3): net(images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4): net(images)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = max(pages(rows) for rows in (8, 16, 32, 64))
{hint}
print(before, max(pages(rows) for rows in (8, 16, 32, 64)))
"""

needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries have thresholds of their own"
)


def new_pages(hint, **settings):
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))
    }
    run = subprocess.run(
        [sys.executable, "-c", PAGES.format(hint=hint)],
        env=plain | settings, capture_output=True, text=True, check=True,
    )
    return [int(word) for word in run.stdout.split()]


@needs_glibc
@pytest.mark.parametrize("room", ["voting.engine", "training.train"])
def test_what_votes_or_trains_keeps_its_memory(room):
    before, after = new_pages(f"import robust_smooth.{room}")
    assert before > 1000 and after < before / 4


@needs_glibc
def test_a_user_who_set_the_threshold_is_obeyed():
    before, after = new_pages("import robust_smooth.voting.engine", MALLOC_TRIM_THRESHOLD_="131072")
    assert before > 1000 and after > before / 2
