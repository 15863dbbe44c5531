"The tree as a whole: notebooks clean and in step with modules, experiments runnable by papermill, names as agreed, nothing of one machine in it."
import ast
import csv
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / "nbs"
LARGEST = 400_000 # bytes of a notebook with its outputs
# a folder of whoever ran it
MACHINE = re.compile(r"(?<![\w.~$}])/(?:(?:work|root|home/\w+|Users/\w+)/|tmp/(?:ipykernel|[\w.-]+/lib/python))")
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|Not" r"ImplementedError)\b")
REGISTRY = re.compile(r"py" r"pi\.org|python" r"hosted|download\.py" r"torch\.org")
PUBLIC = dict(  # what users and later readers rely on
    core="ABSTAIN register Certificates Record",
    bounds="binomial_lower binomial_upper runner_up_upper gradient_norm_bounds gradient_linf_bounds gradient_l1_bounds",
    noise="Gaussian Uniform RadialGaussian MixedNormGaussian LinfGaussian Splitting n_splits offsets split_levels",
    models="wrap Normalize pretrained optimise",
    votes="count_votes",
    gaussian="radius predict certify",
    tcertify="certify failure_probability",
    sequential="plan certify",
    uniform="radius certify",
    splitting="budget certify audit",
    soap_bubbles="llr_cdf discrepancy lower_bound p_min radius certify certify_monte_carlo",
    higher_order="lower_bound directional_radius l2_radius radius certify",
    bernstein="coefficients evaluate root_radius sound_radius certify lipschitz_bound Smoothed smooth_regression",
    train="fit Standard NoiseAugmentation Stability PGDAdversarial",
    adre="ADRE", smoothadv="SmoothAdv", attacks="fgsm pgd", smoothed="Smoothed check", papers="printed",
    results="save load compare read_certification_log write_certification_log",
    reproduce="run sweep",
    cli="main",
)


def notebooks(folder: str = "") -> list[Path]:
    "Notebooks of a folder of nbs/ ('': all)."
    return sorted(
        path
        for path in (NBS / folder).rglob("*.ipynb")
        if not any(part.startswith(".") for part in path.relative_to(NBS).parts)
    )


@lru_cache(maxsize=None)
def content(path: Path) -> dict: return json.loads(path.read_text(encoding="utf-8"))


def text_of(part) -> str: return "".join(part) if isinstance(part, list) else part


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in content(path)["cells"] if cell["cell_type"] == "code"]


def name(path: Path) -> str: return path.relative_to(NBS).as_posix()


def readable(path: Path) -> str:
    "What a person can read of a tracked file: for a notebook, its sources and the text of its outputs, without the pictures."
    if path.suffix != ".ipynb": return path.read_text(encoding="utf-8")
    parts = []
    for cell in content(path)["cells"]:
        parts.append(text_of(cell["source"]))
        for output in cell.get("outputs", []):
            parts += [text_of(output.get("text", "")), *map(str, output.get("traceback", []))]
            parts += [text_of(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join(parts)


def tracked() -> list[Path]:
    try: done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError): pytest.skip("needs git and a checkout")
    kinds = {
        ".py", ".md", ".ipynb", ".ini", ".toml", ".txt", ".in", ".csv", ".json", ".css", ".yaml",
        ".yml", ".sh", "",
    }
    return [
        path for line in done.stdout.split("\0") if line and (path := ROOT / line).is_file() and path.suffix in kinds
    ]


@pytest.mark.parametrize("path", notebooks(), ids=name)
def test_notebook_is_clean(path):
    book = content(path)
    assert set(book["metadata"]) <= {"kernelspec", "language_info"}, (
        f"metadata {sorted(book['metadata'])}: run nbdev_clean"
    )
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell.get("id") for cell in book["cells"]]
    assert all(ids) and len(set(ids)) == len(ids), "cells need ids of their own"
    for cell in book["cells"]:
        assert set(cell["metadata"]) <= {"tags", "jupyter"}, f"cell metadata {cell['metadata']}: run nbdev_clean"
        # cells of imports
        assert cell["metadata"].get("jupyter", {"source_hidden": True}) == {"source_hidden": True}, cell["metadata"]
        assert cell.get("execution_count") is None, "an execution count is left: run nbdev_clean"
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error", f"{output.get('ename')}: {output.get('evalue')}"
            assert output.get("name") != "stderr", (
                f"a warning is left, run docs/tidy.py: {text_of(output['text'])[:200]}"
            )
            assert output.get("execution_count") is None and not output.get("metadata"), (
                "an output has metadata: run nbdev_clean"
            )
    first = text_of(book["cells"][0]["source"])
    assert re.match(r"# \S.*\n+> \S", first), f"begin with '# title' and '> subtitle', got {first[:60]!r}"
    assert path.stat().st_size < LARGEST, f"{path.stat().st_size:,} bytes: make the figures smaller"


def test_notebooks_show_numbers_not_representations():
    "What a notebook shows as text holds no `np.float64(`, `array(` and the like; read here, in JupyterLab, it is not cleaned for the site."
    shown, looked = [], 0
    for path in notebooks():
        for cell in code_cells(path):
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                text = "".join(data.get("text/html", data.get("text/plain", output.get("text", []))))
                looked += bool(text)
                shown += [f"{path.name}: {hit}" for hit in re.findall(r"\b(?:np\.\w+|array|tensor)\(.{0,40}", text)]
    assert looked > 400 and not shown, shown


def test_figures_name_their_layout():
    "`tight_layout` raises where a colour bar meets another notebook's constrained layout: `nbdev_test` runs many in one process."
    assert [
        name(path)
        for path in notebooks()
        if any("tight_layout" in text_of(cell["source"]) for cell in code_cells(path))
    ] == []


def test_notebooks_open_on_their_question():
    "In JupyterLab cells of imports are collapsed."
    sys.path.insert(0, str(ROOT / "docs"))
    try: tidy = importlib.import_module("tidy")
    finally: sys.path.pop(0)
    open_ones = []
    for path in notebooks():
        for cell in code_cells(path):
            collapsed = dict(cell, metadata=dict(cell["metadata"]))
            tidy.collapse_imports(collapsed)
            if collapsed["metadata"] != cell["metadata"]: open_ones.append(name(path))
    assert len(set(open_ones)) < len(notebooks()) / 3, f"run docs/tidy.py: {sorted(set(open_ones))}"


SKIP = re.compile(r"^> \*\*May be skipped at first reading\*\*, up to \*(.+?)\*: \S", re.M)


def test_what_may_be_skipped_ends_where_it_says():
    "One mark, in one spelling; the heading or the words at which a reader goes on come later in the same notebook."
    seen = 0
    for path in notebooks():
        texts = [text_of(cell["source"]) for cell in content(path)["cells"] if cell["cell_type"] == "markdown"]
        for number, text in enumerate(texts):
            assert len(re.findall("skipped at first reading", text)) == len(SKIP.findall(text)), (path.name, text[:200])
            for place in SKIP.findall(text):
                seen += 1
                assert any(re.match(rf"#*\s*{re.escape(place)}", later) for later in texts[number + 1 :]), (
                    path.name,
                    place,
                )
    assert seen >= 7


@pytest.mark.parametrize("path", notebooks("experiments"), ids=name)
def test_experiment_has_one_parameters_cell_of_plain_literals(path):
    tagged = [text_of(cell["source"]) for cell in code_cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1, f"{len(tagged)} cells tagged 'parameters'"
    found = {}
    for node in ast.parse(tagged[0]).body:
        assert isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name), (
            f"not a plain assignment: {ast.unparse(node)}"
        )
        found[node.targets[0].id] = ast.literal_eval(node.value)
    assert {"dataset", "budget", "n", "alpha", "seed", "checkpoint", "data_dir"} <= set(found), sorted(found)
    assert found["budget"] == "quick" and found["checkpoint"] == found["data_dir"] == "" and found["n"] is None
    code = "\n".join(text_of(cell["source"]) for cell in code_cells(path))
    assert re.search(rf"Experiment\(\s*[\"']{path.stem}[\"']", code), (
        f"reproduce.Experiment must be named {path.stem!r}"
    )
    assert ".claim(" in code and ".finish()" in text_of(code_cells(path)[-1]["source"]), (
        "claims, and run.finish() in the last cell"
    )


@pytest.mark.parametrize("path", notebooks("proofs"), ids=name)
def test_proof_ends_in_a_cell_that_asserts(path):
    last = [text_of(cell["source"]) for cell in code_cells(path)[-2:]] # a picture may follow it
    assert any(re.search(r"\bassert\b|\btest_(?:eq|close)\(", source) for source in last)


@pytest.mark.parametrize("path", notebooks("proofs"), ids=name)
def test_proof_says_what_was_shown(path):
    last = [text_of(cell["source"]) for cell in content(path)["cells"] if cell["cell_type"] == "markdown"][-1]
    assert re.search(r"\*\*What was shown:\*\* \S", last), "a proof ends in a sentence '**What was shown:** ...'"


@pytest.mark.parametrize("path", notebooks("proofs") + notebooks("experiments"), ids=name)
def test_proofs_and_experiments_export_nothing(path):
    for cell in code_cells(path): assert not re.search(r"^#\|\s*(?:export|default_exp)", text_of(cell["source"]), re.M)


def exported(path: Path) -> tuple[str, dict[str, str]]:
    "The module of a notebook ('' if it has none) and its exported cells by id."
    module, cells = "", {}
    for cell in code_cells(path):
        source = text_of(cell["source"])
        if found := re.search(r"^#\|\s*default_exp\s+(\S+)", source, re.M): module = found[1]
        if re.search(r"^#\|\s*exporti?s?\s*$", source, re.M): cells[cell["id"]] = source
    return module, cells


IMPORT = re.compile(
    r"(?m)^(\s*from) (?:robust_smooth\b\.?|\.+)(?:\w+\.|(?:core|maths|noise|training|voting|methods|lab)\b)*(\w*) "
    r"import"
)


def tidy(source: str) -> str:
    "Without directives and generated parameters of docstrings; imports of the package written in one way."
    source = re.sub(r"^#\|.*\n?", "", source, flags=re.M)
    source = docments().without_parameters(source)
    source = IMPORT.sub(lambda found: f"{found[1]} {found[2]} import", source) # wherever the package
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def docments():
    "The reader of signatures' comments, beside the site's builder."
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module("docments")
    finally:
        sys.path.pop(0)


def test_modules_are_in_step_with_notebooks():
    written = {}
    for path in notebooks():
        module, cells = exported(path)
        if not module:
            assert not cells, f"{name(path)} exports cells but has no default_exp"
            continue
        file = (ROOT / "robust_smooth").joinpath(*module.split(".")).with_suffix(".py")
        assert file.is_file(), f"{name(path)}: run nbdev_export"
        parts = re.split(r"^# %% (.+)\n", file.read_text(encoding="utf-8"), flags=re.M)[1:]
        there = {
            head.rpartition("#")[2]: tidy(code)
            for head, code in zip(parts[::2], parts[1::2])
            if head.rpartition(" ")[0].endswith(f"nbs/{name(path)}")
        }
        assert set(there) == set(cells), (
            f"{name(path)}: run nbdev_export; cells that differ: {sorted(set(there) ^ set(cells))}"
        )
        for ident, source in cells.items():
            assert there[ident] == tidy(source), (
                f"{file.name} is not what cell {ident} of {name(path)} says: run nbdev_export"
            )
        written[file] = path
    there = [p for p in (ROOT / "robust_smooth").rglob("*.py") if not p.name.startswith("_")]
    assert len(there) >= 40, f"only {len(there)} modules were seen"
    loose = [p.relative_to(ROOT).as_posix() for p in there if p not in written]
    assert not loose, f"modules without a notebook: {loose}"


def test_readme_follows_the_index():
    pytest.importorskip("nbconvert", reason="needs nbconvert")
    sys.path.insert(0, str(ROOT / "docs"))
    try: readme = importlib.import_module("readme")
    finally: sys.path.pop(0)
    assert not readme.stale(), f"not in step: {readme.stale()}; run: python docs/readme.py"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("make reproduce", "make test", "pip install"): assert command in text
    assert "](index_files/" in "\n".join(text.splitlines()[:12]), "no picture in the first screen"
    lacking = [name(path) for path in notebooks("guide")[:1] if f"(nbs/{name(path)})" not in text]
    assert not lacking and text.count(".ipynb)") < 20, "README is an entrance; the map of all notebooks is on the site"


def test_notebooks_are_named_as_agreed(shared):
    with open(shared / "COVERAGE.csv", encoding="utf-8", newline="") as file:
        agreed = {row["notebook"] for row in csv.DictReader(file)}
    have = {f"nbs/{name(path)}" for kind in ("proofs", "experiments") for path in notebooks(kind)}
    assert have <= agreed, f"not in COVERAGE.csv: {sorted(have - agreed)}"
    if agreed - have:
        pytest.skip(
            f"{len(have)} of {len(agreed)} are here; not yet: {', '.join(sorted(Path(n).stem for n in agreed - have))}"
        )


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names(module):
    loaded = (
        importlib.import_module("robust_smooth.cli")
        if module == "cli"
        else getattr(importlib.import_module("robust_smooth"), module)
    )
    lacking = [each for each in PUBLIC[module].split() if not hasattr(loaded, each)]
    assert not lacking, f"rs.{module} lacks {lacking}"


WINGS = dict(  # wing -> the wings that it may import
    core="", maths="core", noise="core maths", training="core maths noise",
    voting="core noise training",
    methods="core maths noise training voting",
    smoothed="core maths noise training voting methods",
    lab="core maths noise training voting methods smoothed",
    testing="core noise smoothed",
    options="core",
    cli="core maths noise training voting methods smoothed lab testing options",
)


def imported(path: Path) -> set[str]:
    "Modules of ours that a module imports, anywhere in it."
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
                if node.level
                else node.module
            )
            found |= {base} if base != "robust_smooth" else {f"{base}.{alias.name}" for alias in node.names}
    return {name.removeprefix("robust_smooth.") for name in found if name.startswith("robust_smooth.")}


def test_wings_import_from_lower_wings_only():
    wrong, seen = [], 0
    for path in (ROOT / "robust_smooth").rglob("*.py"):
        if path.name.startswith("_"): continue
        seen += 1
        wing = path.relative_to(ROOT / "robust_smooth").with_suffix("").parts[0]
        for used in imported(path) - {"__version__"}:
            if used.split(".")[0] != wing and used.split(".")[0] not in WINGS[wing].split():
                wrong.append(f"{path.stem} of {wing} imports {used}")
    assert seen >= 40 and not wrong, wrong


def test_only_rooms_on_demand_and_faces_import_by_name():
    users = {
        p.relative_to(ROOT / "robust_smooth").as_posix()
        for p in (ROOT / "robust_smooth").rglob("*.py")
        if "import_module(" in p.read_text(encoding="utf-8")
    }
    assert users <= {
        "__init__.py", "core/__init__.py", "noise/__init__.py", "core/rooms.py", "training/models.py",
        "training/vision.py", "cli.py",
        "lab/forkserver.py", # what notebooks import
    }, users


def test_no_tracked_file_names_a_machine_or_is_unfinished():
    found = []
    for path in tracked():
        text = readable(path)
        for what in (MACHINE, UNFINISHED, REGISTRY):
            found += [f"{path.relative_to(ROOT)}: {hit[0]}" for hit in what.finditer(text)]
    assert not found, found[:20]


def test_tracked_files_are_small_and_named_once():
    paths = tracked()
    large = [f"{p.relative_to(ROOT)}: {p.stat().st_size:,}" for p in paths if p.stat().st_size > 2_000_000]
    assert not large, large
    doubled = [each for each, count in Counter(str(p.relative_to(ROOT)).lower() for p in paths).items() if count > 1]
    assert not doubled, f"names that differ in case only: {doubled}"


def test_a_heading_has_something_under_it():
    "A heading of the front door, 'Checking', had been left behind."
    empty = []
    for path in notebooks():
        cells = content(path)["cells"]
        for cell, after in zip(cells, cells[1:]):
            last, first = text_of(cell["source"]).strip().split("\n")[-1], text_of(after["source"]).split("\n")[0]
            prose = cell["cell_type"] == after["cell_type"] == "markdown"
            if (
                prose
                and last.startswith("#")
                and first.startswith("#")
                and len(first.split()[0]) <= len(last.split()[0])
            ):
                empty.append(f"{name(path)}: {last}")
    assert not empty


def test_the_guides_table_of_methods_is_todays():
    "It went on naming modes that methods no longer had."
    rs = importlib.import_module("robust_smooth")
    cells = content(NBS / "guide" / "02_which_method.ipynb")["cells"]
    cell = next(cell for cell in cells if "allows_plan" in text_of(cell["source"]))
    shown = re.findall(r"<td>(.*?)</td>", text_of(cell["outputs"][0]["data"]["text/html"]))
    columns = ["noise", "norm", "method", "needs", "deterministic", "allows_plan", "modes"]
    today = rs.list_methods()[columns].sort_values(["norm", "noise"])
    assert shown == [str(entry) for row in today.itertuples(index=False) for entry in row]


def test_links_of_plain_pages_lead_somewhere():
    "docs/sweeps.md pointed to a notebook as the site lays it out, where no file is."
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    assert len(pages) >= 5
    for page in pages:
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_a_broken_line_runs_on():
    "What hung over a docstring's wide line stood alone, as two or three words."
    source = '"""One.\n\n    ' + "word " * 30 + "end\n    of it.\n\n    - a list" + '"""'
    module = f"def f(x: int, # a number\n     ) -> None:\n    {source}\n"
    lines = docments().with_parameters(module).splitlines()
    assert [line.strip() for line in lines if "of it" in line or "- a list" in line][0].endswith("word end of it.")
    assert "    - a list" in lines
