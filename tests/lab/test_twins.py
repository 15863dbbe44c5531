"Votes in int8: budgets that ask for them, the twins that vote, and what is said where they cannot."
import json
from pathlib import Path

import pytest
import torch

from robust_smooth import wrap
from robust_smooth.core.registry import noise_from_spec
from robust_smooth.lab import budgets, experiment, fast, publish, results, twins
from robust_smooth.noise.additive import Gaussian
from robust_smooth.noise.grid import Splitting
from robust_smooth.training import data, models, openvino, zoo
from robust_smooth.training.identity import fingerprint
from robust_smooth.training.train import NoiseAugmentation

ZOO = Path(models.__file__).resolve().parents[2] / "data" / "zoo"
ORIGINALS = sorted(path.stem for path in ZOO.glob("*.json") if not path.stem.endswith(("-int8", "-clean")))
needs_openvino = pytest.mark.skipif(bool(openvino.missing()), reason=openvino.missing() or "openvino is here")
needs_nncf = pytest.mark.skipif(bool(openvino.missing("int8")), reason=openvino.missing("int8") or "nncf is here")


@pytest.fixture
def plain_zoo(monkeypatch):
    monkeypatch.delenv("ROBUST_SMOOTH_ZOO", raising=False)


def as_runs_wrap(name):
    return wrap(zoo.pretrained(name), num_classes=10)


@pytest.mark.parametrize("name", ORIGINALS)
def test_every_network_of_the_zoo_has_a_twin_that_its_run_finds(name, plain_zoo):
    cards = zoo.zoo()
    card, twin = cards[name], cards[f"{name}-int8"]
    assert twin["original"] == fingerprint(as_runs_wrap(name)) and twin["noise"] == card["noise"]
    assert twin["twin_of"] == name and twin["dataset"] == card["dataset"] and twin["settings"]["precision"] == "int8"
    seen = twin["calibration"]
    # that the budget trains on
    assert seen["data"] == f"{card['dataset']} train" and f"{seen['of']:,} images" in card["data"]
    assert seen["images"] == len(set(twin["settings"]["calibrated"])) == twins.IMAGES and seen["seed"] == twins.SEED
    assert 0.9 < twin["agreement"]["same"] <= 1 and twin["agreement"]["images"] == 1000
    assert "vnni" in twin["optimised"] and len(twin["settings"]["content"]) == 16

    class Train:
        name = seen["data"]
        def __len__(self): return seen["of"]

    wanted = twins.facts(as_runs_wrap(name), noise_from_spec(card["noise"]), Train())
    assert twins.twin_in_zoo(wanted) == (f"{name}-int8" if openvino.adds_in_32_bits() else "")
    assert seen.items() >= openvino.SCALING.items()
    # a twin whose scales were found otherwise, or of a card that does not say how, is another one
    for key in openvino.SCALING:
        for other in (seen | {key: "otherwise"}, {kept: value for kept, value in seen.items() if kept != key}):
            assert twins.twin_in_zoo(wanted | dict(calibration=other)) == ""


@needs_openvino
@pytest.mark.skipif(not openvino.adds_in_32_bits(), reason="the twins of the zoo need a processor with VNNI")
@pytest.mark.parametrize("name", ORIGINALS)
def test_a_twin_computes_about_what_its_original_does(name, plain_zoo):
    original, twin = as_runs_wrap(name), zoo.pretrained(f"{name}-int8")
    shape, generator = twin.card["settings"]["shape"], torch.Generator().manual_seed(0)
    coarse = torch.rand((64, shape[0], 4, 4), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=tuple(shape[1:]), mode="bilinear")
    x = smooth + twin.card["noise"]["sigma"] * torch.randn(smooth.shape, generator=generator)
    with torch.inference_mode():
        want, got = original(x), twin(x)
        assert float((got - want).norm() / (want - want.mean(0)).norm()) < 0.4
        other = zoo.pretrained(next(other for other in ORIGINALS if other != name and other[:5] == name[:5]))
        wrong = wrap(other, num_classes=10)(x)
    # nearer to its original than that is to another
    assert float((wrong - want).norm()) > 2 * float((got - want).norm())


def test_the_twins_stay_out_of_the_wheel():
    carried = [path for path in ZOO.glob("*") if not path.stem.endswith(("-int8", "-clean"))]
    assert sum(path.stat().st_size for path in carried) <= 6e6 < 40e6 and len(carried) >= 2 * len(ORIGINALS) > 0


def test_calibration_takes_training_images_and_the_very_noise():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    still = twins.calibration(train, Gaussian(sigma=1e-9))
    levels = lambda images: [image.numpy().tobytes() for image in (images * 16).round().to(torch.uint8)]
    assert set(levels(still)) <= set(levels(train.images)) and len(still) == 256 < len(train)
    # drawn without replacement
    assert len(set(levels(still))) > 250 and not set(levels(still)) & set(levels(test.images))
    noisy = twins.calibration(train, Gaussian(sigma=0.5))
    spread = float((noisy - still).std())
    assert abs(spread - 0.5) < 5 * 0.5 / (2 * noisy.numel()) ** 0.5
    assert len(twins.calibration(data.load("digits", "train", subset=40), Gaussian(sigma=0.5))) == 40


@pytest.mark.parametrize("behind, precision", [("-int8", "int8"), ("-openvino", "float32")])
def test_what_stands_behind_a_budget_changes_the_network_that_votes_alone(behind, precision):
    for (name, dataset) in budgets._SIZES:
        plain, other = budgets.budget_for(name, dataset), budgets.budget_for(f"{name}{behind}", dataset)
        different = {part for part in vars(plain) if getattr(plain, part) != getattr(other, part)}
        assert different == {"name", "voting", "note"} and precision in other.note
        assert budgets.whose_sizes(other.name) == name
        assert fast.votes_as(other.voting, Gaussian(sigma=0.5)) == dict(precision=precision, backend="openvino")
        assert fast.votes_as(other.voting, Splitting.from_sigma(0.5, q=16))["precision"] == "float32"


def test_without_the_extra_the_run_says_so_before_it_begins(home, monkeypatch):
    monkeypatch.setattr(openvino.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"robust_smooth\[openvino\]"):
        experiment.Experiment("demo", budget="smoke-int8")
    assert experiment.Experiment("demo", budget="smoke").smoke


@needs_openvino
def test_a_twin_that_is_to_be_made_needs_the_other_extra(home, monkeypatch):
    run = experiment.Experiment("demo", budget="smoke-int8")
    model = run.classifier(NoiseAugmentation(Gaussian(sigma=0.25)))
    found = openvino.importlib.util.find_spec
    monkeypatch.setattr(openvino.importlib.util, "find_spec", lambda name: None if name == "nncf" else found(name))
    with pytest.raises(ImportError, match=r"robust_smooth\[int8\]"):
        run.votes(model, Gaussian(sigma=0.25))


@needs_nncf
def test_a_run_votes_by_twins_and_says_so_everywhere(home, capsys):
    run = experiment.Experiment("demo", budget="smoke-int8", n=500, images=5)
    assert run.smoke and "openvino, int8" in repr(run) and "votes in int8" in repr(run)
    plain = experiment.Experiment("demo", budget="smoke", n=500, images=5)
    noises = [Gaussian(sigma=0.25), Gaussian(sigma=0.5)]
    model = run.classifier(NoiseAugmentation(noises[0]))
    assert fingerprint(plain.classifier(NoiseAugmentation(noises[0]))) == fingerprint(model) # one training serves both
    records = [run.votes(model, noise) for noise in noises]
    usual = plain.votes(model, noises[0])
    said = [record.provenance["optimised"] for record in records]
    assert all(words.startswith("openvino, int8") and "calibrated on 256 images" in words for words in said)
    assert "optimised" not in usual.provenance or "int8" not in usual.provenance["optimised"]
    kept = sorted((home / "home" / "twins").glob("*/twin.json"))
    assert len(kept) == 2 # one for each noise
    assert {json.loads(path.read_text())["noise"]["sigma"] for path in kept} == {0.25, 0.5}
    exact = run.votes(model, Splitting.from_sigma(0.5, q=16))
    assert exact.provenance["optimised"].startswith("openvino, float32")
    run.finish()
    facts = json.loads((run.folder / "finished.json").read_text())
    assert facts["budget"]["voting"] == "openvino, int8" and any(
        "int8" in voter for voter in facts["provenance"]["voters"]
    )
    again = experiment.Experiment("demo", budget="smoke-int8", n=500, images=5)
    assert (again.votes(model, noises[0]).counts == records[0].counts).all() and len(
        list((home / "home" / "twins").glob("*/twin.json"))
    ) == 2


@needs_nncf
def test_moments_are_collected_beside_votes_in_int8(home):
    run = experiment.Experiment("demo", budget="smoke-int8", n=300, images=3)
    model = run.classifier(NoiseAugmentation(Gaussian(sigma=0.25)))
    with_moments, without = (run.votes(model, Gaussian(sigma=0.25), moments=asked) for asked in (True, False))
    assert (with_moments.counts == without.counts).all()


@needs_nncf
def test_what_is_no_base_classifier_votes_as_it_is_with_a_note(home, capsys):
    class Odd(torch.nn.Module):
        num_classes = 10
        def forward(self, x): return x.flatten(1)[:, :10]
    odd = Odd().eval()
    assert twins.int8_twin(odd, Gaussian(sigma=0.25), data.load("digits", "train")) is odd
    assert "votes as it is, not in int8" in capsys.readouterr().out


@needs_nncf
def test_a_twin_of_the_zoo_is_made_once_and_found(home, monkeypatch):
    folder = home / "zoo"
    monkeypatch.setenv("ROBUST_SMOOTH_ZOO", str(folder))
    folder.mkdir()
    path = publish.add_to_zoo("digits", Gaussian(sigma=0.25), "smoke", folder=folder, n=100)
    twin = publish.add_twin(path.stem, folder=folder)
    before = twin.read_bytes()
    assert twin.name == f"{path.stem}-int8.safetensors" and publish.add_twin(path.stem, folder=folder) == twin
    card = zoo.zoo()[twin.stem]
    assert twin.read_bytes() == before and card["twin_of"] == path.stem and 0.5 < card["agreement"]["same"] <= 1
    run = experiment.Experiment("demo", budget="smoke-int8", n=100, images=3)
    (home / "home" / "twins").rename(home / "gone")
    record = run.votes(run.classifier(NoiseAugmentation(Gaussian(sigma=0.25))), Gaussian(sigma=0.25))
    assert "int8" in record.provenance["optimised"] and not (home / "home" / "twins").exists() # from the zoo
    with pytest.raises(ValueError, match="trained with noise"): publish.add_twin(twin.stem, folder=folder)
    twin.with_suffix(".json").write_text(json.dumps(card | dict(original="0" * 16)))
    with pytest.raises(ValueError, match="in the zoo with"): publish.add_twin(path.stem, folder=folder)


def test_results_of_other_voters_have_a_place_of_their_own(tmp_path):
    for name in ("one-mnist-cpu", "one-mnist-cpu-int8", "one-mnist-cpu-openvino", "one-mnist-gpu-int8"):
        (tmp_path / name).mkdir()
    order = [path.name for path in results.published(tmp_path)["one"]]
    # the original counts as the largest of the three
    assert order == ["one-mnist-cpu-int8", "one-mnist-cpu-openvino", "one-mnist-cpu", "one-mnist-gpu-int8"]
    assert publish._suffix(dict(parameters=dict(dataset="mnist", budget="cpu-int8"))) == "-mnist-cpu-int8"
