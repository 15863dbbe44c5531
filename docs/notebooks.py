"Notebooks as readers see them: hidden cells gone, directives obeyed, links resolved. Shared by `readme.py` and `build.py`."
import ast
import copy
import io
import re
import tokenize
from collections.abc import Callable
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / "nbs"
DIRECTIVE = re.compile(r"^\s*#\|\s*(\S.*?)\s*$", re.M)
ALT = re.compile(r"^#\|\s*fig-alt:\s*\"?(.*?)\"?\s*$", re.M) # what a picture shows, in words
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)")
CODE = re.compile(r"(```.*?```|`[^`\n]+`|\$\$.*?\$\$|\$[^$\n]+\$)", re.S)
WORDS = re.compile(f"{CODE.pattern[1:-1]}|{LINK.pattern}", re.S) # what is not prose: code, mathematics, links
EXPORTS = ("export", "exporti", "exports")
SILENT = ("hide_input", "echo") # `#| hide_input` and `#| echo: false`: the output alone is shown
WIDEST = 96 # characters of a line beyond which its comment is shown above it


def read(path: Path) -> nbformat.NotebookNode:
    "A notebook, with the language that `nbdev_clean` removes and fenced code needs."
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["language_info"] = nbformat.NotebookNode(
        name="python", pygments_lexer="ipython3", file_extension=".py"
    )
    return notebook


def title(path: Path) -> tuple[str, str]:
    "The title and the subtitle (the quotation below it) of a notebook. Raises ValueError where there is no title."
    return _title(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=None)
def _title(path: Path, changed: int) -> tuple[str, str]:
    text = next((c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"), "")
    found = re.match(r"#\s+(.+?)\s*(?:\n+((?:>.*\n?)+)|\n|$)", text)
    if not found: raise ValueError(f"{path.name} must begin with a title '# ...', got {text[:40]!r}")
    return found[1], " ".join(line.lstrip("> ").strip() for line in (found[2] or "").splitlines()).strip()


def directives(source: str) -> list[str]:
    "The names of the `#|` directives of a cell, such as 'export' or 'hide'; `echo` only where it is false."
    return [found.split()[0].rstrip(":") for found in DIRECTIVE.findall(source) if not re.match(r"echo:\s*true", found)]


def defined(source: str) -> list[str]:
    "The public names that a cell defines; empty for a cell of imports."
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            names += [
                t.id
                for t in (node.targets if isinstance(node, ast.Assign) else [node.target])
                if isinstance(t, ast.Name)
            ]
    return list(dict.fromkeys(names))


def only_checks(source: str) -> bool:
    "Whether a cell is there to assert."
    try: tree = ast.parse(source)
    except SyntaxError: return False # a magic
    called = {getattr(node.func, "id", "") for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return any(isinstance(node, ast.Assert) for node in ast.walk(tree)) or any(
        name.startswith("test_") or name == "expect_fail" for name in called
    )


def comments_above(source: str, widest: int = WIDEST) -> str:
    "Code whose long lines have their comments above them, where a reader need not scroll sideways."
    try:
        found = {
            token.start[0]: token
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
    except (tokenize.TokenError, SyntaxError, IndentationError):
        found = {}  # a magic, a prompt, a part of something
    lines = []
    for number, line in enumerate(source.splitlines(), 1):
        comment = found.get(number)
        if comment is None or len(line) <= widest or not line[:comment.start[1]].strip():
            lines.append(line)
            continue
        code = line[:comment.start[1]].rstrip()
        lines += [code[:len(code) - len(code.lstrip())] + comment.string.rstrip(), code]
    return "\n".join(lines)


def plain_numbers(text: str) -> str:
    "Numbers as numbers, where NumPy shows their types."
    text = re.sub(r"np\.(?:float|int|uint)\d+\(([^()]*)\)", r"\1", text)
    text = re.sub(
        r"\barray\((\[.*?\])(?:, dtype=\w+)?\)", lambda found: re.sub(r"\n {6}", "\n", found[1]), text, flags=re.S
    )
    text = re.sub(r"np\.str_\(([^()]*)\)", r"\1", text)
    return re.sub(r"np\.(True|False)_", r"\1", text)


VERDICTS = ("proved false", "holds", "does not hold here", "not decided", "not testable here")

def noise_in(text: str) -> bool:
    "Whether an output is what a call for its effect returns, and no more: a plot, a method that was registered, the verdict of a claim (its table says it)."
    said = text.strip()
    returned = re.match(
        r"^[\[(]?(?:<[\w.]+(?: object)?[^>]* at 0x|<Axes|<Figure|Text\(|\[<matplotlib|Method\(name=)", said
    )
    return bool(returned) or said.strip("'") in VERDICTS


def only_imports(source: str) -> bool:
    kinds = (ast.Import, ast.ImportFrom, ast.Try)
    try: return all(isinstance(node, kinds) for node in ast.parse(source).body)
    except SyntaxError: return False # a magic


def shown_text(output: nbformat.NotebookNode) -> str:
    "The text of an output that has nothing better to show."
    data = output.get("data", {})
    return "" if set(data) - {"text/plain"} else data.get("text/plain", output.get("text", ""))


def tell_plainly(output: nbformat.NotebookNode) -> None:
    if "text" in output: output["text"] = plain_numbers(output["text"])
    for kind in set(output.get("data", {})) & {"text/plain", "text/html"}:
        output["data"][kind] = plain_numbers(output["data"][kind])


def visible(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    "Copies of the cells that a reader sees, each with `directives` in its metadata, the directive lines gone, warnings of the kernel dropped."
    cells = []
    for cell in copy.deepcopy(notebook.cells):
        if cell.cell_type == "raw": continue
        if cell.cell_type == "code":
            names = directives(cell.source)
            if "hide" in names or names == ["default_exp"]: continue
            if said := ALT.search(cell.source): cell.metadata["alt"] = said[1]
            cell.source = DIRECTIVE.sub("", cell.source).strip("\n")
            if not cell.source.strip(): continue
            cell.metadata["directives"] = names
            cell.outputs = (
                []
                if "hide_output" in names
                else [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
            )
            cell.execution_count = None
            cell.outputs = [o for o in cell.outputs if not noise_in(shown_text(o))]
            for output in cell.outputs: tell_plainly(output)
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


FENCE = re.compile(r"^(```(?:python|sh)\n)(.*?)(^```)", re.M | re.S)

def narrow_fences(text: str) -> str:
    "Markdown whose fenced code has the comments of long lines above them."
    def one(found: re.Match) -> str:
        lines = []
        for line in found[2].splitlines():
            cut = re.match(r"(.*?\S)\s{2,}(# .*)$", line)
            lines += [cut[2], cut[1]] if cut and len(line) > WIDEST else [line]
        return found[1] + "\n".join(lines) + "\n" + found[3]
    return FENCE.sub(one, text)


class _Table(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.head, self.open, self.span = [], 0, False, 1

    def handle_starttag(self, tag, attributes):
        if tag == "tr": self.rows.append([])
        if tag in ("td", "th"):
            self.open, self.span = True, int(dict(attributes).get("colspan") or 1)
            self.rows[-1].append("")

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
    names = [
        " ".join(filter(None, (row[i].strip() for row in head if i < len(row)))) for i in range(max(map(len, head)))
    ]
    line = lambda cells: "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
    return "\n".join([line(names), line(["---"] * len(names)), *map(line, body)])
