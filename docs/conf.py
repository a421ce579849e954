"""The documentation as a site: `make docs`. Its front page is README.md, its pages are those that GitHub shows as well.

Nothing is fetched, while it is built or looked at. A link that leads nowhere, a page that the navigation lacks and a
notebook that fails are errors.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

NAVIGATION = {
    "Tutorial": ["examples/tutorial", "examples/morning"],
    "How to": [
        *("docs/python", "docs/libraries", "docs/files", "docs/operate", "docs/scale", "docs/store", "docs/extend"),
        "CONTRIBUTING",
    ],
    "Reference": ["docs/reference", "docs/commands", "CHANGELOG"],
    "Explanation": ["docs/design", "docs/results", "docs/security"],
}

project = "volcast"
root_doc = "README"
include_patterns = ["*.md", "docs/**", "examples/**"]
extensions = ["sphinx.ext.autodoc", "myst_nb"]
html_theme = "furo"
html_title = "volcast"
html_show_copyright = False
default_role = "code"  # docstrings have single backticks, as Markdown has them
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds, of a cell
nb_ipywidgets_js = {}  # no notebook has widgets, and these come from a network


def setup(app: "Sphinx") -> None:
    """Hook up the navigation."""
    app.connect("source-read", add_navigation)


def add_navigation(_app: "Sphinx", page: str, source: list[str]) -> None:
    """Put the navigation below the front page, for the site alone."""
    if page == root_doc:
        for caption, pages in NAVIGATION.items():
            entries = "\n".join(f"/{each}" for each in pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"
