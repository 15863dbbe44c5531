"Publishing that is killed, or finds no room: a folder of results holds one run, or says that it does not."
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from robust_smooth.core import places
from robust_smooth.lab import publish, report, results, tasks


def finished(folder, key, images=10, tables=("table", "table_beside"), figures=("figure", "more")):
    "A run whose every file says which one it is."
    task = tasks.Task("one", "", {}, {}, key, str(folder / "made"), str(folder))
    task.folder.mkdir(parents=True)
    for name in [*tables, "claims"]:
        results.save(pd.DataFrame(dict(ours=[key], printed=[key])), task.folder / name)
    for name in figures:
        for ending in ("png", "pdf"):
            (task.folder / f"{name}.{ending}").write_text(key)
    facts = dict(
        experiment="one",
        parameters=dict(dataset="digits", budget="quick", key=key),
        budget=dict(images=images, n=100, dataset="digits", name="quick"),
        tables=list(tables), figures=list(figures), claims=[], values={}, material="used",
    )
    (task.folder / "result.json").write_text(json.dumps(facts))
    return task


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "checkout", lambda: tmp_path)
    monkeypatch.setattr(results, "checkout", lambda: tmp_path)
    return tmp_path


def kept(root):
    "The files of the kept run, as text."
    paths = [*(root / "data" / "results" / "one").glob("*"), *(root / "figures").glob("*")]
    return {path.name: path.read_text() for path in paths if path.suffix != ".tmp" and path.name != "run.json"}


def whose(root):
    return json.loads((root / "data/results/one/run.json").read_text())["parameters"]["key"]


def assert_one_run_or_none(root, runs):
    "What is believed is one run, whole."
    folder = root / "data" / "results" / "one"
    if not folder.is_dir() or results.doubt(folder):
        return False
    name = whose(root)
    facts = json.loads((runs[name].folder / "result.json").read_text())
    expected = {f"{table}.{ending}" for table in [*facts["tables"], "claims"] for ending in ("csv", "md")}
    expected |= {f"one.{ending}" for ending in ("png", "pdf") if "figure" in facts["figures"]}
    expected |= {
        f"one_{figure}.{ending}" for figure in facts["figures"] if figure != "figure" for ending in ("png", "pdf")
    }
    there = kept(root)
    assert set(there) == expected and all(name in text for text in there.values())
    return True


class Killed(BaseException):
    pass


def killed_at(step, monkeypatch, calls=("replace", "unlink"), failure=Killed):
    "A process that ends before its call number `step` that changes a name."
    count = [0]

    def guarded(real):
        def call(*args, **settings):
            count[0] += 1
            if count[0] > step:
                raise failure() if failure is Killed else OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **settings)
        return call
    monkeypatch.setattr(os, "replace", guarded(os.replace))
    if "unlink" in calls:
        monkeypatch.setattr(Path, "unlink", guarded(Path.unlink))


@pytest.mark.parametrize("again", ["new", "small"])
def test_a_publishing_that_is_killed_between_two_files_leaves_no_mixture_that_is_believed(again, tmp_path, monkeypatch):
    step, doubted = 0, 0
    while True: # killed before each change, until nothing is left to be killed
        place = tmp_path / f"{again}{step}"
        for module in (publish, results):
            monkeypatch.setattr(module, "checkout", lambda: place)
        runs = dict(
            old=finished(place / "r", "old", 10),
            new=finished(place / "r", "new", 20, ("table", "third"), ("figure", "other")),
            small=finished(place / "r", "small", 5),
        )
        assert publish.publish([runs["old"]]) and assert_one_run_or_none(place, runs)
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            killed_at(step, patch)
            publish.publish([runs["new"]])
            patch.undo()
            break
        if not assert_one_run_or_none(place, runs):
            doubted += 1
            page = report.build(place / "data" / "results", place / "report.html").read_text()
            assert "is half written" in page and 'id="failed"' in page
            with pytest.warns(UserWarning, match="left out: it is half written"):
                assert results._folders("one") == []
        written = publish.publish([runs[again]])
        # a smaller run mends nothing, and is refused
        assert bool(written) == (again == "new")
        if again == "new":
            assert assert_one_run_or_none(place, runs) and whose(place) == "new"
        step += 1
    assert step > 10 and doubted > 5


def test_a_smaller_run_does_not_mend_a_half_written_folder_and_says_what_does(root, monkeypatch, capsys):
    runs = dict(new=finished(root / "r", "new", 20), small=finished(root / "r", "small", 5))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(4, patch, ("replace",))
        publish.publish([runs["new"]])
    assert publish.publish([runs["small"]]) == []
    assert "is half written" in capsys.readouterr().out and results.doubt(root / "data/results/one")


@pytest.mark.parametrize("change, said", [
    (dict(parameters=dict(sigmas=[0.5], seeds=3)), "sigmas = 0.25, 0.5, 1.0 against 0.5"),
    (dict(parameters=dict(sigmas=[0.25, 0.5, 1.0], sigma=0.5, seeds=3)), "sigmas = 0.25, 0.5, 1.0 against 0.5"),
    (dict(parameters=dict(sigmas=[0.25, 0.5, 1.0], seeds=1)), "seeds = 3 against 1"),
    (dict(budget=dict(images=100, n=1000, epochs=1)), "epochs = 60 against 1"),
    (dict(parameters=dict(sigmas=[0.5, 2.0, 4.0], seeds=3)), ""),
    (dict(parameters=dict(sigmas=[0.25, 0.5, 1.0, 2.0], seeds=4), budget=dict(images=100, n=1000, epochs=90)), ""),
])
def test_a_run_of_fewer_settings_seeds_or_epochs_replaces_nothing(change, said):
    "A sweep at one noise level replaced a table of three: it had as many images and draws."
    kept = dict(budget=dict(images=100, n=1000, epochs=60), parameters=dict(sigmas=[0.25, 0.5, 1.0], sigma=None, seeds=3))
    reason = publish._why_kept(kept, kept | change)
    assert said in reason and bool(reason) == bool(said)


LARGE = dict(alpha=0.001, rtol=0.01, samples=100_000, draws=200_000, runs=1000, n_linf=None, independent_n=1000, attack_steps=20,
             audit=True, warm_epochs=2, warm_images=None, train_epochs=None, ks=[1.0, 2.0])


@pytest.mark.parametrize("change, said", [
    (dict(alpha=0.5), "alpha = 0.001 against 0.5"),
    (dict(rtol=0.5), "rtol = 0.01 against 0.5"),
    (dict(rtol=1), "rtol = 0.01 against 1"),
    (dict(samples=100), "samples = 100000 against 100"),
    (dict(draws=10), "draws = 200000 against 10"),
    (dict(runs=3), "runs = 1000 against 3"),
    (dict(n_linf=100), "n_linf = 1000 against 100"),
    (dict(independent_n=10), "independent_n = 1000 against 10"),
    (dict(attack_steps=1), "attack_steps = 20 against 1"),
    (dict(audit=False), "audit = True against False"),
    (dict(warm_epochs=1), "warm_epochs = 2 against 1"),
    (dict(warm_images=64), "warm_images = all against 64"),
    (dict(train_epochs=3), "train_epochs = 60 against 3"),
    (dict(ks=[3.0]), "ks = 1.0, 2.0 against 3.0"),
    (dict(ks=[1]), "ks = 1.0, 2.0 against 1"),
    (dict(warm_epochs=0), ""),
    (dict(alpha=0.0001, samples=200_000, warm_images=None, ks=[3.0, 4.0], train_epochs=90), ""),
])
def test_a_run_that_proves_less_or_draws_less_replaces_nothing(change, said):
    "A run of 100 samples replaced one of 100,000, and one at alpha = .5, whose accuracies are higher, one at .001."
    kept = dict(budget=dict(images=100, n=1000, epochs=60, train_images=None), parameters=LARGE)
    reason = publish._why_kept(kept, kept | dict(parameters=LARGE | change))
    assert said in reason and bool(reason) == bool(said)
    fewer = dict(kept, budget=dict(kept["budget"], train_images=500))
    assert "train_images = all against 500" in publish._why_kept(kept, fewer) and not publish._why_kept(fewer, kept)
    own = [dict(kept, own=dict(images=images, epochs=None)) for images in (500, 30)]
    assert "own images = 500 against 30" in publish._why_kept(*own) and not publish._why_kept(kept, own[1])


SETTINGS = {"k", "seed", "d", "degree", "n", "images", "q", "n_splits", "phase", "side", "steps", "own_d", "own_batch", "warm_epochs",
            "warm_images"} # with those that are compared elsewhere


def test_every_number_of_an_experiment_is_a_size_or_a_setting():
    "Whoever adds one says whether a smaller one makes a poorer run."
    folder = Path(publish.__file__).resolve().parents[2] / "data" / "results"
    if not folder.is_dir():
        pytest.skip("needs the checkout")
    kept = [json.loads(path.read_text(encoding="utf-8"))["parameters"] for path in folder.glob("*/run.json")]
    assert len(kept) >= 60
    numbers = {name for one in kept for name, value in one.items() if isinstance(value, int)} - {"adversarial"}
    assert not numbers - SETTINGS - set(publish._MORE) - set(publish._OPEN)


def test_a_full_disk_replaces_nothing(root, monkeypatch):
    runs = dict(old=finished(root / "r", "old"), new=finished(root / "r", "new", 20, ("table", "third")))
    publish.publish([runs["old"]])
    before = kept(root)
    real, room = places._write_beside, [6]

    def full(path, data):
        room[0] -= 1
        if room[0] < 0: raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left on device.*publish again"):
        patch.setattr(places, "_write_beside", full)
        publish.publish([runs["new"]])
    assert kept(root) == before and whose(root) == "old" and not list(root.glob("**/*.tmp"))
    assert publish.publish([runs["new"]]) and assert_one_run_or_none(root, runs) and whose(root) == "new"


def test_what_the_new_run_lacks_does_not_stay(root):
    "A table and a figure of the run before stood beside those of the new one, and were compared and shown."
    runs = dict(old=finished(root / "r", "old"), new=finished(root / "r", "new", 20, ("table",), ("figure",)))
    publish.publish([runs["old"]])
    publish.publish([runs["new"]])
    assert (
        assert_one_run_or_none(root, runs)
        and not list(root.glob("**/*beside*.csv"))[1:]
        and not list((root / "figures").glob("*more*"))
    )


def test_a_process_that_is_really_killed(root):
    "SIGKILL, at moments that a slow disk spreads over the publishing."
    runs = dict(old=finished(root / "r", "old"), new=finished(root / "r", "new", 20, ("table", "third")))
    publish.publish([runs["old"]])
    code = textwrap.dedent(f"""
        import os, time
        from pathlib import Path
        from robust_smooth.lab import publish, tasks
        publish.checkout = lambda: Path({str(root)!r})
        replace = os.replace
        def slow(*args): print("now", flush=True); time.sleep(0.2); return replace(*args)
        os.replace = slow
        publish.publish([tasks.Task("one", "", {{}}, {{}}, "new", {str(root / "r" / "made")!r}, "")])
        """)
    for number in range(1, 8, 2):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(number):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if number > 1:
            assert not assert_one_run_or_none(root, runs)
    assert publish.publish([runs["new"]]) and assert_one_run_or_none(root, runs)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"parameters": 3}'])
def test_a_run_that_says_nothing_of_itself_is_named_and_the_others_are_published(text, root):
    torn, whole = finished(root / "r", "torn"), finished(root / "r", "whole")
    (torn.folder / "result.json").write_text(text)
    with pytest.warns(UserWarning, match="cannot be read: that run is not published"):
        assert len(publish.publish([torn, whole])) == 1
    assert whose(root) == "whole"


def test_a_run_that_lost_a_table_replaces_nothing(root, capsys):
    old, torn = finished(root / "r", "old"), finished(root / "r", "torn", 20)
    publish.publish([old])
    (torn.folder / "table_beside.csv").unlink()
    assert (
        publish.publish([torn]) == [] and "lacks table_beside.csv" in capsys.readouterr().out and whose(root) == "old"
    )


def test_provenance_never_stands_beside_another_table(tmp_path, monkeypatch):
    "A table was new, and the file beside it still spoke of the old one, when a process was killed between the two."
    for step in range(4):
        results.save(pd.DataFrame(dict(value=["old"])), tmp_path / "a", dict(of="old"))
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            killed_at(step, patch, ("replace",))
            results.save(pd.DataFrame(dict(value=["new"])), tmp_path / "a", dict(of="new"))
        found = results.load(tmp_path / "a")
        assert found.attrs.get("provenance", dict(of=found.value[0]))["of"] == found.value[0]


def test_what_this_checkout_keeps_is_believed():
    folders = sorted((Path(results.__file__).resolve().parents[2] / "data" / "results").glob("*/"))
    assert len(folders) > 40 and {folder.name: said for folder in folders if (said := results.doubt(folder))} == {}
