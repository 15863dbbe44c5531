"""What the comments of signatures say: read for the reference (`build.py`), written under docstrings (`export.py`).

A parameter is explained where it stands, one on a line: `x: ArrayLike, # shape, unit, range`. Editors and `help()` show docstrings, not comments; so the
exported modules carry both, and the notebooks only the comments.
"""
import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator

Row = tuple[str, str, str, str] # name, type, default, meaning
Function = ast.FunctionDef | ast.AsyncFunctionDef

WIDTH = 100  # of what is written
WIDEST = 115 # of what is left as it was written, three quotes not counted
HEADS = ("Args:", "Returns:")
GENERATED = re.compile(r"\n\s*\n?[ \t]*(?:Args|Returns):\n.*", re.S) # what was written under a docstring
TYPED = re.compile(r"^type:\s*ignore(?:\[[\w\-, ]*\])?\s*#?\s*") # a word to the type checker, before the meaning


def comments(source: str) -> dict[int, str]:
    "Line number -> comment at its end."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}
    return {line: TYPED.sub("", text) for line, text in found.items()}


def _pairs(node: Function) -> list[tuple[ast.arg, ast.expr | None]]:
    "The arguments of a function with their defaults, in order."
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + list(a.defaults)
    pairs = list(zip(positional, defaults))
    pairs += [(each, None) for each in [a.vararg] if each]
    pairs += list(zip(a.kwonlyargs, a.kw_defaults))
    pairs += [(each, None) for each in [a.kwarg] if each]
    return pairs


def arguments(node: Function, notes: dict[int, str]) -> list[Row]:
    "Name, type, default and meaning of each argument but self."
    pairs = _pairs(node)
    stars = {id(node.args.vararg): "*", id(node.args.kwarg): "**"}
    line_of = {id(arg): (arg if default is None else default).end_lineno for arg, default in pairs}
    last = {line_of[id(arg)]: arg for arg, _ in pairs} # the comment of a line belongs to its last argument
    rows = []
    for arg, default in pairs:
        line = line_of[id(arg)]
        own = last[line] is arg and line != getattr(node.returns, "end_lineno", None)
        note = notes.get(line, "") if own else ""
        if arg.arg in ("self", "cls") and not note:
            continue
        kind = ast.unparse(arg.annotation) if arg.annotation else ""
        rows.append((stars.get(id(arg), "") + arg.arg, kind, "" if default is None else ast.unparse(default), note))
    return rows


def returned(node: Function, notes: dict[int, str]) -> Row:
    "Type and meaning of what a function returns."
    kind = ast.unparse(node.returns) if node.returns else ""
    return "returns", kind, "", notes.get(getattr(node.returns, "end_lineno", None) or 0, "")


def fields(node: ast.ClassDef, notes: dict[int, str]) -> list[Row]:
    "Name, type, default and meaning of the fields that a class declares."
    rows = []
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and not each.target.id.startswith("_"):
            default = ast.unparse(each.value) if each.value else ""
            rows.append((each.target.id, ast.unparse(each.annotation), default, notes.get(each.end_lineno or 0, "")))
    return rows


def plain_docstring(text: str) -> str:
    "A docstring without what was written under it."
    return GENERATED.sub("", text).rstrip()


# ---- docstrings with parameters ----

def _said(rows: list[Row], indent: str) -> list[str]:
    "The lines of a list of parameters."
    lines: list[str] = []
    for name, _, _, note in rows:
        if note:
            lines += textwrap.wrap(
                f"{name}: {note}",
                WIDTH,
                initial_indent=indent + "    ",
                subsequent_indent=indent + "        ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return lines


def _wrapped(doc: str, indent: str) -> list[str]:
    "The lines of a docstring, those that are wider than a page broken; what hangs over goes before the next line of the paragraph."
    lines: list[str] = []
    over = "" # of the line before
    for number, line in enumerate(doc.splitlines()):
        full = line if number else indent + line
        if over and (not line.strip() or line.removeprefix(indent)[0] in " -*|"):
            lines.append(over)
        elif over:
            full = f"{over} {line.strip()}"
        over = ""
        if len(full) > WIDEST:
            *broken, over = textwrap.wrap(
                full, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
            lines += broken
        else:
            lines.append(full)
    lines += [over] if over else []
    return [lines[0].removeprefix(indent), *lines[1:]]


def _written(doc: str, rows: list[Row], result: Row | None, indent: str) -> list[str]:
    "The lines of a docstring with its parameters below; none where nothing is explained."
    told = _said(rows, indent)
    answer = _said([("", "", "", result[3])], indent) if result else []
    if not told and not answer:
        return []
    lines = [*_wrapped(plain_docstring(doc), indent), ""]
    if told:
        lines += [f"{indent}{HEADS[0]}", *told]
    if answer:
        lines += [f"{indent}{HEADS[1]}", *(line.replace("    : ", "    ", 1) for line in answer)]
    mark = 'r"""' if any("\\" in line for line in lines) else '"""'
    lines[0] = f"{indent}{mark}{lines[0]}"
    return [*lines, f'{indent}"""']


def _bases(tree: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def lineage(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[ast.ClassDef]:
    "A class after the private bases of its module that it is put together from."
    private = [
        base.id for base in node.bases if isinstance(base, ast.Name) and base.id.startswith("_") and base.id in classes
    ]
    found = [each for name in private for each in lineage(classes[name], classes)]
    return list(dict.fromkeys([*found, node]))


def _explained(node: ast.ClassDef, classes: dict[str, ast.ClassDef], notes: dict[int, str]) -> list[Row]:
    "What the constructor of a class is given: the arguments of its __init__, else its fields and those of its private bases."
    begin = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if begin:
        return arguments(begin, notes)
    rows = [row for each in lineage(node, classes) for row in fields(each, notes)]
    return list({row[0]: row for row in rows}.values())


def _targets(tree: ast.Module, notes: dict[int, str]) -> Iterator[tuple[ast.AST, list[Row], Row | None]]:
    "Public functions, classes and methods, with what is to be said of their parameters."
    classes = _bases(tree)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            yield node, arguments(node, notes), returned(node, notes)
        if isinstance(node, ast.ClassDef):
            if not node.name.startswith("_"):
                yield node, _explained(node, classes, notes), None
            for each in node.body:
                if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) and (
                    not each.name.startswith("_") or each.name == "__call__"
                ):
                    yield each, arguments(each, notes), returned(each, notes)


def _alone(part: ast.Expr, lines: list[str]) -> bool:
    "Whether a docstring has its lines for itself."
    before = lines[part.lineno - 1].encode()[:part.col_offset].strip()
    after = lines[part.end_lineno - 1].encode()[part.end_col_offset:].strip()
    return not before and not after


def _docstring(node: ast.AST) -> ast.Expr | None:
    body = getattr(node, "body", [])
    first = body[0] if isinstance(body, list) and body else None
    found = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return first if found else None


def with_parameters(source: str) -> str:
    "The source of a module whose public docstrings explain their parameters; what an earlier run wrote is written anew."
    tree, notes, lines = ast.parse(source), comments(source), source.split("\n")
    changes = []
    for node, rows, result in _targets(tree, notes):
        part = _docstring(node)
        if part is None or not _alone(part, lines) or '"""' in part.value.value:
            continue
        new = _written(part.value.value, rows, result, " " * part.col_offset)
        if new:
            changes.append((part.lineno - 1, part.end_lineno, new))
    for first, last, new in sorted(changes, reverse=True):
        lines[first:last] = new
    return "\n".join(lines)


def without_parameters(source: str) -> str:
    "The source with each docstring in one spelling and without its parameters, so that a cell and its module can be compared."
    tree, lines = ast.parse(source), source.split("\n")
    parts = [part for node in ast.walk(tree) if (part := _docstring(node)) is not None and _alone(part, lines)]
    for part in sorted(parts, key=lambda each: -each.lineno):
        lines[part.lineno - 1 : part.end_lineno] = [
            " " * part.col_offset + repr(" ".join(plain_docstring(part.value.value).split()))
        ]
    return "\n".join(lines)
