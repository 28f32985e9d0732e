"""Sphinx builds the documentation site: `python -m sphinx -W -b html docs docs/_build/html`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import public_names  # noqa: E402

# Users write `lth_jax.criteria`, which is imported as an attribute; autodoc imports modules.
sys.modules.update(public_names.modules())

# For the kernels of the tutorials: this tree, and programs that are kept between builds.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / "docs/_build/programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compilation takes most of their time; programs this small run as fast without optimization.
FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{FAST} {os.environ.get('XLA_FLAGS', '')}"

project = "lth_jax"
author = "The lth_jax authors"
copyright = "the lth_jax authors, Apache 2.0"
extensions = ["myst_nb", "reference_pages"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "lth_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "docs/_build/notebooks")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars

default_role = "py:obj"  # a public name in backticks is a link; anything else is code
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the signatures would be longer than the docstrings
add_module_names = False
toc_object_entries_show_parents = "hide"

LINKS = {"(../CONTRIBUTING.md)": "(contributing.md)", "(README.md)": "(docs/index.md)"}


def relink(app, *source):
    """Links to the two pages above `docs/` lead to their counterparts of the site."""
    for outside, inside in LINKS.items():
        source[-1][0] = source[-1][0].replace(outside, inside)


def setup(app):
    """Connects what changes the text of pages before it is parsed."""
    app.connect("source-read", relink)
    app.connect("include-read", relink)
