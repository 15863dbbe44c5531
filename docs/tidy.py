"""Bring committed notebooks to the form in which readers meet them; run it after `nbdev_clean`.

What kernels wrote to stderr goes, and what names a folder of installed packages: both tell of the machine that ran them. So does what a method's registration
returns: its page has better. Cells of imports are collapsed, so that JupyterLab
opens a notebook on its question and its picture.

    python docs/tidy.py            all notebooks of nbs/; says which changed
    python docs/tidy.py FILE ...   these
"""
import json
import sys
from pathlib import Path

from notebooks import DIRECTIVE, NBS, only_imports

COLLAPSED = {"source_hidden": True}


def tells_of_a_machine(output: dict) -> bool:
    "Whether it was written to stderr, or names a folder of installed packages."
    if output["output_type"] == "stream" and output["name"] == "stderr": return True
    return "site-packages" in json.dumps(output)


def registered(output: dict) -> bool:
    "Whether it is a method, as its registration returns it."
    return "".join(output.get("data", {}).get("text/plain", "")).startswith("Method(name=")


def drop_warnings(cell: dict) -> None:
    "Forget outputs that tell of the machine that ran the notebook, and methods that were registered."
    if "outputs" in cell:
        cell["outputs"] = [
            output for output in cell["outputs"] if not tells_of_a_machine(output) and not registered(output)
        ]


def collapse_imports(cell: dict) -> None:
    "Collapse a code cell that holds imports, or nothing but directives, and shows nothing."
    if (
        cell["cell_type"] == "code"
        and not cell.get("outputs")
        and only_imports(DIRECTIVE.sub("", "".join(cell["source"])))
    ):
        cell["metadata"]["jupyter"] = COLLAPSED


def tidy(path: Path) -> bool:
    "Rewrite a notebook in this form; True if it was in another."
    book = json.loads(path.read_text(encoding="utf-8"))
    before = json.dumps(book)
    for cell in book["cells"]:
        drop_warnings(cell)
        collapse_imports(cell)
    changed = json.dumps(book) != before
    if changed:
        text = json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True) + "\n" # as nbdev_clean writes it
        path.write_text(text, encoding="utf-8")
    return changed


if __name__ == "__main__":
    if "--help" in sys.argv: sys.exit(print(__doc__))
    for each in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(NBS.rglob("*.ipynb")):
        if tidy(each): print(each)
