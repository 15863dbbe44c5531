"What a page tells its readers to write can be written: the calls and the command lines in prose, which nothing else runs."
import ast
import builtins
import contextlib
import importlib
import inspect
import io
import json
import pkgutil
import re
import shlex
from pathlib import Path

import robust_smooth as rs
from robust_smooth import options

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.S)
OTHERS = {"load"} # of torch, in a remark on its dangers


def pages() -> list[tuple[str, str]]:
    "Pages, and their prose: this version's, not the history."
    found = [(name, (ROOT / name).read_text(encoding="utf-8")) for name in ("README.md", "CONTRIBUTING.md", "docs/sweeps.md")]
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts: continue
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        found.append((path.relative_to(ROOT).as_posix(), text))
    assert len(found) > 150
    return found


def written(text: str, languages: tuple[str, ...], inline: str) -> list[str]:
    "What stands in blocks of these languages, and between backquotes where it looks like that."
    blocks = [body for language, body in FENCE.findall(text) if language in languages]
    return blocks + re.findall(rf"`({inline})`", FENCE.sub("", text))


def callables() -> dict[str, list]:
    "Every function, class and method of the package, by name."
    found: dict[str, list] = {}
    for each in pkgutil.walk_packages(rs.__path__, "robust_smooth."):
        for name, value in vars(importlib.import_module(each.name)).items():
            if not getattr(value, "__module__", "").startswith("robust_smooth"): continue
            if inspect.isfunction(value) or inspect.isclass(value): found.setdefault(name, []).append(value)
            for method, body in vars(value).items() if inspect.isclass(value) else ():
                body = getattr(body, "__func__", body)
                if inspect.isfunction(body): found.setdefault(method, []).append(body)
    return found


def takes(value, names: list[str]) -> bool:
    "Whether something can be called with these keywords."
    try: known = inspect.signature(value).parameters.values()
    except (TypeError, ValueError): return True
    return any(each.kind is each.VAR_KEYWORD for each in known) or set(names) <= {each.name for each in known}


def misspelt(code: str, known: dict[str, list]) -> list[str]:
    "Calls with keywords that nothing of that name takes, and names of the face that are not there."
    try: tree = ast.parse(code.strip())
    except SyntaxError: return []
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rs":
            if not hasattr(rs, node.attr): wrong.append(ast.unparse(node))
        if not isinstance(node, ast.Call): continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        names = [each.arg for each in node.keywords if each.arg]
        if name in known and name not in OTHERS and not hasattr(builtins, name):
            if not any(takes(value, names) for value in known[name]): wrong.append(ast.unparse(node))
    return wrong


def test_calls_in_prose_can_be_made():
    known, looked, wrong = callables(), 0, []
    for name, text in pages():
        for code in written(text, ("python",), r"[^`\n]*\([^`\n]*\)[^`\n]*"):
            looked += 1
            wrong += [f"{name}: {call}" for call in misspelt(code, known)]
    assert looked > 120 and not wrong, wrong
    assert misspelt("rs.models.optimise(model, x, compile=True)", known) and misspelt("rs.nothing", known)


def test_commands_in_prose_can_be_given():
    parser, looked, wrong = options.parser(), 0, []
    for name, text in pages():
        for block in written(text.replace("\\\n", " "), ("sh", "bash", ""), r"robust-smooth [^`\n]+"):
            for line in block.splitlines():
                if not line.startswith("robust-smooth "): continue
                looked += 1
                said = io.StringIO()
                try:
                    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                        parser.parse_args(shlex.split(line, comments=True)[1:])
                except SystemExit as stop:
                    if stop.code: wrong.append(f"{name}: {line}: {said.getvalue().splitlines()[-1]}")
    assert looked > 30 and not wrong, wrong


def test_the_guide_shows_todays_parameters():
    "Its output went on with words that the experiment's cell no longer had."
    def cells(name): return json.loads((ROOT / "nbs" / name).read_text(encoding="utf-8"))["cells"]
    today = next(
        "".join(cell["source"])
        for cell in cells("experiments/gaussian_table1.ipynb")
        if "parameters" in cell["metadata"].get("tags", [])
    )
    shown = next(cell for cell in cells("guide/05_experiments.ipynb") if 'print("".join(cell["source"]))' in "".join(cell["source"]))
    assert "".join(shown["outputs"][0]["text"]).rstrip() == today.rstrip()
