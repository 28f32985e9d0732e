"""Sphinx builds the documentation site: `python -m sphinx -W -b html docs docs/_build/html`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import public_names  # noqa: E402

# Users write `lth_jax.criteria`, which is imported as an attribute; autodoc imports modules.
sys.modules.update(public_names.modules())

# The kernels of the tutorials import this tree, keep compiled programs between builds, and spend
# no time on optimising tiny ones.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / "docs/_build/programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

project = "lth_jax"
author = "The lth_jax authors"
copyright = "the lth_jax authors, Apache 2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference_pages"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "lth_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "docs/_build/notebooks")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_output_stderr = "remove"  # progress bars

# A name in backticks becomes a link where it is a public name, and code elsewhere.
default_role = "py:obj"
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_preprocess_types = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures would be longer than the docstrings
autodoc_preserve_defaults = True
add_module_names = False
toc_object_entries_show_parents = "hide"
