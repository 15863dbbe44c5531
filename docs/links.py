"""Which chapter, proof and experiment belong together, and the links between them on the site.

Nothing is listed by hand but the rooms of each paper: what a notebook uses is read from its imports, where a theorem is stated from the titles of the proofs.
"""
import ast
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat

from notebooks import CODE, NBS, WORDS, title

ROOMS = dict(  # key -> the rooms that a paper's mathematics lives in; the first is where to begin
    gaussian="methods.gaussian noise.additive maths.bounds",
    exact="methods.exact maths.two_sided methods.draws",
    adre="methods.tcertify methods.sequential maths.looks training.adre training.smoothadv",
    bernstein="methods.bernstein methods.bernstein_heads methods.bernstein_paper methods.bernstein_regression "
              "maths.polynomials maths.nearest maths.waiting "
    "maths.boxes maths.curves maths.quick training.lipschitz lab.bernstein_networks lab.bernstein_models",
    dssn="methods.uniform methods.splitting methods.splitting_runs noise.grid",
    higher_order="methods.higher_order methods.moments methods.gradient methods.regions maths.slabs maths.dual "
                 "maths.dual_solver maths.first_order "
    "maths.gradient_bounds",
    soap_bubbles="methods.soap_bubbles methods.sampled_ratios noise.shells maths.shells maths.truncated_sums "
                 "maths.corners maths.shell_values "
    "maths.shell_radii",
)
WITH_SEE_ALSO = ("methods", "maths", "noise", "training")  # wings whose chapters say who uses them
MOST = 12  # names in one line of "See also"
KINDS = "Theorem|Lemma|Proposition|Corollary|Appendix"
CITED = re.compile(
    rf"\b(?P<kind>{KINDS})(?P<many>e?s|ies)?\s+(?P<first>\d+(?:\.\d+)?|[A-Z]\b)(?P<rest>(?:(?:, "
    r"| and )(?:\d+(?:\.\d+)?|[A-Z]\b))*)"
)
NUMBER = re.compile(r"\d+(?:\.\d+)?|[A-Z]\b")
BOLD = re.compile(rf"(?:\*\*|\()({KINDS}) (\d+(?:\.\d+)?|[A-Z]\b)")
ROOM = re.compile(r"\b(room|rooms|notebook|chapter|wing) $")


def stem_of(kind: str, number: str) -> str:
    "How the notebook of a statement ends: Corollary 3.1 -> corollary3_1."
    return f"{kind.lower()}{number.replace('.', '_')}" if number[0].isdigit() else f"{kind.lower()}_{number.lower()}"


def pieces(text: str) -> Iterator[tuple[str, str]]:
    "Markdown in pieces: ('text' | 'code' | 'link' | 'head', words)."
    for line in re.split(r"(^(?:#{1,6} |>)[^\n]*\n?)", text, flags=re.M):
        if re.match(r"#{1,6} |>", line):
            yield "head", line
            continue
        end = 0
        for found in WORDS.finditer(line):
            yield "text", line[end:found.start()]
            yield "code" if CODE.fullmatch(found[0]) else "link", found[0]
            end = found.end()
        yield "text", line[end:]


@dataclass(frozen=True)
class Map:
    "The notebooks of the tree and how they hang together."
    books: tuple[Path, ...]

    @cached_property
    def contents(self) -> dict[Path, nbformat.NotebookNode]:
        return {path: nbformat.read(path, as_version=4) for path in self.books}

    @cached_property
    def modules(self) -> dict[str, Path]:
        "Dotted module -> the notebook that it is written in."
        found = {}
        for path, book in self.contents.items():
            for cell in book.cells:
                if cell.cell_type == "code" and (hit := re.search(r"^#\|\s*default_exp\s+(\S+)", cell.source, re.M)):
                    found[hit[1]] = path
        return found

    @cached_property
    def papers(self) -> dict[Path, str]:
        "Chapter -> key of the paper whose mathematics it holds."
        return {
            self.modules[room]: key for key, rooms in ROOMS.items() for room in rooms.split() if room in self.modules
        }

    def key(self, path: Path) -> str:
        "The paper that a notebook belongs to, or ''."
        if path.parent.name in ("proofs", "experiments"):
            return next((key for key in sorted(ROOMS, key=len, reverse=True) if path.stem.startswith(f"{key}_")), "")
        return self.papers.get(path, "")

    def of(self, key: str, kind: str) -> list[Path]:
        "Proofs or experiments of a paper, in natural order."
        found = [path for path in self.books if path.parent.name == kind and self.key(path) == key]
        return sorted(found, key=natural)

    def chapters(self, key: str) -> list[Path]:
        "The rooms of a paper."
        return [self.modules[room] for room in ROOMS[key].split() if room in self.modules]

    @cached_property
    def used(self) -> dict[Path, list[Path]]:
        "Notebook -> chapters whose modules its code imports."
        found = {}
        for path, book in self.contents.items():
            code = "\n".join(imports(cell.source) for cell in book.cells if cell.cell_type == "code")
            names = dotted(code)
            found[path] = [room for name, room in self.modules.items() if name in names and room != path]
        return found

    @cached_property
    def stated(self) -> dict[tuple[str, str, str], Path]:
        "(paper, kind, number) -> the proof that states it: by its name, else by its title, else by a statement within it."
        found: dict[tuple[str, str, str], Path] = {}
        proofs = [path for path in self.books if path.parent.name == "proofs"]
        for read in (self._by_title, self._by_statement):
            for path in proofs:
                for kind, number in read(path):
                    own = path.with_name(f"{self.key(path)}_{stem_of(kind, number)}.ipynb")
                    found.setdefault((self.key(path), kind, number), own if own in self.contents else path)
        return found

    def _by_title(self, path: Path) -> list[tuple[str, str]]:
        return [pair for words in title(path) for pair in citations(words)]

    def _by_statement(self, path: Path) -> list[tuple[str, str]]:
        return [
            (kind, number)
            for cell in self.contents[path].cells
            if cell.cell_type == "markdown"
            for kind, number in BOLD.findall(cell.source)
        ]

    @cached_property
    def names(self) -> dict[str, Path]:
        "What a notebook is called in prose -> the notebook."
        found = {}
        for path in self.books:
            place = path.relative_to(NBS).with_suffix("").as_posix()
            found |= {f"{root}{place}{end}": path for root in ("", "nbs/") for end in ("", ".ipynb")}
            if path.parent.name in ("proofs", "experiments") or re.match(r"\d", path.stem):
                found[path.stem] = path
            if path.stem == "index":
                found = {name: place for name, place in found.items() if place != path} # the word is any index
        return found

    @cached_property
    def rooms(self) -> dict[str, Path]:
        "What a room is called -> its notebook; names that two rooms have are left out."
        every = [(name.rpartition(".")[2], path) for name, path in self.modules.items()]
        once = {name: path for name, path in every if [other for other, _ in every].count(name) == 1}
        return (
            once
            | {name: path for name, path in self.modules.items()}
            | {name.replace(".", "/"): path for name, path in self.modules.items()}
        )

    # ---- the text of a page ----

    def linked(self, text: str, path: Path) -> str:
        "Markdown of the notebook at `path` with the theorems and notebooks that it names as links."
        done, before = [], ""
        for kind, words in pieces(text):
            new = words
            if kind == "text":
                new = CITED.sub(lambda hit: self._cite(hit, path), words)
            elif kind == "code":
                new = self._name(words, before, path)
            done.append(new)
            before = words
        return "".join(done)

    def _to(self, target: Path, path: Path) -> str:
        return posixpath.relpath(target.relative_to(NBS).as_posix(), path.parent.relative_to(NBS).as_posix())

    def place_of(self, kind: str, number: str, path: Path) -> Path | None:
        "Where a statement that the notebook at `path` cites is stated, or None: nowhere, or there."
        found = self.stated.get((self.key(path), kind, number))
        return None if found == path else found

    def _cite(self, hit: re.Match, path: Path) -> str:
        kind = hit["kind"]
        def one(number: str, words: str) -> str:
            place = self.place_of(kind, number, path)
            return f"[{words}]({self._to(place, path)})" if place else words
        first = one(hit["first"], f"{kind}{hit['many'] or ''} {hit['first']}")
        return first + NUMBER.sub(lambda found: one(found[0], found[0]), hit["rest"])

    def _name(self, words: str, before: str, path: Path) -> str:
        name = words.strip("`")
        place = self.names.get(name) or (self.rooms.get(name) if ROOM.search(before) else None)
        return f"[{words}]({self._to(place, path)})" if place and place != path and "\n" not in words else words

    def listed(self, paths: list[Path], path: Path) -> str:
        return ", ".join(f"[{title(each)[0]}]({self._to(each, path)})" for each in paths)

    def see_also(self, path: Path) -> str:
        "The end of a page: where to go from here, or ''."
        lines, key = [], self.key(path)
        wing = path.parent.name
        if wing in ("proofs", "experiments"):
            rooms = [room for room in self.used[path] if room.relative_to(NBS).parts[0] in WITH_SEE_ALSO]
            rooms = [room for room in rooms if self.key(room) in (key, "gaussian")] or rooms
            begin = self.chapters(key)[:1] if key else []
            lines.append(("Chapters", list(dict.fromkeys(begin + rooms))))
            other = "experiments" if wing == "proofs" else "proofs"
            names = {"experiments": "Tables and figures", "proofs": "Proofs"}
            lines += [
                (names[other], self.of(key, other)),
                (f"Other {names[wing].lower()} of this paper", [p for p in self.of(key, wing) if p != path]),
            ]
        elif wing in WITH_SEE_ALSO:
            users = [user for user, rooms in self.used.items() if path in rooms]
            for words, kind in (("Proofs", "proofs"), ("Tables and figures", "experiments")):
                mine = [user for user in users if user.parent.name == kind]
                if key:
                    mine = [user for user in mine if self.key(user) == key] or self.of(key, kind)
                lines.append((words, sorted(mine, key=natural)))
            lines.append(
                ("Chapters that build on this one", [u for u in users if u.parent.name in WITH_SEE_ALSO][:MOST])
            )
            lines.append(("It builds on", [room for room in self.used[path] if room.parent.name in WITH_SEE_ALSO]))
        body = [f"- **{words}**: {self.listed(paths, path)}" for words, paths in lines if paths]
        if key and wing in ("proofs", "experiments"):
            tables = "gaussian" if key == "exact" else key
            body.append(
                f"- **Measured and printed numbers**: [tables]({posixpath.relpath(f'tables/{tables}.md', wing)})"
            )
        return "\n".join(["## See also", "", *body]) if body else ""

    def page(self, papers: dict[str, str], wings: dict[str, str]) -> str:
        "The page that shows all notebooks: by paper, and wing by wing."
        here = NBS / "map.ipynb"
        lines = [
            "# Map",
            "",
            "From each paper to the chapters that hold its mathematics, the proofs of its statements, "
            "its tables and figures; then the house, wing by wing.",
            "",
        ]
        for key, words in papers.items():
            lines += [f"## {key}", "", f"*{words}*", ""]
            for kind, paths in (
                ("Chapters", self.chapters(key)),
                ("Proofs", self.of(key, "proofs")),
                ("Tables and figures", self.of(key, "experiments")),
            ):
                if paths: lines += [f"**{kind}.** {self.listed(paths, here)}", ""]
        lines += ["## The house", "", "Each wing imports from those above it only.", ""]
        for wing, words in {"guide": "Guide", **wings, "": "The front"}.items():
            rooms = [p for p in self.books if p.parent == NBS / wing and p.stem != "index"]
            lines += [f"**{words}.** {self.listed(rooms, here)}", ""]
        return "\n".join(lines)


def natural(path: Path) -> list:
    "figure2 before figure10."
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]


def citations(words: str) -> list[tuple[str, str]]:
    "(kind, number) of all statements that a text names."
    return [
        (hit["kind"], number)
        for hit in CITED.finditer(words)
        for number in [hit["first"], *NUMBER.findall(hit["rest"])]
    ]


def imports(source: str) -> str:
    "The imports of a cell; nothing where it is no plain Python."
    try: tree = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith(("#|", "%", "!"))))
    except SyntaxError: return ""
    return "\n".join(ast.unparse(node) for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)))


def dotted(code: str) -> set[str]:
    "Modules of the package that imports name, below the package."
    found = set()
    for node in ast.parse(code).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("robust_smooth"):
            base = node.module.removeprefix("robust_smooth").lstrip(".")
            found |= {base} | {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("robust_smooth.") for alias in node.names}
    return found


def unlinked(text: str, path: Path, tree: Map) -> list[str]:
    "Theorems and notebooks that Markdown of the notebook at `path` names, and that are neither stated there nor a link."
    own = {
        pair for cell in tree.contents[path].cells if cell.cell_type == "markdown" for pair in BOLD.findall(cell.source)
    }
    found = []
    for kind, words in pieces(text):
        if kind == "text":
            found += [
                f"{k} {n}"
                for k, n in citations(words)
                if (k, n) not in own and tree.stated.get((tree.key(path), k, n)) != path
            ]
        elif kind == "code" and (place := tree.names.get(words.strip("`"))) and place != path:
            found.append(words)
    return found
