"""README.md and index_files/ from nbs/index.ipynb.

    python docs/readme.py              write them
    python docs/readme.py --execute    run the whole notebook first, then write them
    python docs/readme.py --check      exit 1 if they are not in step
"""
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

from notebooks import NBS, ROOT, markdown_table, read, rewrite_links, visible

SOURCE = NBS / "index.ipynb"


def render() -> dict[str, bytes]:
    "The files that belong to the README: name below the root -> content."
    notebook = read(SOURCE)
    notebook.cells = visible(notebook)
    def from_root(target: str, words: str) -> str:
        path, mark, fragment = target.partition("#")
        moved = posixpath.normpath(posixpath.join("nbs", path))
        if not (ROOT / moved).exists():
            raise FileNotFoundError(f"{SOURCE.name} links to {target}, which does not exist")
        return moved + mark + fragment
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = rewrite_links(cell.source, from_root)
        else:
            if "hide_input" in cell.metadata["directives"]:
                cell.metadata["transient"] = {"remove_source": True}
            for output in cell.outputs:
                data = output.get("data", {})
                if "<table" in data.get("text/html", ""):
                    output["data"] = nbformat.NotebookNode({"text/markdown": markdown_table(data["text/html"])})
                elif "text/markdown" in data:
                    data["text/markdown"] = rewrite_links(data["text/markdown"], from_root)
    text, resources = MarkdownExporter().from_notebook_node(
        notebook, resources=dict(output_files_dir="index_files", unique_key="index")
    )
    text = text.replace("![png](", "![image, noisy copies, votes, what they prove, radius](")
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.splitlines())).strip() + "\n"
    note = "<!-- Made from nbs/index.ipynb by docs/readme.py: change the notebook. -->\n\n"
    return {"README.md": (note + text).encode()} | {
        Path(name).as_posix(): content for name, content in resources["outputs"].items()
    }


def stale() -> list[str]:
    "What differs between the files here and those that the notebook gives."
    wanted = render()
    have = {path.relative_to(ROOT).as_posix() for path in (ROOT / "index_files").glob("*")}
    changed = [
        name for name, content in wanted.items() if not (ROOT / name).is_file() or (ROOT / name).read_bytes() != content
    ]
    return changed + sorted(have - set(wanted))


def execute() -> None:
    "Run the notebook where it stands, and clean it."
    from nbclient import NotebookClient
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(SOURCE, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=dict(metadata=dict(path=str(NBS)))).execute()
    nbformat.write(notebook, SOURCE)
    clean()


def clean() -> None:
    "Bring the notebook to the form in which notebooks are committed."
    subprocess.run(
        [sys.executable, "-c", "from nbdev.clean import nbdev_clean; nbdev_clean()", "--fname", str(SOURCE)],
        check=True,
        cwd=ROOT,
    )


def main(arguments: list[str]) -> int:
    if "--help" in arguments or set(arguments) - {"--execute", "--check"}:
        print(__doc__)
        return 0 if "--help" in arguments else 2
    if "--execute" in arguments:
        execute()
    if "--check" in arguments:
        changed = stale()
        if changed:
            print(
                f"not in step with nbs/index.ipynb: {', '.join(changed)}; run: python docs/readme.py", file=sys.stderr
            )
        return 1 if changed else 0
    files = render()
    for name in stale(): (ROOT / name).unlink(missing_ok=True)
    for name, content in files.items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_bytes(content)
    print("wrote " + ", ".join(files))
    return 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
