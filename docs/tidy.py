"""Drop from committed notebooks what kernels wrote to stderr: warnings name folders of the machine that ran them.

    python docs/tidy.py            all notebooks of nbs/; says which changed
    python docs/tidy.py FILE ...   these
"""
import json
import sys
from pathlib import Path

from notebooks import NBS


def tidy(path: Path) -> bool:
    "Rewrite a notebook without its stderr outputs; True if it had any."
    text = path.read_text(encoding="utf-8")
    book, dropped = json.loads(text), 0
    for cell in book["cells"]:
        kept = [o for o in cell.get("outputs", []) if not (o["output_type"] == "stream" and o["name"] == "stderr")]
        dropped += len(cell.get("outputs", [])) - len(kept)
        if "outputs" in cell: cell["outputs"] = kept
    if dropped: path.write_text(json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8") # as nbdev_clean writes it
    return bool(dropped)


if __name__ == "__main__":
    if "--help" in sys.argv: sys.exit(print(__doc__))
    for each in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(NBS.rglob("*.ipynb")):
        if tidy(each): print(each)
