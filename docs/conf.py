"""The site: ``make docs``. No network is needed to build it."""

import lightlink

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
