"What a vote leaves behind in its process, and what the process does to a vote: random state, default types, memory, order, streams."
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

import robust_smooth as rs
from robust_smooth.core.record import Record
from robust_smooth.noise.additive import Stream
from robust_smooth.training import models
from robust_smooth.voting import hardware
from robust_smooth.voting.votes import count_votes, vote

IMAGES = (torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 16).round() / 16
NOISES = [
    rs.Gaussian(sigma=0.4),
    rs.Uniform(lam=0.4),
    rs.RadialGaussian(sigma=0.4, k=3),
    rs.MixedNormGaussian(sigma=0.4, k=3),
    rs.LinfGaussian(sigma=0.4, k=3),
    rs.RoundedGaussian(sigma=0.4, q=16),
    rs.RoundedUniform(lam=0.4, q=16),
    rs.noise.IndependentSplitting(n_splits=13, q=16),
    rs.noise.ContinuousSplitting(lam=0.4),
    rs.Splitting(n_splits=13, q=16),
]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return rs.wrap(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), num_classes=3, mean=0, std=1)


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: type(noise).__name__)
def test_a_vote_leaves_no_random_state_behind(noise):
    "A long one, too, which sweeps for its batch."
    net = network()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    smooth = rs.Smoothed(net, noise)
    smooth.vote(IMAGES, n=11_000, n0=10, progress=False)
    smooth.predict(IMAGES, n=100)
    smooth.estimate(IMAGES, n=100, seconds=0.01)
    smooth.agreement(IMAGES)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1]) and random.getstate() == states[2]


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: type(noise).__name__)
def test_the_default_type_does_not_change_votes(noise):
    net, settings = network(), dict(num_classes=3, n=2000, n0=50, progress=False)
    plain = vote(net, IMAGES, noise, **settings)
    for kind in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(kind)
        try:
            other = vote(net, IMAGES, noise, **settings)
        finally:
            torch.set_default_dtype(torch.float32)
        assert np.array_equal(other.counts, plain.counts) and np.array_equal(other.selection, plain.selection)


class Shrinking(nn.Module):
    "Bears fewer rows after some calls, and works in place: what it was given is spoilt when it fails."
    num_classes = 3

    def __init__(self, net, room, later, when):
        super().__init__()
        self.net, self.room, self.later, self.when, self.calls, self.largest = net, room, later, when, 0, 0

    def forward(self, x):
        self.calls += 1
        x.sub_(0.25)
        if len(x) > (self.room if self.calls < self.when else self.later):
            raise hardware.MEMORY_ERRORS[self.calls % 2]("no room")
        if self.calls >= self.when:
            self.largest = max(self.largest, len(x))
        return self.net(x)


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: type(noise).__name__)
def test_memory_that_shrinks_on_the_way_changes_no_vote(noise):
    settings = dict(num_classes=3, n=3000, n0=50, batch_size=512, progress=False)
    whole = vote(Shrinking(network(), 10_000, 10_000, 0).eval(), IMAGES, noise, **settings)
    for later in (300, 7, 1):
        shrinking = Shrinking(network(), 10_000, later, 9).eval()
        made = vote(shrinking, IMAGES, noise, **settings)
        moved = np.abs(made.counts - whole.counts).sum(1) // 2
        assert shrinking.largest <= later and (moved <= np.maximum(whole.fragile, made.fragile)).all()


@pytest.mark.parametrize("room", [1, 3, 20])
def test_the_first_look_fits_into_memory(room):
    images = torch.rand(60, 16, generator=torch.Generator().manual_seed(1))
    net = Shrinking(nn.Linear(16, 3), room, room, 0).eval()
    smooth = rs.Smoothed(rs.wrap(net, num_classes=3, mean=0, std=1), rs.Gaussian(sigma=0.1))
    assert smooth.vote(images, n=20, n0=2, progress=False).n.tolist() == [20] * 60
    assert 0 <= smooth.agreement(images) <= 1
    assert hardware.tune_batch_size(net, (16,)) <= room


def test_repeated_indices_are_refused_wherever_they_stand():
    "70 images: the repetition lies across groups that vote together."
    images, index = torch.rand(70, 16), np.arange(70)
    index[69] = 3
    for ask in (
        lambda: vote(network(), images, rs.Gaussian(sigma=0.1), 20, num_classes=3, index=index, progress=False),
        lambda: rs.Smoothed(network(), rs.Gaussian(sigma=0.1)).vote(images, n=20, index=index, progress=False),
        lambda: count_votes(
            network(), images, rs.Gaussian(sigma=0.1), 20, num_classes=3, seed=0, index=index, progress=False
        ),
    ):
        with pytest.raises(ValueError, match="index must not repeat.*got 3 twice"):
            ask()


@pytest.mark.parametrize(
    "index", [np.arange(3), np.arange(9), np.arange(5.0), np.arange(5)[:, None], [True, False, True, False, True]]
)
def test_an_index_of_another_shape_is_refused_before_the_vote(index, tmp_path):
    with pytest.raises(ValueError, match="index must be 5 whole numbers"):
        rs.Smoothed(network(), rs.Gaussian(sigma=0.1)).vote(
            IMAGES, n=20, index=index, save=tmp_path / "a.votes", progress=False
        )
    assert not (tmp_path / "a.votes").exists()


@pytest.mark.parametrize("seed", [3.7, "3", None, True, np.float64(3.5)])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(TypeError, match="seed must be a whole number"):
        rs.Smoothed(network(), rs.Gaussian(sigma=0.1)).vote(IMAGES, n=20, seed=seed, progress=False)


def test_seeds_of_any_size_are_seeds():
    settings = dict(num_classes=3, n=200, n0=10, progress=False)
    counts = [
        vote(network(), IMAGES, rs.Gaussian(sigma=0.4), seed=seed, **settings).counts for seed in (0, 2**32, 2**64, -1)
    ]
    assert all(not np.array_equal(counts[0], other) for other in counts[1:])


class Keeping:
    "Observer that keeps the noise it is shown."
    def __init__(self): self.noise = {}
    def begin(self, index, x, target): self.noise[index] = []
    def update(self, index, start, hits, noise): self.noise[index].append(noise.clone())
    def finish(self, index): return dict(kept=torch.cat(self.noise[index]).numpy())


def test_no_two_images_stages_or_seeds_share_a_number():
    "Every number of noise, of images and stages and seeds together: no chunk is there twice, nor a shifted piece of one."
    seen = []
    for seed in (0, 1):
        for stage in ("selection", "estimation", "trial"):
            settings = dict(
                num_classes=3, seed=seed, stage=stage, targets=[0] * 5, observers=[Keeping()], progress=False
            )
            kept = count_votes(
                network(), IMAGES, rs.Gaussian(sigma=0.4), 1200, index=[0, 1, 2**31, 2**32, 2**32 + 1], **settings
            )
            seen.append(kept.observed["kept"].reshape(5, -1))
    numbers = np.concatenate(seen)
    assert numbers.shape == (30, 1200 * 16)
    pieces = numbers.reshape(30, -1, 8).reshape(-1, 8)  # eight numbers in a row
    assert len(np.unique(pieces, axis=0)) == len(pieces)
    correlation = np.corrcoef(numbers) - np.eye(30)
    assert np.abs(correlation).max() < 5 / np.sqrt(1200 * 16)


def test_the_noise_is_what_the_stream_defines():
    "Chunk by chunk, from the generator's state alone."
    keeping = Keeping()
    settings = dict(num_classes=3, seed=11, targets=[0], observers=[keeping], batch_size=77, progress=False)
    count_votes(network(), IMAGES[:1], rs.Gaussian(sigma=0.4), 2500, index=[42], **settings)
    drawn = torch.cat(keeping.noise[42])
    stream = Stream(torch.device("cpu"))
    chunks = [
        torch.empty(1000, 1, 4, 4).normal_(0.0, 0.4, generator=stream.at(11, 42, "estimation", c)) for c in range(3)
    ]
    assert torch.equal(drawn, torch.cat(chunks)[:2500])


def test_votes_of_stream_1_certify_and_are_not_continued(tmp_path):
    path, settings = tmp_path / "a.votes", dict(n=500, n0=50, progress=False)
    smooth = rs.Smoothed(network(), rs.Gaussian(sigma=0.4))
    record = smooth.vote(IMAGES[:2], save=path, **settings)
    assert record.provenance["stream"] == 2
    old = rs.load(path)
    facts = {name: fact for name, fact in old.provenance.items() if name != "stream"}
    header = old.header() | dict(provenance=facts)
    Record.from_blocks(
        header,
        [
            dict(
                selection=old.selection, counts=old.counts, n=old.n, index=old.index,
                fragile=old.fragile, images=old.images,
            )
        ],
    ).save(path)
    assert len(rs.load(path).certify("l2")) == 2
    with pytest.raises(ValueError, match="stream differs: 2 and 1"):
        smooth.vote(IMAGES, save=path, **settings)
    with pytest.raises(ValueError, match="stream differs"):
        Record.concat([rs.load(path), smooth.vote(IMAGES[2:], index=[2, 3, 4], **settings)])


class Unplanned:
    "A stopping rule that does not say what it is."
    looks = [100, 300]
    def __call__(self, counts, n, targets): return counts.max(1) > 0.9 * n


@pytest.mark.parametrize("spec", [None, lambda self: None, lambda self: {}])
def test_a_rule_without_a_plan_is_refused(spec):
    rule = type("Rule", (Unplanned,), {} if spec is None else dict(spec=spec))()
    with pytest.raises(ValueError, match="stop must describe itself"):
        rs.Smoothed(network(), rs.Gaussian(sigma=0.4)).vote(IMAGES, stop=rule, progress=False)


def test_draws_too_few_to_predict_are_refused():
    smooth = rs.Smoothed(network(), rs.Gaussian(sigma=0.01))
    with pytest.raises(ValueError, match="n must be larger to predict anything at alpha = 0.001, got 10; 11 suffices"):
        smooth.predict(IMAGES, n=10)
    assert (smooth.predict(IMAGES, n=11) >= 0).any()
    assert (smooth.predict(IMAGES, n=10, alpha=0.01) >= 0).any()


def test_one_engine_is_built_and_images_are_looked_at_once(monkeypatch):
    from robust_smooth.voting import ballots, engine
    built, looked = [], []
    made, looks = engine.Engine.__init__, ballots.check_votable
    monkeypatch.setattr(engine.Engine, "__init__", lambda self, *given: (built.append(1), made(self, *given))[1])
    monkeypatch.setattr(ballots, "check_votable", lambda *given: (looked.append(1), looks(*given))[1])
    images = torch.rand(200, 16)
    rs.Smoothed(network(), rs.Gaussian(sigma=0.1)).vote(images, n=20, n0=5, progress=False).certify("l2", alpha=0.01)
    assert len(built) == len(looked) == 1


@pytest.mark.parametrize(
    "noise", [rs.Gaussian(sigma=0.3), rs.RoundedUniform(lam=0.3, q=16), rs.Splitting(n_splits=13, q=16)]
)
def test_a_model_that_is_not_contiguous_gets_the_same_votes(noise):
    net = models.seeded(lambda: models.small_convnet(num_classes=3, in_channels=3)).eval()
    images = (torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 16).round() / 16
    plain = count_votes(net, images, noise, 1500, num_classes=3, seed=0, batch_size=333, progress=False)
    net.memory_format = torch.channels_last
    other = count_votes(net, images, noise, 1500, num_classes=3, seed=0, batch_size=250, progress=False)
    moved = np.abs(plain.counts - other.counts).sum(1) // 2
    assert (moved <= np.maximum(plain.fragile, other.fragile)).all()


@pytest.mark.parametrize("noise", [rs.Gaussian(sigma=0.3), rs.RoundedGaussian(sigma=0.3)], ids=repr)
def test_tiny_images_pass_in_the_batches_that_were_asked_for(noise):
    "Several passes read one batch of noise; each has its rows, every draw is asked about once, and the noise is the same."
    class Seen(nn.Module):
        def __init__(self): super().__init__(); self.batches = []
        def forward(self, x): self.batches.append(x.clone()); return x
    images, found = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), []
    for rows in (256, 1000, 300):
        net = Seen().eval()
        made = count_votes(net, images, noise, 4100, num_classes=2, seed=3, batch_size=rows, progress=False)
        passes = net.batches[-math.ceil(2 * 4100 / rows):]
        assert {len(batch) for batch in passes} == {rows} and made.batch_size == rows
        found.append((torch.cat(passes)[:8200], made.counts))
    drawn, counts = found[0]
    assert np.array_equal(counts, [np.bincount(half.argmax(1), minlength=2) for half in drawn.split(4100)])
    for other, again in found[1:]: assert torch.equal(other, drawn) and np.array_equal(again, counts)


# ---- every way in which memory is said to be short

@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 9 bytes."
        ),
    ],
)
def test_memory_that_is_short_is_known_by_every_name(error):
    class Small(torch.nn.Module):
        num_classes, unit_input = 2, True

        def forward(self, x):
            if len(x) > room:
                raise error
            return torch.stack([x.flatten(1).sum(1), 2 - x.flatten(1).sum(1)], 1)

    images, room = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)), 10**9
    smoothed, settings = (
        rs.Smoothed(Small().eval(), rs.Gaussian(sigma=0.5)),
        dict(n=1000, n0=100, batch_size=64, progress=False),
    )
    much = smoothed.vote(images, **settings).counts
    room = 5
    assert (smoothed.vote(images, **settings).counts == much).all()


def test_another_error_is_not_taken_for_short_memory():
    class Broken(torch.nn.Module):
        num_classes, unit_input = 2, True

        def forward(self, x):
            if len(x) > 20:
                raise RuntimeError("a kernel of its own failed")
            return x.flatten(1)[:, :2]

    with pytest.raises(RuntimeError, match="kernel of its own"):
        rs.Smoothed(Broken().eval(), rs.Gaussian(sigma=0.5)).vote(
            torch.rand(3, 1, 2, 2), n=1000, n0=100, batch_size=64, progress=False
        )
