"""Long lists in two tiers: every n-th case is fast, all of them run in the slow tier."""

import pytest


def thinned(cases, every):
    """The cases, of which only each `every`-th is in the fast tier.

    >>> [bool(case.marks) for case in thinned("abc", 2)]
    [False, True, False]
    """
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=pytest.mark.slow if i % every else (),
        )
        for i, case in enumerate(cases)
    ]
