"""Long lists in tiers: a share of the cases is fast, another slow, and the rest exhaustive."""

import pytest


def thinned(cases, every, slow=1):
    """The cases: each `every`-th is fast, each `slow`-th of the others slow, the rest exhaustive.

    >>> [[mark.name for mark in case.marks] for case in thinned("abcde", 4, slow=2)]
    [[], ['slow'], ['exhaustive'], ['slow'], []]
    """
    others = 0
    found = []
    for i, case in enumerate(cases):
        marks = ()
        if i % every:
            marks = _SLOW if others % slow == 0 else _EXHAUSTIVE
            others += 1
        found.append(_marked(case, marks))
    return found


def sampled(cases, every):
    """The cases, of which each `every`-th is slow; the others run by `pytest -m exhaustive`.

    >>> [case.marks[0].name for case in sampled("abc", 2)]
    ['slow', 'exhaustive', 'slow']
    """
    return [_marked(case, _EXHAUSTIVE if i % every else _SLOW) for i, case in enumerate(cases)]


_SLOW, _EXHAUSTIVE = (pytest.mark.slow,), (pytest.mark.exhaustive,)


def _marked(case, marks):
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=marks)
