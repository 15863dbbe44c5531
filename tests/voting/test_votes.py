"The votes engine: noise identity, sharding, real kills, observers, stopping, and what is refused."
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robust_smooth.training import models
from robust_smooth.core.record import Record
from robust_smooth.noise.additive import Gaussian
from robust_smooth.noise.grid import Splitting
from robust_smooth.voting.hardware import tune_batch_size
from robust_smooth.voting.votes import count_votes, vote
from robust_smooth.voting import hardware


@pytest.fixture(scope="module")
def convnet():
    torch.manual_seed(0)
    return models.small_convnet(num_classes=10).eval()


@pytest.fixture(scope="module")
def digits(): return torch.rand(11, 1, 8, 8, generator=torch.Generator().manual_seed(3))


class Noises:
    "Observer that keeps every noise it is shown, with its sample number."
    def __init__(self): self.seen = {}
    def begin(self, index, x, target): self.seen[index] = {}
    def update(self, index, start, hits, noise):
        assert len(hits) == len(noise)
        for i, one in enumerate(noise): self.seen[index][start + i] = one.clone()
    def finish(self, index): return dict(total=np.array(len(self.seen[index])))


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000, 3000])
def test_noise_is_the_same_for_every_batch_size(convnet, digits, batch_size):
    reference, other = Noises(), Noises()
    settings = dict(num_classes=10, seed=4, progress=False, targets=[0, 1])
    count_votes(
        convnet, digits[:2], Gaussian(sigma=0.5), 1234, observers=[reference], index=[5, 9], batch_size=128, **settings
    )
    count_votes(
        convnet, digits[:2].flip(0), Gaussian(sigma=0.5), 1234, observers=[other], index=[9, 5],
        batch_size=batch_size, **settings,
    )
    for index in (5, 9):
        assert sorted(other.seen[index]) == list(range(1234))
        assert all(torch.equal(reference.seen[index][i], other.seen[index][i]) for i in range(1234))


def test_a_longer_run_continues_the_same_noise(convnet, digits):
    short, long = Noises(), Noises()
    for n, observer in ((700, short), (2300, long)):
        count_votes(
            convnet, digits[:1], Gaussian(sigma=0.5), n, num_classes=10, seed=1, targets=[0],
            observers=[observer], progress=False,
        )
    assert all(torch.equal(short.seen[0][i], long.seen[0][i]) for i in range(700))


def test_stages_seeds_and_images_share_no_noise(convnet, digits):
    seen = []
    for seed, index, stage in ((0, 0, "estimation"), (0, 0, "selection"), (1, 0, "estimation"), (0, 1, "estimation")):
        observer = Noises()
        count_votes(
            convnet, digits[:1], Gaussian(sigma=0.5), 50, num_classes=10, seed=seed, index=[index],
            stage=stage, targets=[0], observers=[observer], progress=False,
        )
        seen.append(torch.stack([observer.seen[index][i] for i in range(50)]).flatten())
    correlation = np.corrcoef(torch.stack(seen).numpy()) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(50 * 64)


def test_batch_shape_changes_only_fragile_votes(convnet, digits):
    settings = dict(num_classes=10, seed=0, progress=False)
    votes = [
        count_votes(convnet, digits, Gaussian(sigma=0.5), 3000, batch_size=size, **settings) for size in (32, 250, 1024)
    ]
    for other in votes[1:]:
        moved = np.abs(other.counts - votes[0].counts).sum(1) // 2
        assert (moved <= np.maximum(votes[0].fragile, other.fragile)).all()


class RefusesNaN(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        if not torch.isfinite(x).all(): raise ValueError("input contains NaN")
        return self.net(x)


def test_rows_that_no_draw_fills_are_numbers(convnet, digits, monkeypatch):
    "They held what was in memory, and a network that refuses NaN, such as a pipeline of scikit-learn, refused the vote."
    empty = torch.empty
    monkeypatch.setattr(
        torch,
        "empty",
        lambda *size, **settings: (
            empty(*size, **settings).fill_(float("nan"))
            if settings.get("dtype") == torch.float32
            else empty(*size, **settings)
        ),
    )
    settings = dict(num_classes=10, seed=0, progress=False, batch_size=100)
    strict, plain = (
        count_votes(net, digits[:1], Gaussian(sigma=0.5), 150, **settings)
        for net in (RefusesNaN(convnet).eval(), convnet)
    )
    assert np.array_equal(strict.counts, plain.counts)


def test_shards_merge_to_the_single_run(convnet, digits):
    settings = dict(num_classes=10, seed=0, progress=False, batch_size=200)
    whole = vote(convnet, digits, Gaussian(sigma=0.5), 1500, index=np.arange(11) * 20, **settings)
    parts = [
        vote(convnet, digits[rows], Gaussian(sigma=0.5), 1500, index=np.arange(11)[rows] * 20, **settings)
        for rows in (slice(7, 11), slice(0, 3), slice(3, 7))
    ]
    merged = Record.concat(parts)
    for name in ("selection", "counts", "n", "index", "images"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from robust_smooth import models
from robust_smooth.noise.additive import Gaussian
from robust_smooth.voting.votes import vote
from robust_smooth.core import votes_file
votes_file.DELAY = 0.0 # a frame for each image, so that kills fall between frames and into them
torch.manual_seed(0)
net = models.small_convnet(num_classes=10).eval()
images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(3))
print("ready", flush=True)
vote(net, images, Gaussian(sigma=0.5), 2500, num_classes=10, seed=0, batch_size=100, save=sys.argv[1], progress=False)
print("done", flush=True)
"""


def test_killed_in_the_middle_of_writing_and_resumed(tmp_path, root):
    "kill -9 at several moments, the last frame torn further by hand; the resumed file holds what an undisturbed run holds."
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    path = tmp_path / "killed.votes"
    kept = []
    for _ in range(2):
        process = subprocess.Popen([sys.executable, script, path], env=environment, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        size = path.stat().st_size if path.exists() else 0
        while process.poll() is None and (not path.exists() or path.stat().st_size < size + 1500): time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with open(path, "r+b") as file: file.truncate(path.stat().st_size - 37)  # a frame cut in the middle
        kept.append(len(Record.load(path)))
    assert 0 < kept[0] < kept[1] < 40
    subprocess.run([sys.executable, script, path], env=environment, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        [sys.executable, script, tmp_path / "whole.votes"], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    resumed, whole = Record.load(path), Record.load(tmp_path / "whole.votes")
    order = np.argsort(resumed.index)
    for name in ("selection", "counts", "n", "index", "images", "fragile"):
        np.testing.assert_array_equal(getattr(resumed, name)[order], getattr(whole, name)[np.argsort(whole.index)])


def test_resuming_with_other_pixels_is_refused(convnet, digits, tmp_path):
    settings = dict(num_classes=10, seed=0, progress=False, save=tmp_path / "a.votes")
    vote(convnet, digits[:2], Gaussian(sigma=0.5), 100, **settings)
    with pytest.raises(ValueError, match="images differ"):
        vote(convnet, digits[1:3], Gaussian(sigma=0.5), 100, **settings)
    with pytest.raises(ValueError, match="n differs"): vote(convnet, digits[:2], Gaussian(sigma=0.5), 200, **settings)
    with pytest.raises(ValueError, match="n0 differs"):
        vote(convnet, digits[:2], Gaussian(sigma=0.5), 100, n0=50, **settings)
    # more images of the same vote go on in the same file
    more = vote(convnet, digits[:4], Gaussian(sigma=0.5), 100, **settings)
    assert len(more) == 4


def test_a_hostile_votes_file_cannot_execute_code(tmp_path):
    import pickle
    from robust_smooth.core.frames import JOURNAL_MAGIC, MAGIC_1, pack_frame
    class Bomb:
        def __reduce__(self): return (os.system, (f"touch {tmp_path}/boom",))
    header = dict(noise=dict(name="Gaussian", sigma=0.5), dim=4, classes=2, plan=None, provenance={})
    frame_1 = lambda payload: struct.pack("<QI", len(payload), zlib.crc32(payload)) + payload
    hostile = tmp_path / "hostile.npz"
    np.savez(hostile, counts=np.array([Bomb()], dtype=object))
    for payload in (hostile.read_bytes(), pickle.dumps(Bomb())):
        old, new = (json.dumps(header | dict(format=number)).encode() for number in (1, 2))
        for data in (
            MAGIC_1 + frame_1(old) + frame_1(payload),
            JOURNAL_MAGIC + pack_frame(new, 0) + pack_frame(payload, 1),
        ):
            (tmp_path / "a.votes").write_bytes(data)
            with pytest.raises(ValueError, match="votes file|damaged"): Record.load(tmp_path / "a.votes")
    (tmp_path / "b.votes").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="not a votes file"): Record.load(tmp_path / "b.votes")
    assert not (tmp_path / "boom").exists()


def test_memory_does_not_grow_with_n(convnet, digits):
    "Peak Python-side allocations of a run with ten times the draws stay the same."
    import tracemalloc
    peaks = []
    for n in (2000, 20_000):
        tracemalloc.start()
        count_votes(convnet, digits[:1], Gaussian(sigma=0.5), n, num_classes=10, seed=0, batch_size=100, progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 50_000


def test_out_of_memory_halves_the_batch(digits):
    class Small(torch.nn.Module):
        num_classes = 2
        def forward(self, x):
            if len(x) > 100: raise MemoryError
            return torch.stack([x.flatten(1).sum(1), x.flatten(1).sum(1) * 0], 1)
    votes = count_votes(
        Small().eval(), digits[:1], Gaussian(sigma=0.5), 1000, num_classes=2, seed=0, batch_size=1000, progress=False
    )
    assert votes.batch_size <= 100 and votes.counts.sum() == 1000


def test_logits_that_turn_bad_midway_are_refused(digits, tmp_path):
    "Images finished before are kept in the file."
    class Turns(torch.nn.Module):
        num_classes, calls = 2, 0
        def forward(self, x):
            Turns.calls += 1
            logits = torch.stack([x.flatten(1).mean(1), 1 - x.flatten(1).mean(1)], 1)
            return logits * float("nan") if Turns.calls > 40 else logits
    with pytest.raises(ValueError, match="NaN or infinite"):
        vote(
            Turns().eval(), digits, Gaussian(sigma=0.5), 1000, num_classes=2, seed=0, batch_size=100,
            save=tmp_path / "a.votes", progress=False,
        )
    assert 0 < len(Record.load(tmp_path / "a.votes")) < 11


def test_counting_on_a_device_equals_counting_in_numpy(convnet, digits, tmp_path, monkeypatch):
    "The path of other devices, taken on the CPU: counts, fragile votes, observers, deterministic noise, and a logit that is not finite."
    runs = []
    for host in (("cpu",), ()):
        monkeypatch.setattr(hardware, "HOST", host)
        settings = dict(num_classes=10, seed=0, batch_size=64, progress=False)
        seen = Noises()
        plain = count_votes(convnet, digits, Gaussian(sigma=0.5), 1500, targets=[1] * 11, observers=[seen], **settings)
        levels = (digits * 16).round() / 16
        exact = count_votes(convnet, levels, Splitting(n_splits=23, q=16), 1, **settings)
        tied = count_votes(Tied().eval(), digits[:2], Gaussian(sigma=0.5), 1500, **{**settings, "num_classes": 3})
        with pytest.raises(ValueError, match="NaN or infinite"):
            vote(
                Bad().eval(), digits, Gaussian(sigma=0.01), 700, num_classes=2, seed=0, batch_size=64,
                save=tmp_path / f"{len(runs)}.votes",
                progress=False,
            )
        runs.append(
            [
                plain.counts, plain.fragile, exact.counts, exact.fragile, tied.counts, tied.fragile,
                Record.load(tmp_path / f"{len(runs)}.votes").index,
            ]
        )
        assert (
            exact.counts.sum(1).tolist() == [23] * 11
            and tied.fragile.tolist() == [1500, 1500]
            and tied.counts[:, 1].tolist() == [1500, 1500]
        )
        assert 7 not in runs[-1][-1]
    for one, other in zip(*runs): assert np.array_equal(one, other)
    assert len(runs[0][-1]) == 10


class Tied(torch.nn.Module):
    def forward(self, x):
        return torch.stack([x.flatten(1).sum(1) * 0, x.flatten(1).sum(1) * 0 + 1, x.flatten(1).sum(1) * 0 + 1], 1)


class Bad(torch.nn.Module):
    "NaN for one image in particular, the eighth, once the selection stage is over."
    calls = 0
    def forward(self, x):
        self.calls += 1
        logits = torch.stack([x.flatten(1).mean(1), 1 - x.flatten(1).mean(1)], 1)
        centre = torch.rand(11, 1, 8, 8, generator=torch.Generator().manual_seed(3))[7]
        return torch.where(
            ((x - centre).flatten(1).abs().mean(1) < 0.05)[:, None] & (self.calls > 25), float("nan"), logits
        )


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(num_classes=1), "num_classes must be"),
        (dict(n=2.5), "n must be"),
        (dict(batch_size=-3), "batch_size must be"),
        (dict(index=[0.5] * 11), "index must be 11 whole numbers"),
        (dict(targets=[10] * 11), "targets must be 11 classes"),
        (dict(observers=[Noises()]), "give targets"),
        (dict(stage="other"), "stage must be one of"),
    ],
)
def test_refusals_name_the_argument(convnet, digits, change, words):
    settings = dict(n=10, num_classes=10, seed=0, progress=False) | change
    with pytest.raises(ValueError, match=words):
        count_votes(convnet, digits, Gaussian(sigma=0.5), settings.pop("n"), **settings)


@pytest.mark.parametrize(
    "images, error, words",
    [
        (torch.full((2, 1, 8, 8), 1.5), ValueError, r"lie in \[0, 1\]"),
        (torch.full((2, 1, 8, 8), torch.nan), ValueError, "NaN or infinity"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), TypeError, "floating-point"),
        (torch.zeros(5), ValueError, "at least two axes"),
    ],
)
def test_refused_images(convnet, images, error, words):
    with pytest.raises(error, match=words):
        count_votes(convnet, images, Gaussian(sigma=0.5), 10, num_classes=10, seed=0, progress=False)


def test_tuned_batch_size_is_remembered(convnet):
    first = tune_batch_size(convnet, (1, 8, 8), seconds=0.005)
    assert tune_batch_size(convnet, (1, 8, 8)) == first and first >= 8


class Changes(nn.Module):
    "A network whose answers have another shape from the twelfth on."
    def __init__(self, rows, columns):
        super().__init__()
        self.net, self.rows, self.columns, self.calls = nn.Linear(4, 3), rows, columns, 0
    def forward(self, x):
        self.calls += 1
        logits = self.net(x)
        return logits if self.calls < 12 else logits[:self.rows, :self.columns]


@pytest.mark.parametrize("rows, columns", [(1, 3), (63, 3), (64, 1)])
def test_logits_whose_shape_changes_midway_are_refused(rows, columns):
    "Missing rows were counted with the logits of the batch before; a single column made every vote one for class 0."
    with pytest.raises(ValueError, match=r"model must return logits of shape \(64, 3\), got \(" + f"{rows}, {columns}"):
        vote(
            Changes(rows, columns).eval(), torch.rand(3, 4), Gaussian(sigma=0.5), n=2000, num_classes=3,
            n0=100, batch_size=64, progress=False,
        )


def test_a_votes_file_belongs_to_one_network_whatever_it_is_made_of(tmp_path):
    "Closures, callable objects, plain tensor attributes, functions kept as attributes, edited code."
    def linear(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()

    class Callable:
        def __init__(self, net): self.net = net
        def __call__(self, x): return self.net(x)

    class Shifted(nn.Module):
        def __init__(self, shift, act):
            super().__init__()
            self.net, self.shift, self.act = linear(0), torch.tensor(shift), act
        def forward(self, x): return self.act(self.net(x - self.shift))

    class Edited(Shifted):
        def forward(self, x): return self.act(self.net(x + self.shift))

    nets = linear(0), linear(1)
    pairs = [
        [lambda x, net=net: net(x) for net in nets],
        [Callable(net) for net in nets],
        [Shifted(shift, torch.relu).eval() for shift in (0.1, 0.9)],
        [Shifted(0.5, act).eval() for act in (torch.relu, torch.sin)],
        [Shifted(0.5, torch.relu).eval(), Edited(0.5, torch.relu).eval()],
    ]
    images, settings = (
        torch.rand(3, 4, generator=torch.Generator().manual_seed(0)),
        dict(num_classes=3, n=100, n0=10, progress=False),
    )
    for number, (one, other) in enumerate(pairs):
        whole = vote(one, images, Gaussian(sigma=0.3), save=tmp_path / f"{number}.votes", **settings)
        assert np.array_equal(
            vote(one, images, Gaussian(sigma=0.3), save=tmp_path / f"{number}.votes", **settings).counts, whole.counts
        )
        with pytest.raises(ValueError, match="model differs"):
            vote(other, images, Gaussian(sigma=0.3), save=tmp_path / f"{number}.votes", **settings)


def test_no_forward_pass_is_only_a_trial(tmp_path):
    "A vote asks about its own rows alone: what the batches hold beside the few rows of the check before it."
    class Counting(nn.Module):
        asked: list = []

        def forward(self, x):
            self.asked.append(len(x))
            return x.flatten(1)[:, :2]

    net, x = Counting().eval(), torch.rand(1, 4, generator=torch.Generator().manual_seed(0))
    record = vote(
        net, x, Gaussian(sigma=0.3), 1000, num_classes=2, n0=100, batch_size=100, progress=False,
        save=tmp_path / "of.votes",
    )
    # 100 rows of selection, 1000 of estimation
    assert net.asked.count(100) == 11 and record.provenance["batch_size"] == 100
    assert (
        len(
            vote(
                net, x[:0], Gaussian(sigma=0.3), 1000, num_classes=2, n0=100, progress=False,
                save=tmp_path / "none.votes",
            )
        )
        == 0
    )


def test_the_batch_that_ran_is_recorded_after_out_of_memory():
    class Small(nn.Module):
        def forward(self, x):
            if len(x) > 16: raise hardware.MEMORY_ERRORS[0]("no room")
            return x.flatten(1)[:, :2]

    record = vote(
        Small().eval(), torch.rand(3, 4), Gaussian(sigma=0.3), 500, num_classes=2, n0=50,
        batch_size=1000, progress=False,
    )
    assert record.provenance["batch_size"] <= 16 and (record.n == 500).all()
    assert hardware.tune_batch_size(Small().eval(), (4,), "cpu") <= 16


def test_working_precision_is_the_coarsest_in_use(monkeypatch):
    net = nn.Linear(2, 2).eval()
    assert hardware.working_precision(net, "cpu") == "float32" and hardware.working_precision(net, "cuda") == "tf32"
    assert (
        hardware.working_precision(nn.Linear(2, 2).half(), "cpu") == "float16"
        and hardware.working_precision(lambda x: x, "cpu") == "float32"
    )
    monkeypatch.setattr(hardware, "_float32_means", lambda kind: "tf32")
    record = vote(net, torch.rand(2, 2), Gaussian(sigma=0.3), 100, num_classes=2, n0=10, progress=False)
    assert record.provenance["precision"] == "tf32" # as it would be on a CUDA device
