"""The site in _docs/, from the notebooks, the modules and the tables; warnings are errors and every internal link is checked.

    python docs/build.py            build it
    python docs/build.py FOLDER     build it there (its sources go to FOLDER_sources)

Nothing is listed by hand: a notebook, a module or a table that is there gets its page.
"""
import ast
import copy
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import time
from functools import lru_cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

from docments import arguments, comments, fields, lineage, plain_docstring, returned
from links import Map, natural
from notebooks import (
    EXPORTS, NBS, ROOT, SILENT, comments_above, defined, narrow_fences, only_checks, only_imports, read,
    rewrite_links, title, visible,
)

DOCS, SITE = ROOT / "docs", ROOT / "_proc" / "site"
PACKAGE = ROOT / "robust_smooth"
PAGES = {
    "CONTRIBUTING.md": "guide/contributing.md",
    "CHANGELOG.md": "guide/changelog.md",
    "LICENSE": "guide/license.md",
}  # files of the root that have a page

WINGS = {
    "core": "Core", "maths": "Mathematics", "noise": "Noise", "training": "Training",
    "voting": "Voting", "methods": "Methods", "lab": "The lab",
}  # folder -> heading


# ---- notebooks ----

def link_of(path: Path):
    "How a relative link of the notebook at `path` reads on the site."
    here = path.parent.relative_to(NBS).as_posix()
    def change(target: str, words: str) -> str | None:
        name, mark, fragment = target.partition("#")
        place = posixpath.normpath(posixpath.join("nbs", here, name))
        if not (ROOT / place).exists():
            raise FileNotFoundError(f"{path.relative_to(ROOT)} links to {target}, which does not exist")
        if place.startswith("nbs/") and place.endswith(".ipynb"): return name + mark + fragment
        page = (
            f"guide/{Path(place).name}"
            if Path(place).parent == Path("docs") and place.endswith(".md")
            else PAGES.get(place)
        )
        return posixpath.relpath(page, here) if page else None
    return change


def folded_as(source: str, exported: bool) -> str:
    "What the bar over folded code says: the public names that it defines."
    public = [name for name in defined(source) if not name.startswith("_")]
    if public: return "Code of " + ", ".join(public[:6])
    return "Code of helpers" if exported else ""


def draws(cell: nbformat.NotebookNode) -> bool:
    "Whether a code cell shows a picture."
    return any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {}))


LABEL = re.compile(r"\b(?:set_)?(title|xlabel|ylabel|suptitle)\s*(?:=|\()\s*([rf]*)([\"'])(.*?)(?<!\\)\3", re.S)

def plainly(words: str) -> str:
    "A text without the marks of Markdown and mathematics."
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", words)
    words = (
        re.sub(r"\\[td]?frac(\d)(\d)", r"\1/\2", words)
        .replace("\\ell_", "l")
        .replace("\\infty", "inf")
        .replace("\\le", " <= ")
        .replace("\\ge", " >= ")
    )
    return " ".join(re.sub(r"[$*`\\{}]", "", words).split())


def told(cell: nbformat.NotebookNode, after: str, name: str) -> str:
    "What a picture shows, for those who cannot see it: the caption below it (a paragraph in italics), or the title of its page, its own, and its axes."
    if caption := re.match(r"\*([^*].*?[^*])\*\s*(?:\n\n|$)", after, re.S): return plainly(caption[1])
    words = {}
    for kind, prefix, _, text in LABEL.findall(cell.source):
        if text and not ("f" in prefix and "{" in text): words.setdefault(kind, plainly(text))
    axes = " against ".join(filter(None, (words.get("ylabel"), words.get("xlabel"))))
    return ": ".join(filter(None, (plainly(name), words.get("suptitle") or words.get("title"), axes)))


def code_cell(cell: nbformat.NotebookNode, wing: str, imports: bool) -> None:
    """Tags: exported code is folded under the names that it defines, its imports go; checks of chapters and other imports are folded; hidden inputs go.

    So is code that only draws; and of an experiment all but the parameters: what is told there is its numbers.
    """
    names = set(cell.metadata.pop("directives"))
    parameters = "parameters" in cell.metadata.pop("tags", [])
    folded, silent = "", only_imports(cell.source) and not cell.outputs
    if names & set(SILENT) or (silent and names & set(EXPORTS)):
        cell.metadata["tags"] = ["remove-input"]
    elif names & set(EXPORTS):
        folded = folded_as(cell.source, True)
    elif silent and imports:
        folded = "Imports"
    elif "code-fold" in names:
        folded = "Imports" if only_imports(cell.source) else folded_as(cell.source, False) or "Code"
    elif wing in CHAPTERS and not cell.outputs and only_checks(cell.source):
        folded = "Checks"
    elif wing == "experiments" and not parameters:
        folded = "Code"
    elif draws(cell) and not re.search(r"\bassert\b|\btest_", cell.source):
        folded = "Code of the picture"
    if folded: cell.metadata.update(tags=["hide-input"], mystnb=dict(code_prompt_show=folded, code_prompt_hide=folded))
    cell.source = comments_above(cell.source)


CHAPTERS = (*WINGS, "nbs") # folders whose checks are folded; in proofs and the guide they are what is told

def page_of(path: Path, tree: Map) -> nbformat.NotebookNode:
    "The page of a notebook: what a reader sees, the names in it linked, and at its end where to go from here."
    notebook = read(path)
    module = exported(notebook)
    notebook.cells = visible(notebook)
    change = link_of(path)
    below = [cell.source if cell.cell_type == "markdown" else "" for cell in notebook.cells[1:]] + [""]
    for cell, after in zip(notebook.cells, below):
        if cell.cell_type == "markdown":
            cell.source = narrow_fences(rewrite_links(tree.linked(cell.source, path), change))
        else:
            words = cell.metadata.pop("alt", "") or told(cell, after, title(path)[0])
            code_cell(cell, path.parent.name, imports=path.stem != "index")
            if draws(cell):
                cell.metadata.setdefault("mystnb", {})["image"] = dict(alt=words)
            for output in cell.outputs:
                data = output.get("data", {})
                if "text/markdown" in data:
                    data["text/markdown"] = rewrite_links(data["text/markdown"], change)
    if module and PACKAGE.joinpath(*module.split(".")).with_suffix(".py").exists():
        first = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "markdown")
        reference = posixpath.relpath(f"api/{module}.md", path.parent.relative_to(NBS).as_posix())
        lines = re.match(r"(#[^\n]*\n(?:\s*>[^\n]*(?:\n|$))*)(.*)", notebook.cells[first].source, re.S)
        notebook.cells[
            first
        ].source = f"{lines[1].rstrip()}\n\n*Reference: [`robust_smooth.{module}`]({reference})*\n\n{lines[2].strip()}"
    if more := tree.see_also(path): notebook.cells.append(nbformat.v4.new_markdown_cell(more, id="see-also"))
    return notebook


def exported(notebook: nbformat.NotebookNode) -> str:
    "The module that a notebook is exported to, or ''."
    found = re.search(
        r"^#\|\s*default_exp\s+(\S+)", "\n".join(c.source for c in notebook.cells if c.cell_type == "code"), re.M
    )
    return found[1] if found else ""


# ---- reference ----

def plain(text: str) -> str:
    "Text for MyST: what is between backticks or dollars stays, every other special character is escaped."
    parts = re.split(r"(`[^`\n]+`|\$[^$\n]+\$)", " ".join(text.split()))
    return "".join(
        part.replace("|", "\\|") if i % 2 else re.sub(r"([\\*_<>\[\]{}|$#~^])", r"\\\1", part)
        for i, part in enumerate(parts)
    )


def table(rows: list[tuple[str, str, str, str]], heads: tuple[str, str, str, str]) -> list[str]:
    "A Markdown table without its empty columns; nothing where no row says anything."
    if not any(row[3] for row in rows): return []
    kept = [i for i in range(4) if any(row[i] for row in rows)]
    code = lambda text: (
        f"`` {text} ``".replace("|", "\\|") if "`" in text else f"`{text}`".replace("|", "\\|") if text else ""
    )
    line = lambda row: "| " + " | ".join(plain(row[i]) if i == 3 else code(row[i]) for i in kept) + " |"
    return ["| " + " | ".join(heads[i] for i in kept) + " |", "|" + "---|" * len(kept), *map(line, rows), ""]


def described(node: ast.AST) -> list[str]:
    text = plain_docstring(ast.get_docstring(node) or "") # the parameters have a table of their own
    return [plain(part) + "\n" for part in re.split(r"\n\s*\n", text)] if text else []


def signature(node: ast.FunctionDef) -> str:
    "Arguments and their defaults; the types stand in the table."
    args = copy.deepcopy(node.args)
    for arg in ast.walk(args):
        if isinstance(arg, ast.arg): arg.annotation = None
    text = ast.unparse(args)
    return re.sub(r"^(self|cls)(, |$)", "", text).removeprefix("/, ")


def function(node: ast.FunctionDef, notes: dict[int, str], kind: str, owner: str = "") -> list[str]:
    rows = arguments(node, notes)
    returns = [returned(node, notes)]
    decorators = {ast.unparse(d) for d in node.decorator_list}
    if kind == "method":
        kind = next(
            (
                k
                for d, k in (
                    ("property", "property"),
                    ("cached_property", "property"),
                    ("classmethod", "classmethod"),
                    ("staticmethod", "staticmethod"),
                )
                if d in decorators
            ),
            kind,
        )
    head = f"{owner}{node.name}" + ("" if kind == "property" else f"({signature(node)})")
    every = rows + (returns if returns[0][3] or (rows and returns[0][1]) else [])
    return [
        f"::::{{py:{kind}}} {head}",
        *described(node),
        *table(every, ("argument", "type", "default", "meaning")),
        "::::",
        "",
    ]


def klass(node: ast.ClassDef, notes: dict[int, str], classes: dict[str, ast.ClassDef]) -> list[str]:
    "A class with its settings and its public methods, those of the private bases that it is put together from among them."
    whole = lineage(node, classes)
    methods = {each.name: each for part in whole for each in part.body if isinstance(each, ast.FunctionDef)}
    begin = methods.get("__init__")
    lines = [f":::::{{py:class}} {node.name}" + (f"({signature(begin)})" if begin else ""), *described(node)]
    if begin:
        lines += table(arguments(begin, notes), ("argument", "type", "default", "meaning"))
    rows = {row[0]: row for part in whole for row in fields(part, notes)}
    lines += table(list(rows.values()), ("field", "type", "default", "meaning"))
    for method in methods.values():
        if not method.name.startswith("_") and ast.get_docstring(method):
            lines += function(method, notes, "method")
    return [*lines, ":::::", ""]


def module_name(path: Path) -> str:
    "The dotted name of a module below the package."
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def module_page(path: Path, source_page: str) -> str:
    "The reference of a module: every public name with its docstring, arguments and their meaning. Read, not imported."
    text = path.read_text(encoding="utf-8")
    tree, notes = ast.parse(text), comments(text)
    public, found = [], {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            # also where it unpacks other names
            public = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)): found[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name): found[target.id] = node
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    name = module_name(path)
    lines = [f"# {name}", ""] + described(tree)
    if source_page: lines += [f"Written in [{title(NBS / source_page)[0]}](../{source_page}).", ""]
    lines += [f":::::{{py:module}} robust_smooth.{name}", ":::::", ""]
    for name in sorted((n for n in public if n in found), key=lambda n: found[n].lineno):
        node = found[name]
        if isinstance(node, ast.FunctionDef):
            lines += function(node, notes, "function")
        elif isinstance(node, ast.ClassDef):
            lines += klass(node, notes, classes)
        else:
            value = ast.unparse(node.value) if node.value is not None else ""
            shown = value if len(value) <= 100 else value[:97] + "..."
            lines += [
                f":::{{py:data}} {name}",
                *([plain(notes[node.lineno])] if node.lineno in notes else []),
                *([f"\n`` {shown} ``"] if value else []),
                ":::",
                "",
            ]
    return "\n".join(lines)


# ---- tables ----

def by_radius(frame):
    "Ours beside printed numbers with the radii as columns, or None where that does not fit."
    if (
        not {"ours", "printed", "radius"} <= set(frame.columns)
        or frame["radius"].nunique() > 16
        or frame["radius"].isna().any()
    ):
        return None
    keys = [c for c in frame.columns if c not in ("ours", "printed", "radius", "difference")]
    if not keys or len(keys) > 6 or frame.duplicated([*keys, "radius"]).any(): return None
    cells = frame.assign(**{k: frame[k].astype(object).where(frame[k].notna(), "") for k in keys},
                         cell=[f"{a:.3g}\u00a0/\u00a0{b:.3g}" for a, b in zip(frame["ours"], frame["printed"])])
    wide = cells.pivot(index=keys, columns="radius", values="cell").fillna("")
    wide.columns = [f"r = {c:g}" for c in wide.columns]
    return wide.reset_index()


def shown(frame, experiment: str = "", limit: int = 400) -> list[str]:
    "A table as Markdown, in words, with its caption."
    from robust_smooth.lab.report import shape
    from robust_smooth.lab.results import to_markdown
    from robust_smooth.lab.words import in_words
    if {"value", "printed"} <= set(frame.columns) and "proved" not in frame:
        frame = frame.rename(columns=dict(value="ours"))
    laid, caption = shape(frame, experiment)
    wide = by_radius(laid)
    if wide is not None: laid, caption = wide, caption + f"{'; ' if caption else ''}each cell: ours / printed"
    lines = [f"*{plain(caption)}*", ""] if caption else []
    if not len(laid): return [*lines, "(no rows)", ""]
    text = re.sub(r"(?<!\\)([*_<>\[\]{}$~^])", r"\\\1", to_markdown(in_words(laid.head(limit), experiment)))
    text = re.sub(r"(?<=\d) / (?=-?[\d.])", "\u00a0/\u00a0", text) # a pair of numbers stays on one line
    if len(laid) > limit: text += f"\n({len(laid) - limit} further rows are in the file)\n"
    return [*lines, *(["::::{container} long", "", text, "::::"] if len(laid) > 24 else [text]), ""]


def as_printed(frame, experiment: str) -> list[str]:
    "A paper's table: one part per metric, radii as columns where there are any, its notes below."
    from robust_smooth.lab.words import known, word
    notes = (
        []
        if "note" not in frame
        else sorted(
            {
                (str(row.get("method", "")), str(row["note"]))
                for row in frame.to_dict("records")
                if isinstance(row["note"], str) and row["note"]
            }
        )
    )
    frame, lines = frame.drop(columns=[c for c in ("note", "bold") if c in frame]), []
    for metric, part in frame.groupby("metric", sort=False):
        head = plain(word(metric, experiment))
        at, without = part[part["radius"].notna()], part[part["radius"].isna()].drop(columns="radius")
        for rows, words in ((at, head), (without, f"{head}, without a radius" if len(at) else head)):
            if len(rows):
                lines += [f"**{words}**", ""] + shown(
                    rows.drop(columns="metric").dropna(axis=1, how="all").reset_index(drop=True), experiment
                )
    return [
        *lines,
        *(
            f"- {plain(known(method, experiment) or method)}: {plain(note)}" if method else f"- {plain(note)}"
            for method, note in notes
        ),
        "",
    ]


def owner_of(name: str, keys: list[str]) -> str:
    "The paper whose key begins the name of an experiment."
    return next((key for key in sorted(keys, key=len, reverse=True) if name.startswith(key)), "")


def facts_of(folder: Path) -> list[str]:
    "A line on where the numbers of a kept run come from."
    from robust_smooth.lab.sizes import used_sizes
    try: run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError): run = {}
    origin, used = run.get("provenance") or {}, used_sizes(run)
    sizes = {name: value for name, value in used.items() if value is not ...} # ...: nobody knows any more
    facts = dict(
        dataset=sizes.get("dataset"), budget=sizes.get("name"), images=sizes.get("images"),
        n=sizes.get("n"), network=sizes.get("network"), epochs=sizes.get("epochs"),
        shortened=sizes.get("note"), commit=origin.get("commit"), device=origin.get("device"),
        seed=origin.get("seed"), seconds=run.get("seconds"),
    )
    said = ", ".join(f"{k} {plain(str(v))}" for k, v in facts.items() if v not in (None, ""))
    return [said + ".", ""] if said else []


HEADS = dict(
    table="our numbers",
    table_beside="our numbers beside the printed ones",
    best_beside="the best, beside the printed ones",
    from_logs="from the published logs",
    published="from the published logs",
)  # file of a kept run -> how it is called

def measured(folder: Path, every: list[str]) -> list[str]:
    "The tables and pictures of a kept run."
    import pandas as pd
    name, lines = folder.name, facts_of(folder)
    for path in sorted(folder.glob("*.csv")):
        try: frame = pd.read_csv(path)
        except pd.errors.EmptyDataError: continue
        lines += [f"### {plain(HEADS.get(path.stem) or path.stem.replace('_', ' '))}", ""] + shown(
            frame, name.partition("-")[0]
        )
    for number, picture in enumerate(sorted((ROOT / "figures").glob(f"{name}*.png"))):
        if picture.stem != name and any(
            picture.stem.startswith(other) for other in every if other != name and other.startswith(name)
        ):
            continue
        target = SITE / "tables" / "pictures" / picture.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(picture, target)
        lines += [f"![{plain(name)}, figure {number + 1}](../pictures/{picture.name})", ""]
    return lines


def printed_item(key: str, item: str) -> list[str]:
    from robust_smooth.lab.papers import printed
    return ["As the paper prints it, or as it follows from its authors' records (source: derived).", ""] + as_printed(
        printed(key, item, expand=True).drop(columns=["key", "item"]), f"{key}_{item}"
    )


def tables(sources: dict[str, Path]) -> dict[str, dict[str, str]]:
    "One page per table or figure: what we measured, then what is printed. Paper -> name of the page -> its text."
    from robust_smooth.lab.papers import PAPERS, printed
    from robust_smooth.lab.results import doubt
    pages: dict[str, dict[str, str]] = {}
    folders = sorted((ROOT / "data" / "results").glob("*/"), key=natural)
    every = [folder.name for folder in folders]
    if doubts := [f"{folder.name}: {said}" for folder in folders if (said := doubt(folder))]:
        raise SystemExit("data/results/" + "; ".join(doubts))
    keys = ["gaussian", *PAPERS]
    for key in keys:
        items = list(dict.fromkeys(printed(key)["item"])) if key in PAPERS else []
        # EXPERIMENT or EXPERIMENT-DATASET-BUDGET
        books = list(dict.fromkeys(name.partition("-")[0] for name in every if owner_of(name, keys) == key))
        found: dict[str, str] = {}
        for book in books:
            head = title(sources[book])[0] if book in sources else book
            lines = [f"# {head}: numbers", ""] + (
                [f"Notebook: [{head}](../../experiments/{book}.ipynb).", ""] if book in sources else []
            )
            for folder in (each for each in folders if each.name.partition("-")[0] == book):
                lines += [f"## {plain(folder.name)}, measured", ""] + measured(folder, every)
            item = book.removeprefix(f"{key}_")
            if item in items:
                items.remove(item)
                lines += [f"## {plain(item)}, printed", ""] + printed_item(key, item)
            found[book] = "\n".join(lines) + "\n"
        for item in items:
            found[f"{key}_{item}"] = (
                "\n".join([f"# {plain(key)}, {plain(item)}: printed", "", *printed_item(key, item)]) + "\n"
            )
        pages[key] = dict(sorted(found.items(), key=lambda pair: natural(Path(pair[0]))))
    return pages


def write_tables(papers: dict[str, str], sources: dict[str, Path]) -> None:
    "The pages of numbers, a page per paper that lists them, and a page that lists the papers."
    pages = tables(sources)
    for key, found in pages.items():
        for name, text in found.items(): write(f"tables/{key}/{name}.md", text)
        heads = {name: text.splitlines()[0].lstrip("# ").removesuffix(": numbers") for name, text in found.items()}
        lines = [
            f"# {key}: tables",
            "",
            f"*{plain(papers[key])}*",
            "",
            *(f"- [{words}]({key}/{name}.md)" for name, words in heads.items()),
            "",
        ]
        write(f"tables/{key}.md", "\n".join(lines) + "\n" + toctree([f"{key}/{name}" for name in found]))
    write(
        "tables/index.md",
        "# Tables\n\nWhat our own runs measured, beside what the papers print. Other data, "
        "smaller networks and fewer draws give other numbers; what is compared is the shape, and each "
        "table says where it comes from.\n\n"
        + "\n".join(f"- [{plain(key)}]({key}.md): {plain(papers[key])}" for key in pages)
        + "\n\n"
        + toctree(list(pages)),
    )


# ---- the whole ----

def toctree(names: list[str], caption: str = "", hidden: bool = True) -> str:
    return "\n".join(
        [
            "```{toctree}",
            *([":hidden:"] if hidden else []),
            *([f":caption: {caption}"] if caption else []),
            ":maxdepth: 1", "", *names, "```", "",
        ]
    )


def listing(head: str, intro: str, groups: dict[tuple[str, str], list[Path]], base: Path) -> str:
    "A page that lists notebooks with their subtitles, in groups of (name, what it stands for)."
    lines = [f"# {head}", "", intro, ""]
    for (name, meaning), paths in groups.items():
        if not paths: continue
        lines += [f"## {plain(name)}", "", *([f"*{plain(meaning)}*", ""] if meaning else [])]
        for path in paths:
            words, subtitle = title(path)
            lines.append(f"- [{words}]({path.relative_to(base).as_posix()})" + (f": {subtitle}" if subtitle else ""))
        lines.append("")
    entries = [
        f"{name}: {title(path)[0]} <{path.relative_to(base).with_suffix('').as_posix()}>"
        for (name, _), paths in groups.items()
        for path in paths
    ]
    return "\n".join(lines) + "\n" + toctree(entries) # every paper has a Theorem 1


def registers(path: Path) -> bool:
    "Whether a notebook registers a method."
    return any(
        re.search(r"^register\(", cell.source, re.M)
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code"
    )


LANDING = """## On this site

[The map](map.md) leads from each paper to its chapters, proofs, tables and figures. Or all of a kind: [proofs](proofs/index.md), [experiments](experiments/index.md),
[measured and printed numbers](tables/index.md), [every public name](api/index.md).
"""

def write(name: str, text: str) -> None:
    path = SITE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def sources() -> int:
    "Write the sources of the site; returns the number of pages."
    if SITE.exists(): shutil.rmtree(SITE)
    from robust_smooth.lab.papers import PAPERS
    books = sorted(
        path
        for path in NBS.rglob("*.ipynb")
        if not any(part.startswith((".", "_")) for part in path.relative_to(NBS).parts)
    )
    tree = Map(tuple(books))
    for path in books:
        target = SITE / path.relative_to(NBS)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            nbformat.write(page_of(path, tree), target)
        except (SyntaxError, FileNotFoundError) as error:
            raise SystemExit(f"{path.relative_to(ROOT)}: {error}") from error
    written = {exported(nbformat.read(path, as_version=4)): path.relative_to(NBS).as_posix() for path in books}
    modules = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_"))
    if len(modules) < 40:
        raise SystemExit(f"only {len(modules)} modules were seen below {PACKAGE.name}; is a folder missing?")
    for path in modules: write(f"api/{module_name(path)}.md", module_page(path, written.get(module_name(path), "")))
    first = lambda path: (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    write(
        "api/index.md",
        "# Reference\n\nEvery public name of every module. `import robust_smooth as rs` brings the front door; "
        "modules are reached as `rs.NAME`.\n\n"
        + "\n".join(f"- [`{module_name(p)}`]({module_name(p)}.md): {plain(first(p))}" for p in modules)
        + "\n\nAll names: [index](genindex).\n\n".replace("[index](genindex)", "{ref}`genindex`")
        + toctree([module_name(p) for p in modules]),
    )
    papers = {"gaussian": "The baseline that all papers compare with"} | PAPERS
    stories = papers | dict(exact="The exact two-sided certificate: our own, the default")
    grouped = lambda paths: (
        {
            (key, name): sorted((p for p in paths if p.stem.startswith(f"{key}_")), key=natural)
            for key, name in stories.items()
        }
        | {("others", ""): [p for p in paths if not any(p.stem.startswith(f"{key}_") for key in stories)]}
    )
    kinds = {kind: [p for p in books if p.parent.name == kind] for kind in ("proofs", "experiments")}
    write(
        "proofs/index.md",
        listing(
            "Proofs",
            "One notebook per statement: what it says, why it holds, and a check that a reader can run. "
            "Where the printed statement is false, a counter-example "
            "and the mended statement.",
            grouped(kinds["proofs"]),
            NBS / "proofs",
        ),
    )
    write(
        "experiments/index.md",
        listing(
            "Experiments",
            "One notebook per table or figure: the claim, our numbers beside the printed ones, "
            "and which claims hold at this budget.",
            grouped(kinds["experiments"]),
            NBS / "experiments",
        ),
    )
    write_tables(papers, {p.stem: p for p in kinds["experiments"]})
    write("map.md", tree.page(stories, WINGS))
    guides = sorted(DOCS.glob("*.md"))
    for path in guides: # in the tree they lie beside nbs/, on the site within it
        write(f"guide/{path.name}", path.read_text(encoding="utf-8").replace("](../nbs/", "](../"))
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        write(page, f"# Licence\n\n```text\n{text}\n```\n" if name == "LICENSE" else text)
    name_of = lambda path: path.relative_to(NBS).with_suffix("").as_posix()
    house = lambda wing: [name_of(p) for p in books if p.parent == NBS / wing and p.stem != "index"]
    begin = {name_of(path) for key in stories for path in tree.chapters(key)[:1]}
    chapters = [name for name in house("methods") if name in begin or registers(NBS / f"{name}.ipynb")]
    trees = [
        toctree(house("guide") + ["guide/" + p.stem for p in guides], "Guide"),
        toctree(chapters, "Methods"),
        toctree(["map", "proofs/index", "experiments/index", "tables/index"], "Papers"),
        toctree([name for name in house("methods") if name not in chapters], "Behind the methods"),
        toctree(house(""), "The front"),
        *(toctree(house(wing), meaning) for wing, meaning in WINGS.items() if wing != "methods"),
        toctree(["api/index", *(PAGES[name].removesuffix(".md") for name in PAGES)], "Reference"),
    ]
    landing = nbformat.read(SITE / "index.ipynb", as_version=4)
    landing.cells += [
        nbformat.v4.new_markdown_cell(words, id=name)
        for name, words in (("site", LANDING), ("toctrees", "\n".join(trees)))
    ]
    nbformat.write(landing, SITE / "index.ipynb")
    return sum(1 for path in SITE.rglob("*") if path.suffix in (".md", ".ipynb"))


NO_TAGS = re.compile(r"<!--.*?-->|(<script\b[^>]*>).*?</script>", re.S) # what may look like tags, and is none
TAG = re.compile(r"""<[a-zA-Z](?:[^<>"']|"[^"]*"|'[^']*')*>""")
PLACE = re.compile(r"""\s(id|name|href|src)=(?:"([^"]*)"|'([^']*)')""")

class _Links:
    "The anchors and the targets of a page."

    def __init__(self, page: str):
        self.ids, self.targets = set(), []
        for tag in TAG.findall(NO_TAGS.sub(r"\1", page)):
            for kind, *values in PLACE.findall(tag):
                value = unescape("".join(values))
                if value and kind in ("id", "name"): self.ids.add(value)
                elif value: self.targets.append(value)


def broken_links(folder: Path) -> list[str]:
    "Every link of every page to a file or an anchor that is not there."
    @lru_cache(maxsize=None)
    def parsed(path: Path) -> _Links:
        return _Links(path.read_text(encoding="utf-8"))
    @lru_cache(maxsize=None) # the sidebars of a folder's pages lead to the same places
    def led_to(here: Path, path: str) -> Path | None:
        place = (here / unquote(path)).resolve()
        if place.is_dir(): place = place / "index.html"
        return place if place.exists() else None
    broken = []
    for path in sorted(folder.rglob("*.html")):
        for target in parsed(path).targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc: continue
            place = led_to(path.parent, parts.path) if parts.path else path
            lost = place is None or (
                parts.fragment and place.suffix == ".html" and unquote(parts.fragment) not in parsed(place).ids
            )
            if lost: broken.append(f"{path.relative_to(folder)} -> {target}")
    return broken


def main(argv: list[str]) -> int:
    global SITE
    if len(argv) > 1 or any(part.startswith("-") for part in argv):
        print(__doc__)
        return 0 if argv == ["--help"] else 2
    begin, out = time.perf_counter(), Path(argv[0]).resolve() if argv else ROOT / "_docs"
    work = out.with_name(out.name + "_sources") if argv else ROOT / "_proc"
    SITE, made = work / "site", work / "html"
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    pages = sources()
    if made.exists(): shutil.rmtree(made)
    command = [
        sys.executable, "-m", "sphinx", "-W", "-E", "-q", "-b", "html", "-c", str(DOCS), "-d",
        str(work / "doctrees"), str(SITE), str(made),
    ]
    if (code := subprocess.run(command).returncode): return code
    broken = broken_links(made)
    for line in broken: print("broken link:", line, file=sys.stderr)
    if broken: return 1
    if out.exists(): shutil.rmtree(out)
    made.rename(out)
    print(
        f"{pages} pages in {time.perf_counter() - begin:.0f} s, all links hold: "
        f"{out / 'index.html' if argv else '_docs/index.html'}"
    )
    return 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
