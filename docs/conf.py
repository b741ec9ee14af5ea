"""The site: ``make docs``. No network is needed to build it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sphinx.addnodes import pending_xref

import lightlink

if TYPE_CHECKING:
    from docutils.nodes import document
    from sphinx.application import Sphinx

project = "LightLink"
author = "The LightLink developers"
project_copyright = "The LightLink developers"
release = version = lightlink.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
# Pages of the repository are linked as they stand in it: README, samples, tests, SECURITY.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": True}
default_role = "code"

html_theme = "furo"
html_title = f"LightLink {release}"
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e99", "color-brand-content": "#0b6e99"},
    "dark_css_variables": {"color-brand-primary": "#5cb8dd", "color-brand-content": "#5cb8dd"},
}


def setup(app: Sphinx) -> None:
    """Have links of included pages, which are the repository's, lead to pages of the site."""
    app.connect("doctree-read", _lead_to_the_site)


def _lead_to_the_site(app: Sphinx, doctree: document) -> None:
    for link in doctree.findall(pending_xref):
        target = link.get("reftarget", "")
        page = "certificates" if target == "certs/README.md" else target.removeprefix("docs/").removesuffix(".md")
        if link.get("reftype") == "myst" and page in app.env.found_docs:
            link.attributes.update(refdomain="doc", reftarget=page, reftargetid=None)
