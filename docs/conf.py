"""Settings of the docs site: ``python -m sphinx -W --keep-going -n -b html docs OUT``.

The pages are Markdown. What is made from the package by every build (the reference, the help of
the commands, the gallery and the page of the demo) is in `make_pages`.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import make_pages  # noqa: E402

import fastdeconv  # noqa: E402

project = "fastdeconv"
author = copyright = "The fastdeconv authors"
release = version = fastdeconv.__version__

extensions = [
    "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_nb", "sphinx_copybutton",
]
exclude_patterns = ["_made"]

# Notebooks are stored with their outputs, and the tests execute them: not once more here.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_typehints = "none"  # the parameters of a docstring say types and shapes
autosummary_generate = True
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False  # autodoc documents them on the page of their class
templates_path = ["_templates"]
# A word in backquotes is a link if it is a public name, else a parameter or an inner name.
nitpick_ignore_regex = [("py:obj", r"[\w.]+")]

html_theme = "pydata_sphinx_theme"
html_title = "fastdeconv"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_made/site"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
    "pygments_dark_style": "github-dark",
}
# Pages that have no others beside them.
html_sidebars = {page: [] for page in ("index", "start", "gallery")}
html_context = {"default_mode": "auto"}

linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]

make_pages.write(HERE)
