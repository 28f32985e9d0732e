"""Everything public is reachable from `import lth_jax as lth`, and nothing is loaded early."""

import importlib.metadata
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lth_jax as lth

PARAMS = {"layer": {"kernel": jnp.arange(12.0).reshape(3, 4) - 5, "bias": jnp.ones(4)}}
LATER = sorted(lth._LATER)


@pytest.mark.parametrize("name", lth.__all__)
def test_every_public_name_is_there(name):
    assert getattr(lth, name) is not None and name in dir(lth)


@pytest.mark.slow
def test_what_is_used_later_is_loaded_later():
    modules = sorted({lth._LATER[name][0] for name in LATER})
    code = f"""
import sys, lth_jax as lth
print([name for name in {modules} if name in sys.modules])
print([name for name in {LATER} if getattr(lth, name) is None])
print([name for name in {modules} if name not in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.split() == ["[]", "[]", "[]"], out.stderr


def test_the_version_is_that_of_the_package():
    assert lth.__version__ == importlib.metadata.version("lth-jax")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'lth_jax' has no attribute 'nothing'"):
        _ = lth.nothing


def test_a_ticket_is_saved_and_loaded(tmp_path):
    prunable = lth.prunable_leaves(PARAMS)
    mask = jax.tree.map(lambda p: p > 0, PARAMS)
    lth.save_ticket(tmp_path / "one.ticket", mask, PARAMS, prunable=prunable)
    ticket = lth.load_ticket(tmp_path / "one.ticket")
    for found, wanted in zip(
        jax.tree.leaves(ticket.params), jax.tree.leaves(lth.apply_mask(mask, PARAMS)), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_a_summary_counts_what_is_kept():
    mask = jax.tree.map(lambda p: p > 0, PARAMS)
    found = lth.summary(PARAMS, mask)
    assert [(row.name, row.shape, row.kept) for row in found] == [
        ("layer/bias", (4,), 4),
        ("layer/kernel", (3, 4), 6),
    ]
    assert (found.total.kept, found.total.size, found.total.density) == (6, 12, 0.5)
    assert lth.summary(PARAMS).total.density == 1
    assert found._repr_html_().count("<tr>") == 1 + len(found) + 2


def test_a_summary_fits_the_page():
    params = {f"{'block_' * 30}{i}": {"kernel": jnp.zeros((3, 3, 512, 512))} for i in range(3)}
    text = repr(lth.summary(jax.eval_shape(lambda: params)))
    assert max(map(len, text.splitlines())) <= 100 and "3×3×512×512" in text


def test_representations_are_short():
    apply = lambda p, x: jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]  # noqa: E731
    params = {"w": jnp.ones((4, 300)), "b": jnp.ones(300), "v": jnp.ones((300, 2))}
    found = lth.structure.find_groups(apply, params, jnp.ones((1, 4)))
    operator = lth.landscape.hessian(
        lambda p, x: jnp.sum(apply(p, x) ** 2), params, [jnp.ones((2, 4))]
    )
    scope = lth.structure.by_group(found)
    pruner = lth.prune(lth.magnitude(), scope, lth.structure.granularity(found))
    things = (
        found,
        found.groups[0],
        found.groups[0].slots[0],
        scope,
        pruner,
        lth.iterate(lth.prune(lth.magnitude(), lth.globally(2)), jnp.array([9, 5])),
        lth.granularity.n_m(2, 4),
        lth.layouts.DENSE,
        operator,
        lth.landscape.Extremes(*np.ones((4, 900)), 1000, 30, 30, True),
        lth.landscape.Density(*np.ones((4, 512)), 0.1, np.ones((8, 64)), np.ones((8, 64)), 1000),
        lth.landscape.Estimate(np.arange(900.0), np.ones(900), 32),
    )
    assert all(len(repr(thing)) < 200 and "\narray" not in repr(thing) for thing in things)
    assert "exact" in repr(found) and "300" in repr(found)
    assert repr(pruner) == "Pruner(magnitude, by_group(...), 300 groups)"
