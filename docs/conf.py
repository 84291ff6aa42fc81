"""Sphinx settings.  The build needs the installed package and no network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cryotile

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "cryotile"
author = "The cryotile developers"
project_copyright = f"2026, {author}"
version = release = cryotile.__version__

extensions = [
    "from_source",
    "mathml",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]
# What benchmarks write there is included elsewhere.
exclude_patterns = ["_build", "_ext", "_static"]
highlight_language = "text"
smartquotes_action = "qe"  # options keep both their hyphens

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc docstrings give types with shapes and units
napoleon_google_docstring = False
napoleon_use_param = False  # "ndarray, shape (posts, 4)" is a sentence, not a name to look up
napoleon_use_rtype = False

# Links into other projects' documentation need a network, and a build must not.
if os.environ.get("CRYOTILE_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "xarray": ("https://docs.xarray.dev/en/stable/", None),
    }

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "cryotile"
html_sidebars = {"**": []}  # pages without children: the header is all the navigation there is
html_static_path = ["_static"]
html_css_files = ["cryotile.css"]
html_theme_options = {
    "header_links_before_dropdown": 5,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
}
