"""Every claim of the article as a pre-registered study: a question, its rule, and its verdict."""

from experiments.studies.protocol import STUDIES as STUDIES
from lth_jax.registry import import_modules

import_modules(__name__, __path__)  # a new file needs no line here


def family() -> list[str]:
    """The claims whose primaries are corrected together."""
    return [claim for claim, study in STUDIES.items() if study.protocol.in_family]
