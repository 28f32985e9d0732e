"""Every claim of the article as a pre-registered study: a question, its rule, and its verdict."""

import importlib

from experiments.studies.protocol import Study

MODULES = {
    "C1": "c01_biology",
    "C2": "c02_at_least_one",
    "C3": "c03_mask_entropy",
    "C4": "c04_structured",
    "C5": "c05_ensembles",
    "C6": "c06_learning_rate",
    "C7": "c07_regularisation",
    "C8": "c08_little_data",
    "C9": "c09_mixing",
    "C10": "c10_attention",
    "C11": "c11_recurrent",
    "C12": "c12_transfer",
    "C13": "c13_distillation",
    "C14": "c14_fairness",
    "ORIGINAL": "original",
    "CRITERIA": "criteria_ranking",
}
"""The module of each study, by its claim, in the order of the atlas."""


def study(claim: str) -> Study:
    """The study of a claim; imported when asked for."""
    return importlib.import_module(f"experiments.studies.{MODULES[claim]}").STUDY


def family() -> list[str]:
    """The claims whose primaries are corrected together."""
    return [claim for claim in MODULES if study(claim).protocol.in_family]
