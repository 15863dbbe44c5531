"Notebooks as readers see them: hidden cells gone, directives obeyed, links resolved. Shared by `readme.py` and `build.py`."
import ast
import copy
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / "nbs"
DIRECTIVE = re.compile(r"^\s*#\|\s*(\S.*?)\s*$", re.M)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)")
CODE = re.compile(r"(```.*?```|`[^`\n]+`|\$\$.*?\$\$|\$[^$\n]+\$)", re.S)
EXPORTS = ("export", "exporti", "exports")


def read(path: Path) -> nbformat.NotebookNode:
    "A notebook, with the language that `nbdev_clean` removes and fenced code needs."
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["language_info"] = nbformat.NotebookNode(name="python", pygments_lexer="ipython3", file_extension=".py")
    return notebook


def title(path: Path) -> tuple[str, str]:
    "The title and the subtitle (the quotation below it) of a notebook. Raises ValueError where there is no title."
    text = next((c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"), "")
    found = re.match(r"#\s+(.+?)\s*(?:\n+((?:>.*\n?)+)|\n|$)", text)
    if not found: raise ValueError(f"{path.name} must begin with a title '# ...', got {text[:40]!r}")
    return found[1], " ".join(line.lstrip("> ").strip() for line in (found[2] or "").splitlines()).strip()


def directives(source: str) -> list[str]:
    "The names of the `#|` directives of a cell, such as 'export' or 'hide'."
    return [found.split()[0].rstrip(":") for found in DIRECTIVE.findall(source)]


def defined(source: str) -> list[str]:
    "The public names that a cell defines; empty for a cell of imports."
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)): names.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            names += [t.id for t in (node.targets if isinstance(node, ast.Assign) else [node.target]) if isinstance(t, ast.Name)]
    return list(dict.fromkeys(names))


def only_imports(source: str) -> bool:
    kinds = (ast.Import, ast.ImportFrom, ast.Try)
    try: return all(isinstance(node, kinds) for node in ast.parse(source).body)
    except SyntaxError: return False # a magic


def visible(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    "Copies of the cells that a reader sees, each with `directives` in its metadata, the directive lines gone, warnings of the kernel dropped."
    cells = []
    for cell in copy.deepcopy(notebook.cells):
        if cell.cell_type == "raw": continue
        if cell.cell_type == "code":
            names = directives(cell.source)
            if "hide" in names or names == ["default_exp"]: continue
            cell.source = DIRECTIVE.sub("", cell.source).strip("\n")
            if not cell.source.strip(): continue
            cell.metadata["directives"] = names
            cell.outputs = [] if "hide_output" in names else [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
            cell.execution_count = None
        cells.append(cell)
    return cells


def rewrite_links(text: str, change: Callable[[str, str], str | None]) -> str:
    "Pass each relative link of a Markdown text through `change(target, words)`: the new target, or None to keep the words alone."
    def one(found: re.Match) -> str:
        mark, words, target = found.groups()
        if re.match(r"[a-z][a-z0-9+.-]*:|#|/", target): return found[0]
        new = change(target, words)
        return words if new is None else f"{mark}[{words}]({new})"
    return "".join(part if CODE.fullmatch(part) else LINK.sub(one, part) for part in CODE.split(text))


class _Table(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.head, self.open, self.span = [], 0, False, 1

    def handle_starttag(self, tag, attributes):
        if tag == "tr": self.rows.append([])
        if tag in ("td", "th"): self.open, self.span = True, int(dict(attributes).get("colspan") or 1); self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th"): self.open = False; self.rows[-1] += [""] * (self.span - 1)
        if tag == "thead": self.head = len(self.rows)

    def handle_data(self, data):
        if self.open: self.rows[-1][-1] += data


def markdown_table(html: str) -> str:
    "The first table of an HTML text as a GitHub table."
    parser = _Table()
    parser.feed(html[html.index("<table"):html.index("</table>")])
    head, body = parser.rows[:parser.head], parser.rows[parser.head:]
    names = [" ".join(filter(None, (row[i].strip() for row in head if i < len(row)))) for i in range(max(map(len, head)))]
    line = lambda cells: "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
    return "\n".join([line(names), line(["---"] * len(names)), *map(line, body)])
