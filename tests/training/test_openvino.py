"Networks that OpenVINO computes: the same function, another identity, kept in files, silent; int8 with the same bits in every company."
import copy
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from robust_smooth import wrap
from robust_smooth.noise.additive import Gaussian
from robust_smooth.noise.rounded import RoundedGaussian
from robust_smooth.training import models, openvino, speed, zoo
from robust_smooth.training.speed import optimise, read_setting
from robust_smooth.voting import hardware
from robust_smooth.voting.votes import count_votes, fingerprint, vote

needs_openvino = pytest.mark.skipif(bool(openvino.missing()), reason=openvino.missing() or "openvino is here")
needs_nncf = pytest.mark.skipif(bool(openvino.missing("int8")), reason=openvino.missing("int8") or "nncf is here")


def shaken(net):
    "Batch normalisation with statistics that matter."
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.2 * torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return net.eval()


def pixels(rows, shape=(3, 16, 16), seed=0):
    return torch.randint(256, (rows, *shape), generator=torch.Generator().manual_seed(seed)) / 255


def noisy(rows, shape=(3, 16, 16), seed=9):
    generator = torch.Generator().manual_seed(seed)
    return pixels(rows, shape, seed) + 0.25 * torch.randn((rows, *shape), generator=generator)


@pytest.fixture(scope="module")
def net():
    return shaken(models.seeded(lambda: models.ResNet(8, 10, 3), 0))


@pytest.fixture(scope="module")
def whole(net):
    "The network in int8."
    return optimise(net, pixels(8), "int8", calibration=noisy(32))


@needs_openvino
@pytest.mark.parametrize(
    "make, shape",
    [
        (models.small_convnet, (1, 8, 8)),
        (lambda: models.ResNet(8, 10, 3), (3, 16, 16)),
        (lambda: models.mlp(2, 4, (8,)), (2,)),
        (lambda: wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 1)), 0.4, 0.3), (3, 2, 2)),
        (lambda: wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 1), nn.Sigmoid()), 0, 1), (3, 2, 2)),
    ],
)
def test_the_function_is_kept_and_the_identity_is_new(make, shape):
    model, x = shaken(models.seeded(make)), pixels(33, shape)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    fast = optimise(model, x[:4], backend="openvino")
    assert torch.equal(before[0], torch.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), model(x), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(fast(x[:1]), model(x[:1]), atol=1e-4, rtol=1e-4)
    assert fast.agreement["same"] == 1 and fast.agreement["gap"] < 1e-4 * fast.agreement["scale"] and fast.tried == {}
    assert fingerprint(fast) != fingerprint(model) and fingerprint(fast) == fingerprint(
        optimise(model, x[:5], **fast.setting)
    )
    assert openvino.instructions() in fast.optimised and read_setting(fast.optimised) == fast.setting == dict(
        precision="float32", backend="openvino"
    )
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in weights.items())


@needs_openvino
def test_another_instruction_set_or_version_is_another_classifier(net, monkeypatch):
    here = optimise(net, pixels(4), backend="openvino")
    monkeypatch.setattr(openvino, "instructions", lambda: "x86_64 AVX2")
    there = optimise(net, pixels(4), backend="openvino")
    assert fingerprint(here) != fingerprint(there) and "AVX2" in there.optimised


@needs_openvino
def test_copies_and_other_processes_get_the_network_whole(net):
    fast, x = optimise(net, pixels(4), backend="openvino"), pixels(6)
    with torch.inference_mode():
        want = fast(x)
        for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
            assert torch.equal(other(x), want) and fingerprint(other) == fingerprint(fast)
    first = fast(x)
    kept = first.clone()
    fast(pixels(6, seed=3)) # what was returned before does not change
    assert torch.equal(first, kept)


@needs_openvino
def test_the_record_names_the_network(net, tmp_path):
    fast, x = optimise(net, pixels(4), backend="openvino"), pixels(2)
    path, settings = tmp_path / "of.votes", dict(num_classes=10, n=200, n0=20, progress=False)
    record = vote(fast, x, Gaussian(sigma=0.25), save=path, **settings)
    assert (
        record.provenance["optimised"] == fast.optimised
        and read_setting(record.provenance["optimised"]) == fast.setting
    )
    again = vote(optimise(net, x, **fast.setting), x, Gaussian(sigma=0.25), save=path, **settings) # re-made, resumed
    assert np.array_equal(again.counts, record.counts)
    with pytest.raises(ValueError, match="differ"):
        vote(net, x, Gaussian(sigma=0.25), save=path, **settings)


@needs_openvino
def test_what_cannot_be_rebuilt_is_refused(net, branching):
    model, x = branching, torch.rand(3, 4)
    with pytest.raises(ValueError, match="cannot be traced"):
        optimise(model, x, backend="openvino")
    chosen = optimise(model, x, seconds=0.05) # the other ways are there
    assert chosen.backend != "openvino" and "not possible" in chosen.tried["openvino"]
    fast = optimise(net, pixels(4), backend="openvino")
    with pytest.raises(ValueError, match="no gradients"):
        fast(pixels(2).requires_grad_())


@needs_openvino
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores that can be told apart",
)
def test_no_network_binds_its_thread_to_a_core(net):
    "By itself OpenVINO computes one thread on the first core: two processes would take as long as one after the other."
    fast, rows, ended = optimise(net, pixels(8), backend="openvino"), pixels(64), threading.Event()

    def work():
        while not ended.is_set(): fast(rows)

    fast(rows) # compiles
    worker = threading.Thread(target=work)
    worker.start()
    try:
        seen = set()
        for _ in range(100):
            seen.add(frozenset(os.sched_getaffinity(worker.native_id)))
            time.sleep(0.002)
    finally:
        ended.set()
        worker.join()
    assert seen == {frozenset(os.sched_getaffinity(0))}, seen


@needs_nncf
def test_int8_rows_have_the_same_bits_in_every_company(whole):
    assert whole.steady and hardware.working_precision(whole, "cpu") == "int8"
    rows = (255 * noisy(96)).round() / 255
    order = torch.randperm(96, generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    with torch.inference_mode():
        want = whole(rows)
        for size in (1, 3, 16, 64):
            assert torch.equal(torch.cat([whole(piece) for piece in rows.split(size)]), want)
        assert torch.equal(whole(rows[order]), want[order])
        try:
            torch.set_num_threads(2)
            assert torch.equal(whole(rows), want)
        finally:
            torch.set_num_threads(threads)


@needs_nncf
def test_int8_votes_are_the_same_whatever_the_batch(whole):
    noise, x = RoundedGaussian(sigma=0.25), pixels(2, seed=5)
    settings = dict(num_classes=10, seed=0, progress=False)
    counts = [count_votes(whole, x, noise, 300, batch_size=rows, **settings).counts for rows in (7, 64, 300)]
    assert np.array_equal(counts[0], counts[1]) and np.array_equal(counts[0], counts[2])


def test_an_unsteady_network_counts_its_fragile_votes():
    class Close(nn.Module):
        "Two logits a hundredth apart."
        precision, steady = "int8", True

        def forward(self, x):
            return torch.stack([torch.ones(len(x)), torch.full((len(x),), 1.01)], 1)

    calm, shaky = Close().eval(), nn.Sequential(Close()).eval()
    shaky[0].steady = False
    assert [hardware.working_precision(net, "cpu") for net in (calm, shaky)] == ["int8", "int8 unsteady"]
    settings = dict(num_classes=2, seed=0, progress=False)
    fragile = [
        int(count_votes(net, pixels(1), Gaussian(sigma=0.25), 50, **settings).fragile[0]) for net in (calm, shaky)
    ]
    assert fragile == [0, 50]


@needs_nncf
def test_int8_twice_is_one_network_and_says_what_it_saw(net, whole):
    again = optimise(net, pixels(8), calibration=noisy(32), **whole.setting)
    assert fingerprint(again) == fingerprint(whole) and "calibrated on 32 images" in whole.optimised
    other = optimise(net, pixels(8), calibration=noisy(32, seed=4), **whole.setting)
    assert fingerprint(other) != fingerprint(whole)


@needs_nncf
def test_int8_comes_nearer_to_the_network_than_by_the_defaults_of_nncf(net, monkeypatch):
    # few images are as bright as the brightest
    contrast = torch.rand(564, 1, 1, 1, generator=torch.Generator().manual_seed(11))
    seen, new = (contrast * noisy(564, seed=12)).split([64, 500])
    ours = openvino.by_openvino(net, seen, "int8", seen)
    with monkeypatch.context() as patch:
        patch.setattr(openvino, "_in_integers", partial(openvino._in_integers, how=lambda library: {}))
        defaults = openvino.by_openvino(net, seen, "int8", seen)
    with torch.inference_mode():
        near, far = (float((whole(new) - net(new)).norm()) for whole in (ours, defaults))
    assert near < far / 2


@needs_nncf
def test_images_that_were_calibrated_on_are_not_voted_on(net):
    train = pixels(16, seed=7)
    whole = optimise(net, pixels(8), "int8", calibration=train)
    with pytest.raises(ValueError, match="calibrated on, but image 1"):
        vote(
            whole, torch.cat([pixels(1), train[3:4]]), Gaussian(sigma=0.25), 100, num_classes=10, n0=10, progress=False
        )
    assert vote(whole, pixels(1), Gaussian(sigma=0.25), 100, num_classes=10, n0=10, progress=False).n.tolist() == [100]


@needs_nncf
def test_the_zoo_keeps_it_and_refuses_another_file(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_SMOOTH_ZOO", str(tmp_path))
    path = zoo.save_pretrained(whole, "whole", tmp_path, "openvino", data="random pixels")
    back = zoo.pretrained("whole")
    with torch.inference_mode():
        assert torch.equal(back(pixels(5)), whole(pixels(5)))
    assert fingerprint(back) == fingerprint(whole) and back.card["data"] == "random pixels" and back.steady
    held = zoo.load_file(path)
    held["weights"][0] ^= 1
    path.write_bytes(zoo.save(held))
    with pytest.raises(ValueError, match="hash on the card"):
        zoo.pretrained("whole")


@needs_nncf
def test_without_32_bit_sums_the_overflow_fix_is_made_and_asked_for(net, whole, monkeypatch):
    if whole.net.fixed:
        pytest.skip("this processor lacks VNNI, so every network here has the fix")
    card = openvino.settings_of_network(whole.net)
    monkeypatch.setattr(openvino, "adds_in_32_bits", lambda: False)
    with pytest.raises(ValueError, match="overflows"):
        openvino.network_of(dict(graph=whole.net.graph, weights=whole.net.weights), card)
    fixed = optimise(net, pixels(8), "int8", calibration=noisy(32))
    assert fixed.net.fixed and fingerprint(fixed) != fingerprint(whole)
    assert openvino.network_of(
        dict(graph=fixed.net.graph, weights=fixed.net.weights), openvino.settings_of_network(fixed.net)
    ).fixed


def test_saving_takes_only_what_openvino_computes(net, tmp_path):
    with pytest.raises(TypeError, match="must come from optimise"):
        zoo.save_pretrained(net, "plain", tmp_path, "openvino")


def test_without_the_extra_the_message_says_what_to_install(net, monkeypatch):
    monkeypatch.setattr(openvino.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"robust_smooth\[openvino\]"):
        optimise(net, pixels(4), backend="openvino")
    with pytest.raises(ImportError, match=r"robust_smooth\[int8\]"):
        optimise(net, pixels(4), "int8", calibration=noisy(4))
    chosen = optimise(net, pixels(4), seconds=0.05)
    assert chosen.backend.startswith("torch") and "pip install" in chosen.tried["openvino"]


SILENT = """
import socket, sys
def refused(*args, **kwargs): raise AssertionError("a connection was asked for")
socket.socket.connect = refused
import torch
from robust_smooth.training import models, speed
net, x = models.seeded(models.small_convnet).eval(), torch.rand(8, 1, 8, 8)
speed.optimise(net, x, backend="openvino")
{more}
assert "openvino_telemetry" not in sys.modules
"""


@needs_openvino
def test_nothing_is_sent_or_written(tmp_path):
    more = "" if openvino.missing("int8") else 'speed.optimise(net, x, "int8", calibration=x)'
    home, place = tmp_path / "home", tmp_path / "place"
    home.mkdir(), place.mkdir()
    environment = {**__import__("os").environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("XDG_CACHE_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SILENT.format(more=more))],
        cwd=place, env=environment, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [*home.rglob("*")] == [*place.rglob("*")] == []


def test_a_choice_is_made_by_measuring_and_the_setting_measures_nothing(net, monkeypatch):
    asked = []
    rates = {"torch plain": 1.0, "torch folded": 3.0, "torch channels-last": 2.0, "openvino": 2.5}

    def measured(nets, *others):
        asked.append(list(nets))
        return {way: rates[way] for way in nets}

    monkeypatch.setattr(speed, "_rates", measured)
    chosen = optimise(net, pixels(4))
    assert chosen.setting == dict(precision="float32", backend="torch folded") and chosen.tried["torch folded"] == 3.0
    assert "not tried" in chosen.tried["torch compiled"] and "3 images/s" in chosen.report() and len(asked) == 1
    again = optimise(net, pixels(4), **chosen.setting)
    assert len(asked) == 1 and fingerprint(again) == fingerprint(chosen)
    assert optimise(net, pixels(4), "bfloat16").precision == "bfloat16" # never another precision than asked for


def test_what_was_measured_counts_in_no_identity(net):
    fast = optimise(net, pixels(4), backend="torch folded")
    before = fingerprint(fast)
    fast._tried, fast._agreement = {"torch folded": 9.9}, {}
    assert fingerprint(fast) == before
