"""The claims of the article as pre-registered studies: question, rule and verdict."""

from experiments.studies.protocol import STUDIES as STUDIES
from lth_jax.registry import import_modules

import_modules(__name__, __path__)  # a new file needs no line here
