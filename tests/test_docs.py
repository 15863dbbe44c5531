"The site builds with warnings as errors, and every internal link of it leads somewhere."
import importlib
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from filelock import FileLock

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

NEEDED = ("sphinx", "myst_nb", "furo", "sphinx-mathjax-offline")


@pytest.fixture
def build(root):
    for module in NEEDED: pytest.importorskip(module, reason=f"needs {module} (extra [docs])")
    sys.path.insert(0, str(root / "docs"))
    try: yield importlib.import_module("build")
    finally: sys.path.pop(0)


@pytest.fixture(scope="session")
def site(root, tmp_path_factory):
    "The whole site, built once a run, whichever worker asks first."
    for module in NEEDED: pytest.importorskip(module, reason=f"needs {module} (extra [docs])")
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ: base = base.parent # the folder that all workers share
    place = base / "docs" / "site"
    built = place.with_name("built")
    with FileLock(base / "docs.lock"):
        if not built.exists():
            place.parent.mkdir(exist_ok=True)
            done = subprocess.run(
                [sys.executable, "docs/build.py", str(place)],
                cwd=root, capture_output=True, text=True, timeout=1800,
                env={**os.environ, "PYTHONPATH": str(root)},
            )
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
            built.touch()
    return place


def test_site(root, build, site):
    shown = (site / "map.html").read_text(encoding="utf-8")
    for path in (root / "nbs").rglob("*.ipynb"):
        if ".ipynb_checkpoints" in path.parts: continue
        page = path.relative_to(root / "nbs").with_suffix(".html")
        assert (site / page).is_file(), path.name
        assert path.stem == "index" or f'href="{page.as_posix()}"' in shown, f"the map does not show {page}"
    for path in (root / "robust_smooth").rglob("[a-z]*.py"):
        assert (site / "api" / f"{build.module_name(path)}.html").is_file(), path
    for path in (root / "data" / "papers").glob("*.csv"):
        assert (site / "tables" / f"{path.stem}.html").is_file(), path.name
    reference = (site / "api" / "methods.gaussian.html").read_text(encoding="utf-8")
    assert 'id="robust_smooth.methods.gaussian.radius"' in reference and "p_lower" in reference
    outside = [
        line
        for page in site.glob("*.html")
        for line in page.read_text(encoding="utf-8").splitlines()
        if "<script" in line and 'src="http' in line
    ]
    assert not outside, outside[:3] # the site needs no network


def pages(root, site):
    "Notebook -> its page as it was written for the site."
    sources = site.with_name(site.name + "_sources") / "site"
    found = {
        path: nbformat.read(sources / path.relative_to(root / "nbs"), as_version=4)
        for path in sorted((root / "nbs").rglob("*.ipynb"))
        if ".ipynb_checkpoints" not in path.parts
    }
    assert len(found) >= 150
    return found


def test_what_prose_names_is_a_link(root, build, site):
    links, found = importlib.import_module("links"), []
    books = pages(root, site)
    tree = links.Map(tuple(books))
    assert len(tree.stated) >= 35 and not [
        room for rooms in links.ROOMS.values() for room in rooms.split() if room not in tree.modules
    ]
    for path, page in books.items():
        found += [
            f"{path.stem}: {name}"
            for cell in page.cells
            if cell.cell_type == "markdown"
            for name in links.unlinked(cell.source, path, tree)
        ]
    assert not found, found
    ends = [
        path.stem
        for path, page in books.items()
        if path.parent.name in ("proofs", "experiments", "methods") and "See also" not in page.cells[-1].source
    ]
    assert not ends, ends # no dead ends


def test_unlinked_names_are_found(root, build):
    links = importlib.import_module("links")
    tree = links.Map(tuple(sorted((root / "nbs").rglob("*.ipynb"))))
    chapter = root / "nbs" / "methods" / "01_tcertify.ipynb"
    text = (
        "By Theorem 1 and Lemma 99, `adre_coverage`, [`adre_sequential`](../proofs/adre_sequential.ipynb), "
        "`Theorem 1`, and $\\text{Lemma 3}$."
    )
    assert set(links.unlinked(text, chapter, tree)) == {"Theorem 1", "Lemma 99", "`adre_coverage`"}
    linked = tree.linked(text, chapter)
    assert (
        "[Theorem 1](../proofs/adre_theorem1.ipynb)" in linked
        and "[`adre_coverage`](../proofs/adre_coverage.ipynb)" in linked
        and "`Theorem 1`" in linked
    )
    assert links.unlinked(linked, chapter, tree) == ["Lemma 99"] and tree.linked(linked, chapter) == linked


REPR = re.compile(r"np\.\w+\(|np\.(?:True|False)_|\barray\(|dtype=| object at 0x|<Figure |<Axes")

def test_no_python_repr_is_shown(root, build, site):
    found = []
    for path, page in pages(root, site).items():
        outputs = [output for cell in page.cells if cell.cell_type == "code" for output in cell.outputs]
        for output in outputs:
            data = output.get("data", {})
            shown = (
                data.get("text/html")
                or data.get("text/markdown")
                or ("" if "image/png" in data else data.get("text/plain", output.get("text", "")))
            )
            if hit := REPR.search(shown):
                found.append(f"{path.stem}: {shown[max(0, hit.start() - 40) : hit.end() + 40]!r}")
    assert not found, found


def test_code_is_laid_out_for_a_column(build):
    notebooks = importlib.import_module("notebooks")
    code = "x = 1 # short\nf(a,\n  b=2, # " + "long " * 20 + "\n  c='# no comment')"
    assert notebooks.comments_above(code).splitlines() == [
        "x = 1 # short",
        "f(a,",
        "  # " + ("long " * 20).strip(),
        "  b=2,",
        "  c='# no comment')",
    ]
    assert notebooks.plain_numbers("(np.float64(0.5), np.True_, {np.str_('l2')})") == "(0.5, True, {'l2'})"
    assert (
        notebooks.plain_numbers("(array([0, 5]), 1)") == "([0, 5], 1)"
        and notebooks.plain_numbers("array([[1],\n       [2]])") == "[[1],\n [2]]"
    )
    assert notebooks.noise_in("<matplotlib.legend.Legend at 0x7f>") and not notebooks.noise_in("Certificates(exact)")
    assert (
        notebooks.noise_in("Method(name='exact', certify=<function certify>)")
        and notebooks.noise_in("'holds'")
        and not notebooks.noise_in("it holds")
    )
    assert "echo" in notebooks.directives("#| echo: false\nx") and "echo" not in notebooks.directives(
        "#| echo: true\nx"
    )


WIDTHS = (390, 1313, 1366, 1471, 1920)
SEEN = (
    "index", "guide/00_start", "methods/11_exact", "proofs/adre_theorem1",
    "experiments/gaussian_table1", "tables/dssn/dssn_table1",
)

@pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium browser, which is not installed here")
def test_pages_fit_every_width(root, site, tmp_path):
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from robust_smooth.lab import report
    written = report.build(root / "data" / "results", tmp_path / "report.html")
    assert written.stat().st_size < 2_000_000, "too large to be mailed"
    with driver.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        page = browser.new_page()
        for name in [*(site / f"{name}.html" for name in SEEN), written]:
            page.set_viewport_size(dict(width=WIDTHS[0], height=900))
            page.goto(name.as_uri())
            for width in WIDTHS:
                page.set_viewport_size(dict(width=width, height=900))
                there, room, tall = page.evaluate(
                    "(e => [e.scrollWidth, e.clientWidth, e.scrollHeight])(document.documentElement)"
                )
                assert there <= room, f"{name.name} scrolls sideways at {width}: {there} > {room}"
                cut = page.evaluate(
                    "[...document.querySelectorAll('div.cell_input pre')].filter(e => e.offsetParent && e.scrollWidth "
                    "> e.clientWidth + 1).length"
                )
                assert not cut, f"{name.name}: code is cut off at {width}"
            wrong = page.evaluate(
                "[...document.images].filter(e => !e.complete || !e.naturalWidth).map(e => e.src.slice(0, 80))"
            )
            assert not wrong, f"{name.name}: {wrong}"
        assert tall < 10 * 900, "the folded report is longer than ten screens"
        assert not REPR.search(page.inner_text("body")) and page.locator("details.fold").count() >= 39
        browser.close()


def code(source, metadata=None, picture=False):
    "A code cell as `visible` hands it over."
    outputs = (
        [nbformat.v4.new_output("display_data", data={"image/png": "", "text/plain": "<Figure>"})] if picture else []
    )
    return nbformat.v4.new_code_cell(source, metadata=dict(directives=[], **(metadata or {})), outputs=outputs)


def test_a_picture_is_told_in_words(build):
    drawn = code(
        'fig, ax = plt.subplots()\nax.set(xlabel="radius", ylabel=r"share of $p$", title=f"n = {n}")', picture=True
    )
    assert build.draws(drawn) and build.told(drawn, "", "One page") == "One page: share of p against radius"
    caption = "*Two balls of $\\ell_1$ norm 1;\n[the proof](a.ipynb) has $\\tfrac12$.*\n\nMore."
    assert build.told(drawn, caption, "One page") == "Two balls of l1 norm 1; the proof has 1/2."
    assert build.told(code("plt.plot(x)", picture=True), "No caption.", "One page") == "One page"


def test_pictures_and_experiments_are_read_without_their_code(build):
    def folded(cell, wing):
        build.code_cell(cell, wing, imports=True)
        return cell.metadata.get("mystnb", {}).get("code_prompt_show", "")
    assert folded(code("plt.plot(x)", picture=True), "proofs") == "Code of the picture"
    assert folded(code("plt.plot(x)\nassert x", picture=True), "proofs") == "" # a check is what is told
    assert folded(code("run = Experiment()\nrun"), "experiments") == "Code"
    assert folded(code("seed = 0", dict(tags=["parameters"])), "experiments") == ""


def test_pages_say_what_they_show(root, site):
    found = []
    for page in sorted(site.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        if re.search(r"<title>[^<]*\\\\", text): found.append(f"{page.name}: TeX in its title")
        found += [f"{page.name}: {hit}" for hit in re.findall(r'alt="((?:\.\./)*_images/[^"]*)"', text)]
    assert not found, found
    landing = (site / "index.html").read_text(encoding="utf-8").split("<article")[1]
    for page in ("map", "proofs/index", "experiments/index", "tables/index", "api/index"):
        assert f'href="{page}.html"' in landing
    side = (site / "proofs" / "dssn_theorem1.html").read_text(encoding="utf-8").split("<article")[0]
    assert "dssn: Uniform noise is Lipschitz in l1 (Theorem 1)" in side and "soap_bubbles: Theorem 1" in side
    chapters = side[side.index(">Methods<"):side.index(">Papers<")]
    assert (
        "Bernstein smoothing" in chapters
        and "The exact two-sided certificate" in chapters
        and "Sampled likelihood ratios" not in chapters
    )


def test_a_pair_of_numbers_stays_on_one_line(build):
    import pandas as pd
    frame = pd.DataFrame(
        dict(sigma=[0.25, 0.25, 0.5, 0.5], radius=[0.0, 0.5] * 2, ours=[0.98, 0.5] * 2, printed=[0.81, 0.43] * 2)
    )
    assert "0.98\u00a0/\u00a00.81" in "\n".join(build.shown(frame))


def test_broken_links_are_found(build, tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="x"></p><a href="b.html#y">1</a><a href="#x">2</a><a href="b.html#z">3</a><img src="gone.png"><a '
        'href="https://example.org/">4</a>'
    )
    (tmp_path / "b.html").write_text('<p id="y"></p><a href="a.html">1</a>')
    assert build.broken_links(tmp_path) == ["a.html -> b.html#z", "a.html -> gone.png"]


def test_reference_reads_signatures_and_comments(build, tmp_path, monkeypatch):
    module = tmp_path / "some.py"
    module.write_text(
        '"What is this?"\n__all__ = ["double", "Pair"]\n\ndef double(x: float, # a number | any\n           *, times: '
        'int = 2, # how often\n          ) -> float: # the result\n'
        '    "Twice `x`, or more_than that."\n    return x * times\n\nclass Pair:\n    "Two."\n    left: '
        'int = 1 # the first\n\n    @property\n    def sum(self) -> int: "Both."; return 2\n'
    )
    monkeypatch.setattr(build, "PACKAGE", tmp_path)
    page = build.module_page(module, "")
    assert (
        "{py:function} double(x, *, times=2)" in page
        and "| `x` | `float` |  | a number \\| any |" in page
        and "| `times` | `int` | `2` | how often |" in page
    )
    assert "| `returns` | `float` |  | the result |" in page and "Twice `x`, or more\\_than that." in page
    assert "{py:class} Pair" in page and "| `left` | `int` | `1` | the first |" in page and "{py:property} sum" in page
