"The command line: help that teaches, errors that name things, exit codes, and no heavy import before it is needed."
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

import robust_smooth as rs
from robust_smooth import cli, options

ROOT = Path(cli.__file__).resolve().parents[1]


@pytest.fixture
def outside(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ROBUST_SMOOTH_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", ["reproduce", "sweep", "certify", "report", "doctor"])
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as stop: cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "examples:" in text and f"robust-smooth {command}" in text


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as stop: cli.main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"robust-smooth {rs.__version__}\n"


def test_python_m_is_the_command(capfd, outside):
    for argv in (
        ["--version"],
        [],
        ["methods", "--noise", "Splitting"],
        ["certify"],
        ["certify", "--votes", "nowhere.votes"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "robust_smooth", *argv],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try: code = cli.main(argv)
        except SystemExit as stop: code = stop.code
        told = capfd.readouterr()
        assert (done.returncode, done.stdout, done.stderr) == (code, told.out, told.err) and done.stdout + done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a pipe that is closed is told to its writer on POSIX")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_who_reads_a_list_may_leave_early(unbuffered, outside):
    "`robust-smooth reproduce --list | head` ended in '[Errno 32] Broken pipe'."
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    listing = subprocess.Popen(
        [sys.executable, "-m", "robust_smooth", "methods"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    listing.stdout.close()
    assert (listing.stderr.read(), listing.wait(60)) == (b"", 141)
    listing.stderr.close()


def test_help_imports_nothing_heavy():
    code = (
        "import sys, robust_smooth.cli as cli\ntry: cli.main(['--help'])\nexcept SystemExit: "
        "pass\nprint([m for m in ('torch', 'pandas', 'numpy', 'matplotlib', 'papermill') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr


@pytest.mark.parametrize(
    "argv, said",
    [
        (["reproduce", "gaussian_tabel1"], "did you mean 'gaussian_table1'"),
        (["reproduce", "gaussian_table1", "-p", "sigmma=1"], "did you mean 'sigma'"),
        (["reproduce", "gaussian_table1", "-p", "sigma"], "name=value"),
        (["reproduce", "gaussian_table1", "--budget", "quikc", "--dry-run"], "quikc"),
        (["reproduce", "gaussian_table1", "-p", "seed=one", "--dry-run"], "seed"),
        (["reproduce", "gaussian_table1", "-p", "seed=1", "-p", "seed=2"], "twice"),
        (["sweep", "nowhere.yaml"], "nowhere.yaml"),
        (["certify"], "--model"),
        (["certify", "--model", "os.system"], "package.module:factory"),
        (["certify", "--model", "no_such_module:make"], "no_such_module"),
        (["certify", "--model", "os:nothing"], "nothing"),
        (["certify", "--votes", "nowhere.votes"], "nowhere.votes"),
        (["report"], "no run to report"),
        (["reproduce", "gaussian_table1", "-p", "dataset=mnist"], "give it as --dataset mnist"),
        (["reproduce", "gaussian_table1", "-p", "budget=cpu", "--dry-run"], "give it as --budget cpu"),
        (["reproduce", "gaussian_table1", "-p", "images=0", "--dry-run"], "images must be a whole number >= 1"),
        (["reproduce", "gaussian_table1", "-p", "n=1e3"], "n must be a whole number"),
        (["reproduce", "gaussian_table1", "-p", "alpha=2", "--dry-run"], "alpha must be"),
        (["reproduce", "gaussian_table1", "-p", "seed=-1", "--dry-run"], "seed must be a whole number >= 0"),
        (["reproduce", "gaussian_table1", "-p", "sigma=half", "--dry-run"], "sigma must be of the kind of sigmas"),
        (["reproduce", "gaussian_table1", "--jobs", "0", "--dry-run"], "jobs must be at least 1"),
        (["reproduce", "gaussian_table1", "--limit", "-1", "--dry-run"], "limit must be"),
        (["reproduce", "gaussian_table1", "--scheduler", "foo", "--dry-run"], "scheduler must be None, 'local' or the address"),
        (["reproduce", "gaussian_table1", "--scheduler", "foo"], "scheduler must be None, 'local' or the address"),
        (["reproduce", "gaussian_table1", "--out", "/dev/null/x"], "choose another folder with --out"),
        (["certify", "--model", "nets.py:make"], "--model nets:make"),
        (["report", "--page", "/dev/null/x.html"], "/dev/null/x.html"),
        (["zoo", "--sigma", "0.3"], "with --train"),
        (["zoo", "--budget", "cpu"], "with --train"),
        (["zoo", "--folder", "x"], "set ROBUST_SMOOTH_ZOO"),
        (["zoo", "--replace"], "for --train and --int8"),
        (["zoo", "--train", "digits", "--clean", "--sigma", "1"], "give one of them"),
        (["doctor", "--compiled"], "give --speed"),
    ],
)
def test_mistakes_are_named(argv, said, outside, capsys):
    assert cli.main(argv) == 2
    assert said in capsys.readouterr().err


def test_help_names_every_method_and_every_noise(capsys):
    from robust_smooth.core import registry
    with pytest.raises(SystemExit): cli.main(["certify", "--help"])
    words = set(re.findall(r"\w+", capsys.readouterr().out))
    assert {method.name for method in registry.find_methods()} <= words and set(registry.load_noises()) <= words


def test_no_command_shows_the_help(capsys):
    assert cli.main([]) == 2
    assert "certify" in capsys.readouterr().err


def test_messages_speak_of_options(outside, capsys, monkeypatch):
    import numpy as np
    monkeypatch.setattr(sys, "path", [str(outside), *sys.path])
    (outside / "cli_nets.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 2), torch.nn.Flatten(), "
        "torch.nn.Linear(2, 2))\n"
    )
    (outside / "three.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 2), torch.nn.Flatten(), "
        "torch.nn.Linear(2, 2))\n"
    )
    np.save("nhwc.npy", np.zeros((3, 2, 2, 3), np.float32)); np.save("good.npy", np.full((3, 1, 2, 2), 0.5, np.float32))
    settings = ["--sigma", "0.5", "--n", "50", "--n0", "10", "--batch-size", "10", "--quiet"]
    said = lambda *argv: (cli.main(["certify", *argv]), capsys.readouterr().err)[1]
    assert (
        "note: " in (text := said("--model", "cli_nets:make", "--data", "good.npy", *settings))
        and "--mean" in text
        and "cli.py" not in text
    )
    assert "there is no nowhere.npy" in said("--model", "cli_nets:make", "--data", "nowhere.npy", *settings)
    text = said("--model", "three:make", "--data", "nhwc.npy", "--mean", "0", "--std", "1", *settings)
    assert "images.transpose(0, 3, 1, 2)" in text and np.load("nhwc.npy").transpose(0, 3, 1, 2).shape == (3, 3, 2, 2)
    assert "--noise-option q=VALUE" in said(
        "--model", "cli_nets:make", "--data", "good.npy", "--noise", "Splitting", "--sigma", "1"
    )
    assert "--data-dir" in said("--model", "cli_nets:make", "--data", "cifar10", *settings)
    assert "open it first" in str(pytest.raises(TypeError, rs_source, "good.npy").value)
    assert "open it first" in str(pytest.raises(TypeError, rs_source, [Path("a.png"), Path("b.png")]).value)


def rs_source(data):
    from robust_smooth.training.holders import as_images
    return as_images(data)


def test_values_are_never_evaluated():
    read = options.read_value
    assert [
        read(t)
        for t in ("1", "1e-3", "[1, 2.5]", "007", "True", "none", "x", "__import__('os').getcwd()", "1+1", "(" * 5000)
    ] == [1, 0.001, [1, 2.5], "007", True, None, "x", "__import__('os').getcwd()", "1+1", "(" * 5000]


def test_a_dry_run_of_a_grid_refuses_what_its_runs_would(outside, capsys):
    for wrong in ("sigma: [0.5, half]", "images: [10, 0]", "alpha: [0.001, 1.5]"):
        Path("grid.yaml").write_text(f"experiment: gaussian_table1\nparameters: {{budget: smoke}}\ngrid:\n  {wrong}\n")
        assert (
            cli.main(["sweep", "grid.yaml", "--dry-run"]) == 2
            and wrong.split(":")[0] + " must be" in capsys.readouterr().err
        )
    Path("grid.yaml").write_text("experiment: gaussian_table1\ngrid: {seed: [0, 1]}\n")
    for option in ("--jobs", "--shards", "--limit"):
        assert cli.main(["sweep", "grid.yaml", "--dry-run", option, "0"]) == 2 and option[2:] in capsys.readouterr().err


@pytest.mark.parametrize("body, said", [
    ("def make():\n    raise KeyError('depth')", ("broken:make raised KeyError: 'depth'", "broken.py, line 2")),
    ("def make():\n    return {}['depth']", ("KeyError", "broken.py, line 2")),
    ("import json\ndef make():\n    return json.loads('no')", ("JSONDecodeError", "line ")),
    ("x = 1 / 0\ndef make(): pass", ("broken cannot be imported: ZeroDivisionError", "broken.py, line 1")),
    ("def make(:\n    pass", ("broken cannot be imported: SyntaxError", "broken.py, line 1"))])
def test_what_fails_in_the_users_own_code_is_told_with_its_line(body, said, outside, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(outside), *sys.path])
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    (outside / "broken.py").write_text(body + "\n")
    assert cli.main(["certify", "--model", "broken:make", "--sigma", "0.5"]) == 2
    text = capsys.readouterr().err
    assert all(words in text for words in said) and "ROBUST_SMOOTH_DEBUG=1" in text


def test_what_cannot_be_written_is_not_said_to_be_missing(outside, capsys):
    place = outside / "no" / "such" / "a.csv"
    error = FileNotFoundError(2, f"cannot write into {place.parent} (No such file or directory)", str(place))
    from robust_smooth.lab.doctor import told_in_options
    assert told_in_options(error) == f"cannot write into {place.parent} (No such file or directory): {place}"


def test_a_parameter_of_a_run_is_not_called_an_option(outside, capsys):
    "-p n=0 was answered with '--n must be': an option that the command has not."
    assert cli.main(["reproduce", "gaussian_table1", "-p", "n=0", "--dry-run"]) == 2
    assert "reproduce: n must be a whole number" in capsys.readouterr().err


def test_dry_run_and_list(outside, capsys):
    assert cli.main(["reproduce", "--list"]) == 0
    told = capsys.readouterr().out
    # a name alone says nothing to a newcomer
    assert "gaussian_table1        Certified accuracy of Gaussian smoothing\n" in told
    listed = told.split()
    assert listed[0] == "gaussian_table1" and listed.index("bernstein_figure3") < listed.index("bernstein_figure10")
    assert cli.main(["reproduce", "gaussian_table1", "--dry-run"]) == 0
    assert "1 to run, 0 cached" in capsys.readouterr().out
    Path("grid.yaml").write_text(
        "experiment: gaussian_table1\nparameters: {budget: smoke}\ngrid: {sigma: [0.25, 0.5], seed: [0, 1]}\n"
    )
    assert cli.main(["sweep", "grid.yaml", "--dry-run"]) == 0
    assert "4 to run, 0 cached" in capsys.readouterr().out and not list(outside.glob("home/runs/*"))


def test_certify_a_network_of_ones_own_and_again_without_it(outside, capsys, monkeypatch):
    Path("my_little_nets.py").write_text(
        "import torch\nfrom robust_smooth.training.models import mlp\ndef make():\n    torch.manual_seed(0)\n    "
        "return mlp(64, 10)\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    common = ["--subset", "3", "--sigma", "0.25", "--n", "500", "--save", "my.votes"]
    assert (
        cli.main(["certify", "--model", "my_little_nets:make", *common, "--out", "mine.csv", "--log", "mine.tsv"]) == 0
    )
    assert "certified accuracy" in capsys.readouterr().out
    from robust_smooth.lab import results
    table, log = results.load("mine.csv"), results.read_certification_log("mine.tsv")
    assert len(table) == len(log) == 3 and table.attrs["provenance"]["seed"] == 0 and (table.radius == log.radius).all()
    assert "labels" in table and "y" not in table # once, under the name that to_frame gives it
    assert cli.main(["certify", "--votes", "my.votes", "--out", "again.csv"]) == 0
    assert results.load("again.csv").radius.tolist() == table.radius.tolist()
    assert cli.main(["certify", "--votes", "my.votes", "--norm", "l7x"]) == 2
    capsys.readouterr()
    assert cli.main(["certify", "--votes", "my.votes", "--log", "x.tsv"]) == 0 # the votes hold their classes
    assert "certified accuracy" in capsys.readouterr().out and len(results.read_certification_log("x.tsv")) == 3
    assert cli.main(["certify", "--model", "my_little_nets:make", "--subset", "3", "--noise", "Pink"]) == 2
    assert "Gaussian" in capsys.readouterr().err


def test_doctor_says_where_data_is_looked_for(outside, capsys, monkeypatch):
    monkeypatch.setenv("ROBUST_SMOOTH_DATA", str(outside))
    (outside / "MNIST").mkdir()
    assert cli.main(["doctor"]) == 0
    assert f"ok  data         {outside} (ROBUST_SMOOTH_DATA): MNIST" in capsys.readouterr().out


def test_doctor_says_what_is_here(outside, capsys, monkeypatch):
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "torch" in said and "papers       5 files" in said and "all there" in said
    (outside / "file").write_text("")
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(outside / "file" / "x"))
    assert cli.main(["doctor"]) == 1 and "needed: home" in capsys.readouterr().out


def test_the_console_script_works_outside_a_checkout(outside):
    script = Path(sys.executable).parent / "robust-smooth"
    if not script.exists(): pytest.skip("the console script is not installed in this environment")
    done = subprocess.run(
        [script, "reproduce", "nothing_here"],
        capture_output=True, text=True, cwd=outside, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2 and "unknown" in done.stderr and "Traceback" not in done.stderr


def test_certify_refuses_before_the_vote_and_collects_moments(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("somenets.py").write_text(
        "import torch\nfrom robust_smooth.training.models import mlp\ndef make():\n    torch.manual_seed(0)\n    "
        "return mlp(64, 10)\n"
    )
    base = ["certify", "--model", "somenets:make", "--subset", "3", "--n", "1000", "--n0", "10", "--save", "a.votes"]
    for extra, words in (
        (["--noise", "Uniform", "--lam", "1.0", "--norm", "l2"], "no method certifies 'l2'"),
        ([], "give --sigma"),
        (["--noise", "Uniform"], "give --lam"),
        (["--sigma", "0.25", "--batch-size", "0"], "--batch-size must"),
        (["--sigma", "0.25", "--data", "nothing"], "FILE.npz"),
        (["--sigma", "0.25", "--data", "somenets:nothing"], "--data: somenets has no"),
        (["--sigma", "0.25", "--weights", "no.pt"], "no.pt"),
        (["--sigma", "0.25", "--method", "gausian"], "method must be one of"),
        (["--sigma", "0.25", "--option", "foo=1"], "foo"),
        (["--sigma", "0.25", "--norm", "l1", "--method", "higher_order"], "--moments"),
    ):
        assert cli.main(base + extra) == 2 and words in capsys.readouterr().err and not Path("a.votes").exists()
    assert cli.main([*base, "--sigma", "0.25", "--moments"]) == 0
    assert cli.main(["certify", "--votes", "a.votes", "--norm", "l1", "--method", "higher_order"]) == 0
    said = capsys.readouterr().out
    assert "higher_order" in said and "Gaussian(sigma=0.25)" in said
    assert (
        cli.main(
            [
                "certify", "--model", "somenets:make", "--subset", "2", "--noise", "Splitting",
                "--sigma", "0.5", "--noise-option", "q=16", "--norm", "l1",
            ]
        )
        == 0
    )


def test_certify_without_a_line_of_python(outside, capsys, monkeypatch):
    import numpy as np
    import torch
    from PIL import Image
    import robust_smooth as rs
    Path("ownnets.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\nfrom robust_smooth.training.models import mlp\n"
        "def make():\n    torch.manual_seed(0)\n    return mlp(64, 10)\n"
        "def data():\n    return TensorDataset(torch.arange(320).reshape(5, 1, 8, 8) / 320, "
        "torch.arange(5))\nfixed = data()\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    images = (np.arange(320).reshape(5, 1, 8, 8) / 320).astype(np.float32)
    np.save("a.npy", images)
    np.savez("a.npz", images=images, labels=np.arange(5))
    for i in range(5):
        Path("photos", f"class{i}").mkdir(parents=True)
        Image.fromarray(np.repeat((images[i, 0] * 255).round().astype(np.uint8)[..., None], 3, 2)).save(
            Path("photos", f"class{i}", "a.png")
        )
    common = ["--sigma", "0.25", "--n", "200", "--batch-size", "100", "--quiet"]
    for data in ("a.npz", "ownnets:data", "ownnets:fixed", "a.npy"):
        assert (
            cli.main(
                [
                    "certify", "--model", "ownnets:make", "--data", data, "--save",
                    f"{data.replace(':', '.')}.votes",
                    *common,
                ]
            )
            == 0
        )
        said = capsys.readouterr()
        assert ("certified accuracy" in said.out) == (data != "a.npy") and "vote" not in said.err
    votes = [rs.load(f"{name}.votes") for name in ("a.npz", "ownnets.data", "ownnets.fixed", "a.npy")]
    assert (
        all((record.counts == votes[0].counts).all() for record in votes)
        and votes[0].labels.tolist() == list(range(5))
        and votes[3].labels is None
    )
    assert cli.main(["certify", "--votes", "a.npz.votes"]) == 0 and "certified accuracy" in capsys.readouterr().out
    assert (
        cli.main(["certify", "--votes", "a.npy.votes", "--log", "x"]) == 2 and "true classes" in capsys.readouterr().err
    )
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in rs.models.mlp(192, 10).state_dict().items()}}, "w.pt"
    )
    Path("colour.py").write_text("from robust_smooth.training.models import mlp\ndef make(): return mlp(192, 10)\n")
    folder = [
        "certify", "--model", "colour:make", "--weights", "w.pt", "--data", "photos", "--subset",
        "every 2", "--save", "f.votes", *common,
    ]
    assert (
        cli.main(folder) == 0
        and rs.load("f.votes").index.tolist() == [0, 2, 4]
        and rs.load("f.votes").labels.tolist() == [0, 2, 4]
    )
    capsys.readouterr()
    assert (
        cli.main(
            ["certify", "--model", "ownnets:make", "--data", "a.npz", "--noise", "Uniform", "--lam", "1.0", *common[2:]]
        )
        == 0
    )
    assert ", l1," in capsys.readouterr().out # the noise's own norm


def test_the_doctor_is_green_without_the_extras(outside, capsys, monkeypatch):
    from importlib import metadata
    here = metadata.version

    def version(name):
        if name in ("papermill", "ipykernel", "jinja2", "pyyaml", "distributed"):
            raise metadata.PackageNotFoundError(name)
        return here(name)

    monkeypatch.setattr(metadata, "version", version)
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "all there that certifying needs" in said and "pip install 'robust_smooth[repro]'" in said


def test_a_missing_extra_is_named(outside, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    def run(*given, **more): import papermill
    monkeypatch.setattr("robust_smooth.lab.reproduce.run", run)
    assert (
        cli.main(["reproduce", "gaussian_table1"]) == 2
        and "pip install 'robust_smooth[repro]'" in capsys.readouterr().err
    )


def test_a_network_whose_classes_follow_from_the_size_of_its_images(outside, capsys, monkeypatch):
    import numpy as np
    from robust_smooth import load
    Path("sized_nets.py").write_text("import torch\n\ndef make():\n    torch.manual_seed(0)\n"
                                     "    return torch.nn.Sequential(torch.nn.Conv2d(1, 5, 20), torch.nn.Flatten())\n")
    monkeypatch.syspath_prepend(str(outside))
    np.savez("twenty.npz", images=np.full((2, 1, 20, 20), 0.5, np.float32), labels=np.array([0, 1]))
    common = [
        "certify", "--model", "sized_nets:make", "--data", "twenty.npz", "--sigma", "0.5", "--n",
        "1000", "--n0", "10", "--quiet",
    ]
    assert cli.main([*common, "--save", "a.votes"]) == 0
    assert cli.main([*common, "--num-classes", "5", "--save", "b.votes"]) == 0
    found, told = load("a.votes"), load("b.votes")
    assert found.counts.shape == (2, 5) and np.array_equal(found.counts, told.counts)
    capsys.readouterr()
    assert cli.main([*common, "--num-classes", "6"]) == 2
    assert "6" in capsys.readouterr().err


@pytest.mark.parametrize("last", [["--log", "readonly/x.tsv"], ["--out", "readonly/x"]])
def test_what_fails_after_a_vote_loses_no_votes(last, outside, capsys, monkeypatch):
    "Without --save the votes were gone when a file could not be written."
    from robust_smooth.core.record import Record
    from robust_smooth.lab import results

    Path("my_net.py").write_text(
        "import torch\nfrom robust_smooth.training.models import mlp\ndef make():\n    torch.manual_seed(0)\n    "
        "return mlp(64, 10)\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("TMPDIR", str(outside))
    monkeypatch.setattr("tempfile.tempdir", None)

    def full(*args, **settings): raise OSError(28, "No space left on device")
    monkeypatch.setattr(results, "write_atomic", full)
    monkeypatch.setattr(results, "write_certification_log", full)
    assert cli.main(["certify", "--model", "my_net:make", "--subset", "2", "--sigma", "0.25", "--n", "500", *last]) == 2
    said = capsys.readouterr()
    kept = re.search(r"the votes are kept in (\S+);", said.err)
    assert "No space left" in said.err and "certified accuracy" in said.out and kept
    assert len(Record.load(kept[1])) == 2 and cli.main(["certify", "--votes", kept[1]]) == 0


@pytest.mark.parametrize("option", ["--log", "--out", "--save"])
def test_files_that_no_system_can_write_are_refused_before_the_vote(option, outside, capsys):
    assert cli.main(["certify", "--model", "no_such_module:make", option, "half \ud800"]) == 2
    assert "a path must be a name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option, name",
    [
        ("--save", "file/a.votes"), ("--log", "file/a.tsv"), ("--out", "file/a"), ("--log", "x" * 300),
        ("--save", "photos"), ("--out", "/proc/a"),
    ],
)
def test_places_that_take_no_files_are_refused_before_a_network_is_looked_for(option, name, outside, capsys):
    "They came to light after the vote (--log, --out), or after its trial (--save)."
    (outside / "file").touch()
    (outside / "photos").mkdir()
    assert cli.main(["certify", "--model", "no_such_module:make", option, name]) == 2
    said = capsys.readouterr().err
    assert "no_such_module" not in said and name[:20] in said
    assert sorted(each.name for each in outside.iterdir()) == ["file", "photos"]


def test_a_log_without_true_classes_is_refused_before_the_vote(outside, capsys, monkeypatch):
    import numpy as np
    Path("lognets.py").write_text("from robust_smooth.training.models import mlp\ndef make(): return mlp(64, 10)\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    np.save("a.npy", np.zeros((5, 1, 8, 8), np.float32))
    assert (
        cli.main(
            [
                "certify", "--model", "lognets:make", "--data", "a.npy", "--sigma", "0.25", "--save",
                "a.votes", "--log", "a.tsv",
            ]
        )
        == 2
    )
    assert "true classes" in capsys.readouterr().err and not Path("a.votes").exists()


@pytest.fixture
def small_vote(outside, monkeypatch):
    "A network and a command that votes on three images."
    Path("tinynets.py").write_text(
        "import torch\nfrom robust_smooth.training.models import mlp\ndef make():\n    torch.manual_seed(0)\n    "
        "return mlp(64, 10)\n"
        "def sized(x): return mlp(64, x)\nnumber = 3\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    return [
        "certify", "--model", "tinynets:make", "--subset", "3", "--sigma", "0.25", "--n", "200",
        "--batch-size", "100", "--quiet",
    ]


def test_votes_are_not_overwritten_nor_contradicted(small_vote, capsys):
    assert cli.main([*small_vote, "--save", "a.votes", "--out", "o/c.csv", "--log", "a.tsv"]) == 0
    assert "written: o/c.csv, o/c.md, o/c.json, a.tsv" in capsys.readouterr().out
    kept = Path("a.votes").read_bytes()
    for extra, words in (
        (["--log", "a.votes"], "choose another name"),
        (["--sigma", "0.5"], "votes by sigma 0.25"),
        (["--n", "300"], "votes by n 200"),
        (["--noise", "Uniform"], "votes by noise Gaussian"),
        (["--seed", "3"], "votes by seed 0"),
        (["--data", "mnist"], "--data is for a vote"),
        (["--num-classes", "9"], "--num-classes is for a vote"),
        (["--noise-option", "q16"], "--noise-option needs name=value"),
        (["--noise-option", "q=16"], "votes by q None"),
    ):
        assert cli.main(["certify", "--votes", "a.votes", *extra]) == 2 and words in capsys.readouterr().err, extra
    assert cli.main(["certify", "--votes", "a.votes", "--sigma", "0.25", "--n", "200", "--quiet"]) == 0
    assert (
        cli.main([*small_vote, "--save", "b.votes", "--log", "b.votes"]) == 2
        and "different files" in capsys.readouterr().err
    )
    assert cli.main([*small_vote, "--save", "a.votes", "--seed", "1"]) == 2
    said = capsys.readouterr().err
    assert "a.votes holds votes of another setting: seed differs" in said and "another name for --save" in said
    assert Path("a.votes").read_bytes() == kept and not Path("b.votes").exists()


def test_the_certified_accuracy_is_told_at_round_radii(small_vote, capsys):
    import numpy as np
    from robust_smooth.core.summaries import round_radii
    assert cli.main(small_vote) == 0
    line = next(each for each in capsys.readouterr().out.splitlines() if each.startswith("certified accuracy"))
    radii = [float(word) for word in re.findall(r" at ([\d.]+)", line)]
    steps = np.diff(radii)
    assert (
        radii[0] == 0
        and np.allclose(radii, steps[0] * np.arange(len(radii)))
        and all(len(f"{radius:g}") <= 4 for radius in radii)
    )
    assert radii == round_radii(radii[-1]).tolist()


@pytest.mark.parametrize(
    "extra, words",
    [
        (["--model", "tinynets:sized"], "--model: tinynets:sized needs x"),
        (["--model", "tinynets:number"], "must be a function"),
        (["--n", "5"], "--n must be at least"),
        (["--n", "-3"], "--n must be a whole number >= 1"),
        (["--option", "foo=1"], "its options: ["),
        (["--lam", "1"], "takes no --lam; its settings: ['sigma']"),
        (["--data", "high.npy"], "save images / 255"),
        (["--data", "text.npy"], "text.npy must be a file of numbers"),
        (["--data", "objects.npz"], "holds Python objects"),
        (["--weights", "junk.pt"], "junk.pt"),
        (["--device", "nowhere"], "--device nowhere:"),
        (["--data", "mixed", "--subset", "2"], "--data imagefolder --data-dir FOLDER"),
        (["--data", "split", "--split", "tset"], "there are test, val"),
        (["--data", "fine.npy", "--split", "train"], "--data fine.npy has no splits"),
        (["--data", "fine.npy", "--data-dir", "."], "--data-dir . is the folder of a data set"),
        (["--batch-size", "1" + 22 * "0"], "--batch-size must be a whole number from 1 to"),
    ],
)
def test_mistakes_are_told_in_the_words_of_a_shell(extra, words, small_vote, capsys):
    import numpy as np
    from PIL import Image
    np.save("high.npy", np.full((2, 1, 8, 8), 200.0))
    np.save("fine.npy", np.full((2, 1, 8, 8), 0.5))
    Path("text.npy").write_text("0 1 2")
    np.savez("objects.npz", images=np.array([{}, None], dtype=object))
    Path("junk.pt").write_bytes(b"nothing of the kind")
    for name, size in (
        ("mixed/a/0.png", 9), ("mixed/a/1.png", 8), ("split/test/a/0.png", 8),
        ("split/test/b/0.png", 8), ("split/val/a/0.png", 8),
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size)).save(name)
    assert cli.main([*small_vote, *extra]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and "alpha=None" not in said and "wrap(" not in said, said


def test_an_interrupted_vote_says_whether_it_is_kept(small_vote, capsys, monkeypatch):
    def stop(args): raise KeyboardInterrupt
    monkeypatch.setitem(cli.COMMANDS, "certify", stop)
    for extra, words in (
        ([], "nothing is kept of this vote: with --save FILE"),
        (["--save", "a.votes"], "what was finished is kept"),
    ):
        assert cli.main([*small_vote, *extra]) == 130 and words in capsys.readouterr().err


@pytest.mark.parametrize("extra", [["--noise", "Foo"], ["--norm", "l7"]])
def test_methods_for_nothing_known_are_refused(extra, capsys):
    assert cli.main(["methods", *extra]) == 2 and "must be" in capsys.readouterr().err


@pytest.mark.parametrize(
    "extra, words",
    [
        (["--n", "9" * 30], "--n must be at most 1,000,000,000,000, got 9999"),
        (["--n0", "9" * 30], "--n0 must be at most"),
        (["--option", "alpha=0.1"], "--option alpha=0.1: give it as --alpha 0.1"),
        (["--option", "norm=l1"], "give it as --norm l1"),
        (["--noise-option", "sigma=0.5"], "--noise-option sigma=0.5: --sigma 0.25 says it already"),
        (["--out", ""], "--out must name something, got ''"),
        (["--log", ""], "--log must name something"),
        (["--weights", ""], "--weights must name something"),
        (["--data", ""], "--data must name something"),
        (["--out", "notes"], "notes.md is a file of something else"),
        (["--out", "config.csv"], "config.json is a file of something else"),
        (["--out", "other.csv"], "other.csv is a file of something else"),
    ],
)
def test_odd_values_are_refused_by_the_name_of_their_option(extra, words, small_vote, capsys):
    "Some were a traceback or Python's own words, some were ignored, some cost a file that was there."
    Path("notes.md").write_text("# what I think\n")
    Path("config.json").write_text('{"epochs": 3}\n')
    Path("other.csv").write_bytes(b"robust_smooth votes 2\n")
    before = {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert cli.main([*small_vote, *extra]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said, said
    assert before == {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def test_tables_replace_tables_and_no_votes_by_whatever_name(small_vote, capsys):
    Path("folder").mkdir()
    assert cli.main([*small_vote, "--save", "a.csv", "--out", "b"]) == 0
    kept = Path("a.csv").read_bytes()
    for votes in ("folder/../a.csv", "a.csv"):
        assert cli.main(["certify", "--votes", votes, "--out", "a"]) == 2 and Path("a.csv").read_bytes() == kept
    assert cli.main(["certify", "--votes", "a.csv", "--alpha", "0.01", "--out", "b.csv"]) == 0
    for idle in (["--batch-size", "0"], ["--num-classes", "0"]):
        assert cli.main(["certify", "--votes", "a.csv", *idle]) == 2 and "is for a vote" in capsys.readouterr().err


@pytest.mark.parametrize(
    "labels, words",
    [
        ([0.0, 1.7, 2.0], "labels must hold whole numbers, got float64, such as np.float64(1.7)"),
        ([0.0, float("nan"), 2.0], "labels must hold whole numbers"),
        ([0, 1, 2**64 - 1], "labels must be in [-2**63, 2**63)"),
        ([0, 1j, 2], "labels must hold whole numbers, got complex128"),
        (["a", "b", "c"], "labels must hold whole numbers, got <U1"),
        ([[0], [1], [2]], "one label an image, got an array of shape [3, 1] for 3"),
        (3, "one label an image, got an array of shape [] for 3"),
    ],
)
def test_labels_in_a_file_are_classes_or_refused(labels, words, small_vote, capsys):
    "1.7 was class 1, and 2^64 - 1 was 'unknown'."
    import numpy as np
    kind = np.uint64 if labels == [0, 1, 2**64 - 1] else None
    np.savez("a.npz", images=np.full((3, 1, 8, 8), 0.5), labels=np.array(labels, dtype=kind))
    assert cli.main([*small_vote, "--data", "a.npz"]) == 2
    assert "--data a.npz" in (said := capsys.readouterr().err) and words in said, said


def test_a_number_is_no_file_of_images_and_a_stream_loses_none(small_vote, capsys):
    import numpy as np
    np.save("one.npy", np.float32(0.5))
    assert cli.main([*small_vote, "--data", "one.npy"]) == 2 and "of shape [B, C, H, W]" in capsys.readouterr().err
    Path("tinystreams.py").write_text(
        "import torch\nclass Stream(torch.utils.data.IterableDataset):\n    def __init__(self, n): "
        "self.rest = iter([(torch.full((1, 8, 8), i / 8), i) for i in range(n)])\n    def __iter__(self): return self.rest\n"
        "def some(): return torch.utils.data.DataLoader(Stream(5), batch_size=2)\n"
        "def none(): return torch.utils.data.DataLoader(Stream(0), batch_size=2)\n"
    )
    small_vote = [word for word in small_vote if word not in ("--subset", "3")]
    assert cli.main([*small_vote, "--data", "tinystreams:some"]) == 0 and ": 5 images" in capsys.readouterr().out
    assert cli.main([*small_vote, "--data", "tinystreams:none"]) == 2 and "holds no images" in capsys.readouterr().err


@pytest.mark.parametrize("name, told", [("label", True), ("classes", True), ("labels.npx", True), ("sizes", False)])
def test_labels_under_another_name_are_not_dropped_without_a_word(tmp_path, name, told, recwarn):
    from robust_smooth.training.opened import open_data
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        for member, array in (("images.npy", np.zeros((3, 1, 2, 2))), (name, np.zeros((3, 2) if name == "sizes" else 3, int))):
            with file.open(member if "." in member else f"{member}.npy", "w") as stream:
                np.save(stream, array)
    assert len(open_data(str(tmp_path / "a.npz"))) == 3
    heard = [str(one.message) for one in recwarn if "call them one of ('labels', 'y', 'targets')" in str(one.message)]
    assert len(heard) == told and all(name in text for text in heard)


def test_a_file_of_numpy_that_is_damaged_in_any_way_is_refused_by_name(tmp_path):
    "Encrypted archives, unknown compressions and impossible sizes came out as raw errors of zipfile and of NumPy."
    from robust_smooth.training.opened import open_data
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((2, 1, 2, 2), np.float32), labels=np.arange(2))
    raw = path.read_bytes()
    for bit in range(0, 8 * len(raw), 5):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            open_data(str(path))
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, dict(descr="<f4", fortran_order=False, shape=(10**12, 4)))
    (tmp_path / "b.npy").write_bytes(head.getvalue() + bytes(64))
    with pytest.raises(ValueError, match="b.npy must be a file of numbers"):
        open_data(str(tmp_path / "b.npy"))


@pytest.mark.parametrize("card", [dict(twin_of="x"), dict(certified=[1]), dict(certified=dict(accuracy={"0": 1})),
                                  dict(certified=dict(norm="l2", accuracy={"0": "x"})), dict(accuracy_without_noise="x")])
def test_one_odd_card_hides_no_other_network(card, tmp_path, monkeypatch, capsys):
    "It ended the list of `robust-smooth zoo` with a raw KeyError."
    for name, said in (("a-odd", card), ("b-good", dict(data="digits", epochs=3))):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
        (tmp_path / f"{name}.json").write_text(json.dumps(dict(architecture="mlp") | said))
    monkeypatch.setenv("ROBUST_SMOOTH_ZOO", str(tmp_path))
    assert cli.main(["zoo"]) == 0
    out = capsys.readouterr().out
    assert "a-odd" in out and "has a card that cannot be read" in out and "digits, 3 epochs" in out


def test_draws_are_asked_for_by_numbers(capsys):
    common = ["draws", "--sigma", "0.5", "--p", "0.9"]
    for extra, words in (
        (["--n", "9" * 30], "--n must be below 2**63"), (["--n", "0"], "--n must be a whole number >= 1, got 0"),
        (["--radius", "nan"], "radius must be a finite number above 0, got nan"), (["--radius", "inf"], "finite"),
    ):
        assert cli.main([*common, *extra]) == 2 and words in (said := capsys.readouterr().err), said


def test_votes_are_kept_when_their_certificates_are_interrupted(small_vote, outside, capsys, monkeypatch):
    from robust_smooth.core.record import Record
    monkeypatch.setenv("TMPDIR", str(outside))
    monkeypatch.setattr("tempfile.tempdir", None)
    for stop in (KeyboardInterrupt, RuntimeError("out of memory")):
        def fail(*args): raise stop
        monkeypatch.setattr(cli, "_prove", fail)
        assert cli.main(small_vote) == (130 if stop is KeyboardInterrupt else 2)
        said = capsys.readouterr().err
        kept = re.search(r"the votes are kept in (\S+);", said)
        assert kept and len(Record.load(kept[1])) == 3 and "nothing is kept" not in said
