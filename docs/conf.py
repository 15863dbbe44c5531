"Sphinx settings; `build.py` writes the sources that they apply to."
from configparser import ConfigParser
from pathlib import Path

from sphinx.search.en import SearchEnglish

_parser = ConfigParser(delimiters=["="], interpolation=None)
_parser.read(Path(__file__).resolve().parents[1] / "settings.ini", encoding="utf-8")
_settings = _parser["DEFAULT"]

project, author, release = _settings["title"], _settings["author"], _settings["version"]
copyright = _settings["copyright"]
language = "en"
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
exclude_patterns = ["jupyter_execute"]
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_merge_streams = True
nb_remove_code_source = False
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline"]
myst_dmath_double_inline = True
myst_heading_anchors = 3
suppress_warnings = ["myst.header"] # a notebook may go from a title straight to a third-level heading
add_function_parentheses = False
python_maximum_signature_line_length = 100
html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files, html_js_files = ["site.css"], ["site.js"]
html_theme_options = dict(navigation_with_keys=True)
pygments_style, pygments_dark_style = "friendly", "monokai"


def open_where_one_reads(app, pagename, templatename, context, doctree) -> None:
    "The sidebar shows every chapter, and below the lists of proofs, experiments, tables and modules only the one that is read: half of each page was sidebar."
    if (whole := context.get("toctree")) is None: return
    context["toctree"] = lambda **how: whole(**how | {"collapse": True})


def remembering(stem):
    "Words come again and again, and a word's stem takes 0.1 ms."
    known = {}
    def remembered(self, word: str) -> str:
        if word not in known: known[word] = stem(self, word)
        return known[word]
    return remembered


def setup(app) -> None:
    SearchEnglish.stem = remembering(SearchEnglish.stem)
    app.connect("html-page-context", open_where_one_reads, priority=400) # before the theme draws its sidebar
