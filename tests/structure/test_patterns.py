"""The patterns of large models: what can be removed, and the proof that removing is masking."""

import jax
import numpy as np
import pytest

from lth_jax import structure as st
from tests.structure.patterns.table import PAGE, patterns, row
from tests.thinning import thinned

# Reasons of axes that a pattern need not list: the shapes of inputs and results decide them.
GIVEN = (
    "an axis of the argument", "an axis of result", "`gather` reads it at computed indices",
    "the window of `conv",
)  # fmt: skip
NO_GRADIENT = "RAFT, in a `while_loop`"


@pytest.mark.parametrize("name", patterns())
def test_groups_blocks_and_reasons_of_a_pattern(name):
    """The groups are those expected, all other axes have a reason, and the table has both."""
    pattern = patterns()[name]
    found = st.find_groups(pattern.apply, pattern.params, *pattern.args)
    assert {(g.name, g.units) for g in found.groups} == set(pattern.groups.values())
    assert found.unknown == found.unused == ()
    blocks = st.blocks(found)
    assert tuple(blocks) == pattern.blocks
    assert row(name, found, blocks) in PAGE.read_text("utf-8").splitlines()
    listed = {axis for axes in pattern.kept.values() for axis in axes}
    for leaf, axes in found.pinned.items():
        for axis, reasons in enumerate(axes):
            given = all(reason.startswith(GIVEN) for reason in reasons)
            alone = found.shapes[leaf][axis] == 1
            assert given or alone or (leaf, axis) in listed, (leaf, axis, reasons)
    assert all(found.pinned[leaf][axis] for leaf, axis in listed)


def relative(masked, compact):
    """The largest error of all arrays, each relative to its largest entry."""
    pairs = zip(jax.tree.leaves(masked), jax.tree.leaves(compact), strict=True)
    return max(np.abs(a - b).max() / np.abs(a).max() for a, b in pairs)


@pytest.mark.parametrize("name", thinned([n for n in patterns() if n != NO_GRADIENT], 12, slow=2))
def test_removed_is_masked_in_a_pattern(name, compare_units, random_units):
    """In outputs and gradients, to 1e-5 of the largest entry."""
    pattern = patterns()[name]
    found = st.find_groups(pattern.apply, pattern.params, *pattern.args)
    units = random_units(found)
    step = compare_units(found, pattern.apply, pattern.args, units, pattern.params)
    both, _ = step(pattern.params, st.take(found, pattern.params, units), np.float32(0))
    assert relative(*both) < 1e-5


@pytest.mark.slow
def test_removed_is_masked_in_a_refinement_of_unknown_length(random_units):
    """In outputs: a `while_loop` has no gradient."""
    pattern = patterns()[NO_GRADIENT]
    found = st.find_groups(pattern.apply, pattern.params, *pattern.args)
    units = random_units(found)
    small, compact = st.compact(found, pattern.params, units)
    masked = jax.tree.map(np.multiply, pattern.params, st.expand(found, units))
    assert relative(pattern.apply(masked, *pattern.args), compact(small, *pattern.args)) < 1e-5
