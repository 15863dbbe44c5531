"The cache, the experiment object and the runner, without kernels where none is needed."
import concurrent.futures
import dataclasses
import errno
import json
import multiprocessing
import os
import socket
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from robust_smooth.lab import findings, reproduce
from robust_smooth.training import data, models
from robust_smooth.core.hashes import content_hash
from robust_smooth.noise.additive import Gaussian
from robust_smooth.noise.grid import Splitting
from robust_smooth.smoothed import Smoothed
from robust_smooth.training.train import NoiseAugmentation, Standard
from robust_smooth.lab import budgets
from robust_smooth.lab import fast as fast_words
from robust_smooth.lab import machine
from robust_smooth.lab import experiment
from robust_smooth.lab import cache
from robust_smooth.lab import claims
from robust_smooth.lab import definitions
from robust_smooth.lab import grids
from robust_smooth.lab import notebooks
from robust_smooth.lab import tasks
from robust_smooth.lab import publish
from robust_smooth.lab import schedulers

ROOT = Path(reproduce.__file__).resolve().parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(tmp_path / "home"))
    for name in ("ROBUST_SMOOTH_RUN", "ROBUST_SMOOTH_SHARDS"): monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "cifar100", "svhn", "imagenet"])
def test_budgets_grow(dataset):
    sizes = [budgets.budget_for(name, dataset) for name in budgets.BUDGETS]
    for small, large in zip(sizes, sizes[1:]):
        assert small.images <= large.images and small.n <= large.n and small.n0 <= large.n0
    assert sizes[-1].n == 100_000 and sizes[-1].n0 == 100 and sizes[-1].images == 500


def test_the_quick_budget_is_the_documented_one():
    b = budgets.budget_for("quick", "digits")
    assert (b.n0, b.n, b.images, b.train_images) == (100, 10_000, 100, None)


@pytest.mark.parametrize(
    "more, said",
    [
        (dict(n=0), "n must be"),
        (dict(n=True), "n must be"),
        (dict(n=10.5), "n must be"),
        (dict(budget="huge"), "budget"),
        (dict(dataset="moons"), "dataset"),
        (dict(alpha=0), "alpha"),
        (dict(alpha=1.0), "alpha"),
        (dict(seed=-1), "seed"),
        (dict(checkpoint="/no/such.pt"), "checkpoint"),
    ],
)
def test_bad_settings_are_named(home, more, said):
    with pytest.raises(ValueError, match=said): experiment.Experiment("demo", **more)
    with pytest.raises(ValueError, match="name"): experiment.Experiment("../demo")


def _build_slowly(folder, queue):
    def build(part):
        with open(Path(folder) / "built", "a") as log: log.write("x")
        time.sleep(0.3)
        part.write_text("whole")
    queue.put(cache.cached(Path(folder) / "thing", build))


def test_processes_that_want_the_same_thing_build_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_build_slowly, args=(tmp_path, queue)) for _ in range(4)]
    for worker in workers: worker.start()
    hits = sorted(queue.get(timeout=60) for _ in workers)
    for worker in workers: worker.join()
    assert (
        hits == [False, True, True, True]
        and (tmp_path / "built").read_text() == "x"
        and (tmp_path / "thing").read_text() == "whole"
    )


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_a_file_system_has_no_locks_a_file_is_one(tmp_path, monkeypatch, code):
    "Every experiment ended in a raw OSError there, or waited for ever."
    fcntl = pytest.importorskip("fcntl")

    def no_locks(descriptor, operation):
        raise OSError(code, os.strerror(code))
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with cache.locked(tmp_path / "a") as first, cache.locked(tmp_path / "a", wait=False) as second:
        assert first and not second
    assert not cache.cached(tmp_path / "a", lambda part: part.write_text("whole"))
    assert cache.cached(tmp_path / "a", lambda part: part.write_text("again")) and (tmp_path / "a").read_text() == "whole"


def test_a_home_is_tried_by_many_threads_and_under_no_name_that_can_be_guessed(tmp_path, monkeypatch):
    "One thread removed what another had just written; a link under the name emptied the file that it leads to."
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "home" / f".{os.getpid()}.tmp").symlink_to(tmp_path / "mine")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: cache.home(), range(800))) == {(tmp_path / "home").resolve()}
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="sockets are files")
def test_sockets_have_short_names_whatever_the_folder_for_temporary_files_is_called(tmp_path, monkeypatch):
    "Every run of a sweep ended in ZMQError: File name too long."
    from robust_smooth.lab import kernels
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with kernels._sockets() as folder, socket.socket(socket.AF_UNIX) as one:
        one.bind(f"{folder}/k-5")
        assert kernels.remove_left_sockets() == 0 and Path(folder).is_dir()
    assert not Path(folder).exists()


def _build_and_die(folder):
    def build(part):
        part.write_text("half")
        os.kill(os.getpid(), 9)
    cache.cached(Path(folder) / "thing", build)


def test_a_builder_that_is_killed_leaves_nothing_that_looks_whole_and_no_lock(tmp_path):
    worker = multiprocessing.get_context("fork").Process(target=_build_and_die, args=(tmp_path,))
    worker.start(); worker.join()
    assert worker.exitcode == -9 and not (tmp_path / "thing").exists()
    parts = []
    def resume(part): parts.append(part.read_text()); part.write_text(part.read_text() + " and half")
    assert cache.cached(tmp_path / "thing", resume) is False
    assert parts == ["half"] and (tmp_path / "thing").read_text() == "half and half"


def test_a_part_of_cifar100_does_only_where_no_more_is_wanted(home, monkeypatch):
    asked = []
    def load(name, split, data_dir=None, subset=None):
        asked.append((split, subset))
        if split == "train": raise data.MissingData("not at hand")
        return subset
    monkeypatch.setattr(data, "load", load)
    run = experiment.Experiment("demo", dataset="cifar100", budget="cpu")
    assert run.training_images(500) == 500 and asked == [("train", 500), ("train_first10000", 500)]
    for wanted in (None, 20_000):
        with pytest.raises(data.MissingData): run.training_images(wanted)
    with pytest.raises(data.MissingData): run.train


def test_training_and_voting_happen_once_and_give_the_same_again(home):
    run = experiment.Experiment("demo", budget="smoke")
    recipe = NoiseAugmentation(Gaussian(sigma=0.25))
    first, again = run.classifier(recipe), experiment.Experiment("demo", budget="smoke").classifier(recipe)
    assert not first.training and first.num_classes == 10
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))
    assert len(list((home / "home" / "classifiers").glob("*.safetensors"))) == 1 and not list(
        (home / "home" / "classifiers").glob("*.training")
    )
    for other in (dict(seed=1), dict(epochs=1)): run.classifier(recipe, **other)
    run.classifier(NoiseAugmentation(Gaussian(sigma=0.5)))
    assert len(list((home / "home" / "classifiers").glob("*.safetensors"))) == 4
    votes = run.votes(first, Gaussian(sigma=0.25))
    assert (
        (run.votes(again, Gaussian(sigma=0.25)).counts == votes.counts).all()
        and len(votes) == 10
        and (votes.n == 1000).all()
    )
    assert (votes.index == run.test.index.numpy()).all()
    for other in (dict(n=500), dict(seed=1), dict(images=run.data("test", 4))):
        run.votes(first, Gaussian(sigma=0.25), **other)
    assert len(list((home / "home" / "votes").glob("*.votes"))) == 4
    assert run.votes(first, Gaussian(sigma=0.25)).certify("l2").alpha == 0.001


def test_shards_merge_to_the_single_vote(home, monkeypatch):
    run = experiment.Experiment("demo", budget="smoke")
    model = run.classifier(NoiseAugmentation(Gaussian(sigma=0.25)))
    single = run.votes(model, Gaussian(sigma=0.25))
    for path in (home / "home" / "votes").glob("*.votes"): path.unlink()
    monkeypatch.setenv("ROBUST_SMOOTH_SHARDS", "1/3")
    merged = run.votes(model, Gaussian(sigma=0.25))
    assert len(list((home / "home" / "votes").glob("*of3.votes"))) == 3
    for name in ("counts", "selection", "index", "n", "images"):
        assert (getattr(merged, name) == getattr(single, name)).all()


def test_shards_of_another_number_are_not_counted_again(home, monkeypatch):
    "A run that was given other shards than before counted every image anew."
    from robust_smooth.voting import votes
    run = experiment.Experiment("demo", budget="smoke")
    model, place = run.classifier(NoiseAugmentation(Gaussian(sigma=0.25))), home / "home" / "votes"
    single = run.votes(model, Gaussian(sigma=0.25))
    whole = next(place.glob("*.votes"))
    monkeypatch.setenv("ROBUST_SMOOTH_SHARDS", "0/3")
    whole.unlink()
    run.votes(model, Gaussian(sigma=0.25))
    counted, count = [], votes.run

    def watched(engine, job, *rest):
        counted.extend(job.index.tolist())
        return count(engine, job, *rest)
    monkeypatch.setattr(votes, "run", watched)
    for shards in ("0/2", "0/1"):
        monkeypatch.setenv("ROBUST_SMOOTH_SHARDS", shards)
        whole.unlink()
        again = run.votes(model, Gaussian(sigma=0.25))
        assert not counted
        for name in ("counts", "selection", "index", "n", "images"):
            assert (getattr(again, name) == getattr(single, name)).all()
    for path in [whole, *place.glob("*of2.votes"), *place.glob("[!.]*-1of3.votes")]: # what was interrupted
        path.unlink()
    lost = set(single.index[4:7].tolist())
    next(place.glob("[!.]*-2of3.votes")).rename(place / f"{whole.stem}-0of5.votes.part")
    again = run.votes(model, Gaussian(sigma=0.25))
    assert set(counted) == lost and (again.counts == single.counts).all() and (again.index == single.index).all()


def test_a_checkpoint_of_ones_own_takes_the_place_of_training_and_cannot_run_code(home):
    run = experiment.Experiment("demo", budget="smoke")
    model = run.classifier(NoiseAugmentation(Gaussian(sigma=0.25)))
    stored = next((home / "home" / "classifiers").glob("*.safetensors"))
    mine = experiment.Experiment("demo", budget="smoke", checkpoint=str(stored)).classifier(
        NoiseAugmentation(Gaussian(sigma=9.0))
    )
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), mine.state_dict().values()))
    class Evil:
        def __reduce__(self): return (os.system, (f"touch {home / 'pwned'}",))
    torch.save({"state_dict": Evil()}, home / "evil.pt")
    with pytest.raises(Exception, match="(?i)weights"):
        experiment.Experiment("demo", budget="smoke", checkpoint=str(home / "evil.pt")).classifier(
            NoiseAugmentation(Gaussian(sigma=0.25))
        )
    assert not (home / "pwned").exists()


@pytest.mark.parametrize("damage", ["one bit of a weight", "cut off", "another network's"])
def test_a_kept_network_that_is_damaged_is_named_and_never_votes(home, damage):
    recipe = NoiseAugmentation(Gaussian(sigma=0.25))
    experiment.Experiment("demo", budget="smoke").classifier(recipe)
    stored = next((home / "home" / "classifiers").glob("*.safetensors"))
    whole = bytearray(stored.read_bytes())
    whole[-1] ^= 1
    if damage == "another network's":
        experiment.Experiment("demo", budget="smoke", seed=1).classifier(recipe)
        whole = next(p for p in stored.parent.glob("*.safetensors") if p != stored).read_bytes()
        with safe_open(stored, framework="pt") as mine:
            said = mine.metadata()
        whole = save(load(whole), metadata=said)
    stored.write_bytes(whole[:-5] if damage == "cut off" else whole)
    with pytest.raises(ValueError, match=f"{stored.name} .*(other weights|does not hold)"):
        experiment.Experiment("demo", budget="smoke").classifier(recipe)
    stored.unlink()
    experiment.Experiment("demo", budget="smoke").classifier(recipe)


def test_an_experiment_leaves_tables_figures_claims_and_provenance(home):
    from matplotlib import pyplot as plt
    run = experiment.Experiment("demo", budget="smoke", sigmas=[0.25])
    assert "smoke" in repr(run) and "10 test images" in repr(run)
    both = run.table(
        pd.DataFrame(dict(method=["basic"], sigma=[0.25], radius=[0.0], value=[0.9])),
        printed=pd.DataFrame(dict(method=["basic"], sigma=[0.25], radius=[0.0], value=[0.75], dataset="cifar10")),
    )
    assert both.difference.round(9).tolist() == [0.15]
    wide = run.table(
        pd.DataFrame(dict(sigma=[0.25], r0=[0.9])), name="wide", printed=pd.DataFrame(dict(sigma=[0.25], r0=[0.8]))
    )
    assert wide.source.tolist() == ["ours", "printed"]
    run.figure(plt.figure()); run.value("best", np.float64(0.5))
    for holds in (True, np.bool_(False), None): run.claim("a claim", "evidence", holds)
    frame = run.finish()
    assert frame.verdict.tolist() == ["holds", "does not hold here", "not testable here"]
    facts = json.loads((run.folder / "finished.json").read_text())
    assert (
        facts["tables"] == ["table", "table_beside", "wide", "wide_beside"]
        and facts["figures"] == ["figure"]
        and facts["values"] == {"best": 0.5}
    )
    assert facts["budget"]["n"] == 1000 and facts["parameters"]["sigmas"] == [0.25] and facts["provenance"]["seed"] == 0
    for bad in ("../x", "a b", ""):
        with pytest.raises(ValueError, match="name"): run.table(frame, name=bad)


def _experiments(): return notebooks.experiments()


@pytest.mark.parametrize("name", _experiments())
def test_experiment_notebooks_have_one_cell_of_plain_parameters(name):
    defaults = notebooks.default_parameters(notebooks.find_notebook(name))
    assert {"dataset", "budget", "n", "alpha", "seed", "checkpoint", "data_dir"} <= set(defaults)
    assert defaults["dataset"] == "digits" and defaults["budget"] == "quick" and defaults["seed"] == 0
    sources = "\n".join(cell["source"] for cell in notebooks.code_cells(notebooks.find_notebook(name)))
    cells = json.loads(notebooks.find_notebook(name).read_text())["cells"]
    (cell,) = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    assert all(" # " in line for line in cell.splitlines()), (
        "the guide sends readers to the words beside each parameter"
    )
    assert f'Experiment("{name}"' in sources.replace("'", '"') and ".finish()" in sources


def test_the_key_of_a_run_follows_from_everything_that_it_follows_from(home, monkeypatch):
    make = lambda **p: tasks.make_task("gaussian_table1", p).key
    base = make()
    assert base == make(budget="quick") == make(seed=0) != make(seed=1) != make(alpha=0.01)
    monkeypatch.setattr(tasks, "_code_version", lambda sources: "other code")
    assert make() != base
    monkeypatch.undo()
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(home / "home"))
    monkeypatch.setattr(tasks, "_papers_version", lambda: "other numbers")
    assert make() != base
    with pytest.raises(ValueError, match="budget"): make(budget="quikc")
    with pytest.raises(ValueError, match="list"): make(sigmas=0.25)


def test_other_pictures_of_the_same_size_are_other_data(home, monkeypatch):
    "Two data sets in the layout of MNIST have files of equal sizes: a finished run of the one was handed out for the other."
    def task(place, dataset="mnist", **more):
        monkeypatch.setenv("ROBUST_SMOOTH_DATA", str(home / place))
        return tasks.make_task("gaussian_table1", dict(dataset=dataset, budget="smoke", **more))

    for place, byte in (("digits", b"\1"), ("fashion", b"\2"), ("again", b"\1")):
        folder = home / place / "MNIST" / "raw"
        folder.mkdir(parents=True)
        (folder / "t10k-images-idx3-ubyte").write_bytes(b"\0" * 300_000 + byte + b"\0" * 300_000)
    (home / "again" / "notes.txt").write_text("of no data set")
    assert task("digits").key == task("again").key != task("fashion").key
    assert task("digits", "digits").key == task("fashion", "digits").key # they are embedded
    one = task("digits")
    monkeypatch.setenv("ROBUST_SMOOTH_DATA", str(home / "fashion"))
    assert tasks.differences(one) == ["the data"]
    monkeypatch.delenv("ROBUST_SMOOTH_DATA")
    given = [tasks.make_task("gaussian_table1", dict(dataset="mnist", budget="smoke", data_dir=str(home / place)))
             for place in ("digits", "fashion")]
    assert given[0].versions["the data"] == one.versions["the data"] != given[1].versions["the data"]


def test_a_run_from_end_to_end_twice_with_report_and_views(home, monkeypatch, capsys):
    pytest.importorskip("papermill", reason="needs the extra [repro]")
    outcome = reproduce.run("gaussian_table1", budget="smoke", out=home / "out", quiet=False, sigmas=[0.25])
    assert [r["status"] for r in outcome.reports] == ["done"], outcome
    said = capsys.readouterr()
    assert (
        "1 done, 0 cached, 0 FAILED; claims: " in said.out
        and "[1/1] gaussian_table1" in said.err
        and "report: " in said.out
    )
    page = Path(outcome.report).read_text()
    assert (
        "gaussian_table1" in page
        and "data:image/png;base64," in page
        and "Gaussian smoothing" in page
        and "https://" not in page
    )
    again = reproduce.run("gaussian_table1", budget="smoke", out=home / "out", quiet=True, sigmas=[0.25])
    assert [r["status"] for r in again.reports] == ["cached"]
    assert set(outcome.claims().verdict) <= set(claims.VERDICTS) and len(outcome.table()) == 13
    monkeypatch.setattr(publish, "checkout", lambda: home / "lot")
    (home / "lot").mkdir()
    publish.publish(outcome.tasks)
    kept = home / "lot" / "data" / "results" / "gaussian_table1-digits-smoke"
    assert {"table.csv", "table.md", "claims.csv", "run.json"} <= {p.name for p in kept.iterdir()} and (
        home / "lot" / "figures" / "gaussian_table1-digits-smoke.png"
    ).is_file()


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: reproduce.run([]), "at least one"),
        (lambda: reproduce.run("gaussian_table1", nothing=1), "no parameter"),
        (lambda: reproduce.sweep([], {}), "at least one"),
        (lambda: reproduce.sweep("gaussian_table1", 7), "grid"),
        (lambda: schedulers.drive([], jobs=-1), "jobs"),
    ],
)
def test_bad_calls_are_named_before_anything_runs(home, call, said):
    with pytest.raises(ValueError, match=said): call()


@pytest.fixture
def fast(monkeypatch): # digits, as a budget that trains and votes in bfloat16
    sizes = budgets._SIZES["smoke", "digits"] | dict(
        network="small_convnet", epochs=2, images=40, n=2000,
        voting="torch channels-last, bfloat16",
        training="channels-last, bfloat16",
    )
    monkeypatch.setitem(budgets._SIZES, ("smoke", "digits"), sizes)


def test_fast_budgets_vote_with_the_rebuilt_network_and_keep_float32_for_splits(home, fast, monkeypatch):
    run, noise = experiment.Experiment("demo", budget="smoke"), Gaussian(sigma=0.25)
    model = run.classifier(NoiseAugmentation(noise))
    record = run.votes(model, noise)
    assert record.provenance["precision"] == "bfloat16" and "rebuilt: torch channels-last, bfloat16" in repr(run)
    assert run.votes(model, Splitting.from_sigma(0.5, q=16)).provenance["precision"] == "float32"
    plain = Smoothed(model, noise).vote(run.test, n=2000, n0=20, seed=0, progress=False)
    # the same weights: rounding moves few votes beyond chance
    difference = np.abs(record.counts - plain.counts).sum(1) / 2 / 2000
    assert difference.max() < 0.1 and np.mean(record.selected == plain.selected) > 0.9
    sizes = budgets._SIZES["smoke", "digits"] | dict(
        voting="torch channels-last, float32", training="channels-last, float32"
    )
    monkeypatch.setitem(budgets._SIZES, ("smoke", "digits"), sizes)
    other = experiment.Experiment("demo", budget="smoke")
    assert other.votes(model, noise).provenance["precision"] == "float32"


def test_the_zoo_serves_the_budget_that_made_it_and_no_other(home, fast, monkeypatch):
    folder = home / "zoo"
    folder.mkdir()
    monkeypatch.setenv("ROBUST_SMOOTH_ZOO", str(folder))
    path = publish.add_to_zoo("digits", Gaussian(sigma=0.25), "smoke", folder=folder)
    card = models.zoo()[path.stem]
    assert (
        path.stem == "digits-small_convnet-gaussian-0.25"
        and 0 <= card["accuracy_without_noise"] <= 1
        and card["certified"]["n"] == 2000
    )
    served = lambda sigma, **more: experiment.Experiment("demo", budget="smoke", **more).classifier(
        NoiseAugmentation(Gaussian(sigma=sigma))
    )
    built = lambda: len(list((home / "home" / "classifiers").glob("*.safetensors")))
    before = built()
    assert models.fingerprint(served(0.25).net) == card["fingerprint"] and built() == before
    served(0.25, seed=1)
    served(0.25, epochs=1)
    served(0.5)
    assert built() == before + 3
    monkeypatch.setattr(publish, "checkout", lambda: None)
    with pytest.raises(ValueError, match="folder"): publish.add_to_zoo("digits", Gaussian(sigma=0.25), "smoke")


def test_a_network_of_clean_images_says_nothing_of_noise(home, fast, monkeypatch):
    folder = home / "zoo"
    folder.mkdir()
    monkeypatch.setenv("ROBUST_SMOOTH_ZOO", str(folder))
    path = publish.add_to_zoo("digits", None, "smoke", folder=folder)
    card = models.zoo()[path.stem]
    assert path.stem == "digits-small_convnet-clean" and not {"noise", "certified"} & set(card)
    assert card["recipe"] == repr(Standard()) and models.said_of(card).endswith(
        f"without noise; accuracy {card['accuracy_without_noise']:.2f}"
    )
    assert (
        models.fingerprint(experiment.Experiment("demo", budget="smoke").classifier(Standard()).net)
        == card["fingerprint"]
    )
    with pytest.raises(ValueError, match="trained with noise"): publish.add_twin(path.stem, folder=folder)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "nbs" / "experiments" / "grids").glob("*.yaml")), ids=lambda path: path.stem
)
def test_grids_of_real_data_name_experiments_and_parameters_that_exist(home, path):
    entries = grids.read_grid(path)
    frame = reproduce.sweep(entries, dry_run=True)
    assert (
        len(frame) >= len(entries) >= 1
        and {entry["parameters"]["dataset"] for entry in entries} == {path.stem.split("-")[0]}
        and {budgets.whose_sizes(entry["parameters"]["budget"]) for entry in entries} == {path.stem.split("-")[1]}
    )


def _finished(folder, experiment, key, chosen, table, images=100, n=1000):
    task = tasks.Task(experiment, "", {}, chosen, key, str(folder), str(folder))
    task.folder.mkdir(parents=True)
    table.to_csv(task.folder / "table.csv", index=False)
    facts = dict(
        experiment=experiment,
        parameters=dict(dataset="digits", budget="quick", **chosen),
        budget=dict(images=images, n=n),
        tables=["table"], figures=[], claims=[], values={},
    )
    (task.folder / "result.json").write_text(json.dumps(facts))
    return task


def test_a_summary_keeps_the_columns_of_the_tables(tmp_path):
    frame = reproduce.summary(
        [_finished(tmp_path, "degrees", "a", dict(n=1000, seed=1), pd.DataFrame(dict(n=[1, 3], value=[0.1, 0.2])))]
    )
    assert frame.n.tolist() == [1, 3] and frame.parameter_n.tolist() == [1000, 1000] and frame.seed.tolist() == [1, 1]


def test_a_parameter_has_one_column_in_a_summary(tmp_path):
    "Of a run without a table, its parameter n stood in the column of the tables' n."
    kept = _finished(tmp_path, "degrees", "a", dict(n=1000, seed=1), pd.DataFrame(dict(n=[1, 3], value=[0.1, 0.2])))
    failed = tasks.Task("degrees", "", {}, dict(n=2000, seed=2), "b", str(tmp_path), str(tmp_path))
    frame = reproduce.summary([kept, failed])
    assert frame.parameter_n.tolist() == [1000, 1000, 2000] and frame.n.isna().tolist() == [False, False, True]


def test_publishing_never_mixes_runs_nor_replaces_a_larger_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(publish, "checkout", lambda: tmp_path / "checkout")
    table = pd.DataFrame(dict(value=[1.0]))
    large, small = (
        _finished(tmp_path / name, "one", name, dict(seed=number), table, images=images)
        for number, (name, images) in enumerate(dict(large=100, small=10).items())
    )
    with pytest.raises(ValueError, match="share one folder"): publish.publish([large, small])
    assert len(publish.placed([large, large])) == 1 # asked for twice
    assert (
        len(publish.publish([large])) == 1
        and publish.publish([small]) == []
        and "keeps its larger run" in capsys.readouterr().out
    )
    assert json.loads((tmp_path / "checkout/data/results/one/run.json").read_text())["parameters"]["seed"] == 0


@pytest.mark.parametrize(
    "damaged",
    ["", "{", "<<<<<<< ours\n{}\n", "[]", '{"budget": "quick"}', '{"budget": {"images": "100", "n": 5}}', "\x00"],
)
def test_results_whose_facts_cannot_be_read_are_not_replaced(damaged, tmp_path, monkeypatch, capsys):
    "A damaged run.json was taken for none: whatever came next replaced the run that it described."
    monkeypatch.setattr(publish, "checkout", lambda: tmp_path / "checkout")
    run = _finished(tmp_path / "one", "one", "one", dict(seed=0), pd.DataFrame(dict(value=[1.0])), images=10)
    (target := tmp_path / "checkout/data/results/one").mkdir(parents=True)
    (target / "run.json").write_text(damaged)
    assert publish.publish([run]) == [] and "cannot be read" in capsys.readouterr().out
    assert [path.name for path in target.iterdir()] == ["run.json"] and (target / "run.json").read_text() == damaged
    (target / "run.json").unlink()
    assert publish.publish([run]) == [target]


def test_a_card_of_the_zoo_that_cannot_be_read_is_not_replaced(home, tmp_path):
    settings = dict(budget="smoke", folder=tmp_path / "zoo", n=100)
    (tmp_path / "zoo").mkdir()
    card = tmp_path / "zoo" / "digits-mlp-gaussian-0.25.json"
    card.write_text("{")
    with pytest.raises(ValueError, match="card that cannot be read"):
        publish.add_to_zoo("digits", Gaussian(sigma=0.25), **settings)
    assert (
        card.read_text() == "{"
        and publish.add_to_zoo("digits", Gaussian(sigma=0.25), replace=True, **settings).stem == card.stem
    )


def test_names_of_the_zoo_are_exact_and_not_taken_by_another_recipe(home, tmp_path):
    settings = dict(budget="smoke", folder=tmp_path / "zoo", n=100)
    first = publish.add_to_zoo("digits", Gaussian(sigma=0.125), **settings)
    assert (
        first.stem == "digits-mlp-gaussian-0.125"
        and publish.add_to_zoo("digits", Gaussian(sigma=0.25), **settings).stem == "digits-mlp-gaussian-0.25"
    )
    with pytest.raises(ValueError, match="in the zoo with"):
        publish.add_to_zoo("digits", Gaussian(sigma=0.125), seed=1, **settings)
    assert publish.add_to_zoo("digits", Gaussian(sigma=0.125), seed=1, replace=True, **settings) == first


@pytest.mark.parametrize("wrong", [dict(sigma=-0.5), dict(sigma=0), dict(sigmas=[0.5, -1])])
def test_a_noise_level_that_no_noise_has_is_refused_before_a_kernel_starts(home, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be larger than 0"):
        tasks.make_task("gaussian_table1", wrong)


def test_missing_data_is_answered_by_what_a_run_can_do():
    from robust_smooth.lab.kernels import _in_parameters
    said = _in_parameters(
        "MissingData: MNIST: x lacks y; give another data_dir (or set ROBUST_SMOOTH_DATA), or download=True"
    )
    assert said.endswith("(or set ROBUST_SMOOTH_DATA); robust_smooth.data.load(NAME, download=True) fetches it")


def test_paths_are_resolved_before_a_notebook_runs_elsewhere(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights.safetensors").write_bytes(b"x")
    task = tasks.make_task("gaussian_table1", dict(budget="smoke", checkpoint="weights.safetensors", data_dir="sets"))
    assert task.chosen["checkpoint"] == str(tmp_path / "weights.safetensors") and task.chosen["data_dir"] == str(
        tmp_path / "sets"
    )
    with pytest.raises(ValueError, match="file of weights"):
        tasks.make_task("gaussian_table1", dict(budget="smoke", checkpoint="nowhere.safetensors"))


def test_a_header_shows_the_sizes_a_notebook_chooses(home):
    run = experiment.Experiment("headers", budget="smoke")
    assert "test images, n0" in repr(run)
    text = repr(run.using(images=7, n=None, epochs=3, network="a bottleneck"))
    assert "7 test images, no draws" in text and "3 epochs" in text and "a bottleneck" in text
    assert "nothing is trained here" in repr(run.using(epochs=None, images=None)) and "no test images" in repr(run)
    with pytest.raises(ValueError, match="fields of Budget"): run.using(pictures=3)


@pytest.mark.parametrize("before, now, kept", [
    (findings.USED, findings.ABSENT, True),
    (findings.NOT_ASKED, findings.ABSENT, True),
    (findings.ABSENT, findings.ABSENT, False),
    (findings.USED, findings.USED, False),
    (findings.ABSENT, findings.USED, False),
])
def test_a_committed_run_stays_where_its_material_is_absent(before, now, kept):
    "A fresh clone has no reference material beside it: its poorer run must not replace a committed one."
    budget = dict(images=100, n=1000)
    why = publish._why_kept(dict(budget=budget, material=before), dict(budget=budget, material=now))
    assert bool(why) == kept
    assert publish._why_kept({}, dict(budget=budget, material=now)) == ""


def test_every_budget_says_how_it_trains_and_votes_in_words_that_mean_something():
    for (budget, dataset), sizes in budgets._SIZES.items():
        words, setting = (
            fast_words.trains_as(sizes["training"]),
            fast_words.votes_as(sizes["voting"], Gaussian(sigma=0.5)),
        )
        if budget in ("smoke", "quick"):
            assert words == {"float32"} and setting == {}
        if budget == "cpu": # on a processor a precision never changes unasked
            assert "bfloat16" not in words and setting.get("precision", "float32") == "float32"


def test_a_budget_reads_no_flag_of_the_machine(monkeypatch):
    def asked(*args): raise AssertionError("the machine was asked")
    monkeypatch.setattr("torch.cuda.is_bf16_supported", asked)
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", asked, raising=False)
    noise = Gaussian(sigma=0.5)
    assert fast_words.votes_as("torch compiled, bfloat16", noise) == dict(
        backend="torch compiled", precision="bfloat16"
    )
    assert (
        fast_words.uncompiled(fast_words.votes_as("torch compiled, float32", noise), True)["backend"] == "torch folded"
    )
    for wrong in ("fast", "torch channels-last", "torch folded, int8"):
        with pytest.raises(ValueError, match="voting must be"): fast_words.votes_as(wrong, noise)


def test_the_doctor_measures_and_says_what_to_write(monkeypatch, capsys):
    rates = {
        "float32": {"torch plain": 100.0, "torch folded": 250.0, "openvino": "not installed"},
        "bfloat16": {"torch folded": 200.0},
    }
    monkeypatch.setattr(machine, "voting_rates", lambda net, sample, seconds: rates)
    monkeypatch.setattr(
        machine,
        "training_rates",
        lambda *args: {"float32": 10.0, "channels-last, float32": 12.0, "channels-last, bfloat16": 24.0},
    )
    # never another precision unasked
    assert machine.measure() == dict(voting="torch folded, float32", training="channels-last, float32")
    said = capsys.readouterr().out
    assert (
        'voting = "torch folded, float32"' in said
        and '2.00 times as fast: training = "channels-last, bfloat16"' in said
        and "not installed" in said
    )


@pytest.mark.parametrize("name", ["radii", "targets"])
def test_radii_that_a_plan_decided_may_be_reported(name):
    "Votes that stopped early answer for the radii of their plan and no others, whatever the edition of the plan calls them."
    from robust_smooth.core.record import Record
    from robust_smooth.lab.experiment import check_decided
    from robust_smooth.methods import sequential
    from robust_smooth.noise.additive import Gaussian
    spec = sequential.plan([0, 0.25, 0.5], 0.5, 0.01, n_max=1000).spec()
    spec[name] = spec.pop("radii")
    record = Record(
        selection=np.array([[9, 1]]), counts=np.array([[99, 1]]), n=np.array([100]),
        noise=Gaussian(sigma=0.5), dim=4, plan=spec,
    )
    check_decided(record, [0.25, 0.5])
    with pytest.raises(ValueError, match="0.4.*were"):
        check_decided(record, [0.25, 0.4])


def test_the_report_shows_the_run_that_was_made_even_where_a_committed_one_stays(home, monkeypatch):
    "Whoever changes the code and runs again must see the numbers of that run, not those of the repository."
    task = tasks.make_task("gaussian_table1", dict(budget="smoke"))
    committed = publish.Placed(
        task,
        {},
        ROOT / "data" / "results" / "gaussian_table1",
        "keeps its committed run: reference material is not here",
    )
    monkeypatch.setattr(reproduce, "placed", lambda made: [committed])
    report = dict(status="done", error="", notebook="", seconds=1.0, overhead=0.0)
    reproduce._remember(reproduce.Outcome([task], [report]), home / "last_run.json", True)
    (shown,) = json.loads((home / "last_run.json").read_text())["runs"]
    assert (shown["folder"], shown["status"]) == (str(task.folder), "done") and "data/results/gaussian_table1" in shown[
        "note"
    ]


def test_the_report_says_why_a_larger_committed_run_stays(home, monkeypatch):
    "It named a committed run only where material was absent: beside a larger one the page showed the smaller run without a word."
    task = tasks.make_task("gaussian_table1", dict(budget="smoke"))
    why = "keeps its larger run (500 images, n = 1,000 against 10, 1,000); delete that folder to replace it"
    committed = publish.Placed(task, {}, ROOT / "data" / "results" / "gaussian_table1", why)
    report = dict(status="done", error="", notebook="", seconds=1.0, overhead=0.0)
    for places, note in (([committed], f"data/results/gaussian_table1 {why}"), ([], "")):
        monkeypatch.setattr(reproduce, "placed", lambda made, places=places: places)
        reproduce._remember(reproduce.Outcome([task], [report]), home / "last_run.json", True)
        assert json.loads((home / "last_run.json").read_text())["runs"][0]["note"] == note


@pytest.mark.parametrize("budget, kept", [("smoke", 0), ("smoke-int8", 0), ("smoke-openvino", 0), ("quick", 1)])
def test_what_was_only_tried_is_not_committed(budget, kept, home, monkeypatch):
    "smoke-int8 was, under a folder of its own: the budget was compared by its whole name."
    published = []
    monkeypatch.setattr(reproduce, "drive", lambda *tasks, **settings: [])
    monkeypatch.setattr(reproduce, "publish", published.append)
    reproduce.run("gaussian_table1", budget=budget, quiet=True, report=False)
    assert len(published) == kept
