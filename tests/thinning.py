"""Long lists in tiers: every n-th case is fast and the others slow, or slow and exhaustive."""

import pytest


def thinned(cases, every):
    """The cases, of which only each `every`-th is in the fast tier; all run in the slow one.

    >>> [bool(case.marks) for case in thinned("abc", 2)]
    [False, True, False]
    """
    return [_marked(case, pytest.mark.slow if i % every else ()) for i, case in enumerate(cases)]


def sampled(cases, every):
    """The cases, of which each `every`-th is slow; the others run by `pytest -m exhaustive`.

    >>> [case.marks[0].name for case in sampled("abc", 2)]
    ['slow', 'exhaustive', 'slow']
    """
    marks = pytest.mark.slow, pytest.mark.exhaustive
    return [_marked(case, marks[min(i % every, 1)]) for i, case in enumerate(cases)]


def _marked(case, marks):
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=marks)
