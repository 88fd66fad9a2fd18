"""Sphinx's settings. All pages but `index.md` are generated when the site is built: see `sitegen/pages.py`."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from sitegen.docstrings import process_docstring, process_signature  # noqa: E402
from sitegen.links import RepositoryLinks  # noqa: E402
from sitegen.pages import write_pages  # noqa: E402

from decoderbench import __version__  # noqa: E402

project = "decoderbench"
release = version = __version__
html_title = f"decoderbench {release}"
smartquotes_action = "D"  # dashes only: quotes are often those of a value
html_theme = "furo"
html_copy_source = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_copyright = False
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"


def setup(app: Sphinx) -> None:
    """Generate the pages before Sphinx looks for them, and connect what resolves links and reads docstrings."""
    write_pages(DOCS)
    app.add_transform(RepositoryLinks)
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
