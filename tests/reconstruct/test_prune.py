"""Whole networks: pruned layers feed the next, counts are exact, bad input is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lth_jax as lth
from lth_jax import reconstruct
from lth_jax.reconstruct import prune

KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {
    "first": jax.random.normal(KEYS[0], (6, 8)),
    "bias": jnp.ones(8),
    "second": jax.random.normal(KEYS[1], (4, 8)),
}
BATCHES = list(jax.random.normal(KEYS[2], (3, 16, 6)))
SPARSE_GPT = reconstruct.sparse_gpt()


def mlp(params, x):
    return jnp.tanh(x @ params["first"] + params["bias"]) @ params["second"].T


def experts(params, x):
    return jnp.einsum("eci,eio->eco", x, params["w"])


def stack(params, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, params["w"])[0]


STACK = {"w": jax.random.normal(KEYS[3], (3, 6, 6))}


@pytest.mark.slow
def test_pruned_layers_feed_the_next():
    pruned, mask, report = prune(mlp, PARAMS, BATCHES, method=SPARSE_GPT, density=0.5)
    x = jnp.concatenate(BATCHES)
    first, _ = SPARSE_GPT(PARAMS["first"], x.T @ x, 24)
    np.testing.assert_allclose(pruned["first"], first, rtol=1e-4, atol=1e-5)
    h = jnp.tanh(x @ first + 1)
    second, kept = SPARSE_GPT(PARAMS["second"].T, h.T @ h, 16)
    np.testing.assert_allclose(pruned["second"], second.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(mask["second"], kept.T)
    np.testing.assert_array_equal(pruned["bias"], PARAMS["bias"])
    assert mask["bias"].all() and [row.kept for row in report] == [24, 16]
    error = reconstruct.layer_error(PARAMS["second"].T, second, h.T @ h)
    np.testing.assert_allclose(report["second"].error, error, rtol=1e-3)
    assert report["second"].error < report["second"].masked_error
    assert report.density == 0.5 and report["first"].rows == 48


def test_each_layer_of_a_stack_is_pruned_with_the_inputs_of_the_pruned_ones():
    pruned, mask, report = prune(stack, STACK, BATCHES, method=SPARSE_GPT, density=0.5)
    h = jnp.concatenate(BATCHES)
    for k, w in enumerate(STACK["w"]):
        new, kept = SPARSE_GPT(w, h.T @ h, 18)
        np.testing.assert_allclose(pruned["w"][k], new, rtol=1e-2, atol=1e-3)
        np.testing.assert_array_equal(mask["w"][k], kept)
        h = jnp.tanh(h @ pruned["w"][k])
    assert [row.name for row in report] == ["w[0]", "w[1]", "w[2]"]


def test_after_a_tied_leaf_everything_sees_its_new_weights():
    def tied(params, x):
        h = jnp.tanh(x @ params["w"])
        h = jnp.tanh(h @ params["v"])
        return jnp.tanh(h @ params["w"])

    w, v = STACK["w"][:2]
    pruned, _, report = prune(tied, {"w": w, "v": v}, BATCHES, method=SPARSE_GPT, density=0.5)
    x = jnp.concatenate(BATCHES)
    h = jnp.tanh(jnp.tanh(x @ w) @ v)
    first, _ = SPARSE_GPT(w, x.T @ x + h.T @ h, 18)
    np.testing.assert_allclose(pruned["w"], first, rtol=1e-2, atol=1e-3)
    h = jnp.tanh(x @ pruned["w"])
    second, _ = SPARSE_GPT(v, h.T @ h, 18)
    np.testing.assert_allclose(pruned["v"], second, rtol=1e-2, atol=1e-3)
    assert [(row.name, row.rows) for row in report] == [("w", 96), ("v", 48)]


def test_the_same_arguments_give_the_same_bits():
    a, b = (prune(mlp, PARAMS, BATCHES, method=SPARSE_GPT, density=0.4)[0] for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_density_of_one_changes_nothing():
    pruned, mask, report = prune(mlp, PARAMS, BATCHES, method=SPARSE_GPT, density=1.0)
    jax.tree.map(np.testing.assert_array_equal, pruned, PARAMS)
    assert all(jax.tree.leaves(jax.tree.map(jnp.all, mask)))
    assert all(row.error == 0 for row in report)


@pytest.mark.parametrize("scope", [lth.layerwise(), lth.erk()], ids=["layerwise", "erk"])
def test_counts_of_a_scope_are_met(scope):
    prunable = lth.prunable_leaves(PARAMS)
    counts = scope.counts(PARAMS, 0.3, prunable=prunable)
    _, mask, _ = prune(
        mlp, PARAMS, BATCHES, method=reconstruct.wanda(), counts=counts, prunable=prunable
    )
    for name in ("first", "second"):
        assert mask[name].sum() == counts[name]


def test_counts_of_a_stack_are_one_for_each_layer():
    counts = {"w": np.array([5, 20, 36])}
    _, mask, _ = prune(stack, STACK, BATCHES, method=reconstruct.wanda(), counts=counts)
    assert mask["w"].sum((1, 2)).tolist() == [5, 20, 36]


@pytest.mark.slow
def test_one_count_makes_the_layers_compete_by_the_error_of_each_weight():
    scaled = PARAMS | {"second": 100 * PARAMS["second"]}  # a relative error sees no scale
    counts = [
        [row.kept for row in prune(mlp, p, BATCHES, method=reconstruct.wanda(), counts=30)[2]]
        for p in (PARAMS, scaled)
    ]
    assert counts[0] == counts[1] and sum(counts[0]) == 30 and min(counts[0]) > 0
    x = jnp.concatenate(BATCHES)
    h = jnp.tanh(x @ PARAMS["first"] + 1)
    costs = []
    for w, rows in ((PARAMS["first"], x), (PARAMS["second"].T, h)):
        costs.append((w**2 * jnp.sum(rows**2, 0)[:, None] / jnp.sum((rows @ w) ** 2)).ravel())
    best = jnp.argsort(-jnp.concatenate(costs))[:30]
    assert counts[0] == [int((best < 48).sum()), int((best >= 48).sum())]


def test_one_count_empties_no_layer():
    few = jnp.zeros_like(PARAMS["second"]).at[0, :4].set(1)  # which all cost more than the others
    _, _, report = prune(
        mlp, PARAMS | {"second": few}, BATCHES, method=reconstruct.wanda(), counts=2
    )
    assert [row.kept for row in report] == [1, 1]


def test_a_mask_on_leaves_without_a_layer_counts_from_the_start():
    mask = lth.ones_like(PARAMS) | {"bias": jnp.arange(8) < 3, "second": PARAMS["second"] > 0}
    pruned, found, _ = prune(mlp, PARAMS, BATCHES, method=reconstruct.refit(), mask=mask)
    jax.tree.map(np.testing.assert_array_equal, found, mask)
    h = jnp.tanh(jnp.concatenate(BATCHES) @ PARAMS["first"] + mask["bias"])
    second, _ = reconstruct.refit()(PARAMS["second"].T, h.T @ h, mask["second"].T)
    np.testing.assert_allclose(pruned["second"], second.T, rtol=1e-2, atol=1e-3)
    np.testing.assert_array_equal(pruned["bias"], jnp.where(mask["bias"], 1.0, 0.0))


def test_each_output_keeps_the_same_share():
    _, mask, _ = prune(mlp, PARAMS, BATCHES, method=SPARSE_GPT, density=0.5, per="output")
    assert (mask["first"].sum(0) == 3).all() and (mask["second"].sum(1) == 4).all()


def test_a_pattern_runs_along_the_inputs_of_each_output():
    prunable = {"first": False, "bias": False, "second": True}
    _, mask, _ = prune(mlp, PARAMS, BATCHES, method=SPARSE_GPT, pattern=(2, 4), prunable=prunable)
    assert (mask["second"].reshape(4, 2, 4).sum(2) == 2).all() and mask["first"].all()


def test_any_mask_is_reconstructed_units_of_the_structure_too():
    found = lth.structure.find_groups(mlp, PARAMS, BATCHES[0])
    may, scope = lth.structure.prunable(found), lth.structure.by_group(found)
    pruner = lth.prune(lth.magnitude(), scope, lth.structure.granularity(found))
    count = scope.counts(PARAMS, 0.5, prunable=may)
    ticket = pruner(PARAMS, lth.ones_like(PARAMS), count, prunable=may)
    pruned, mask, report = prune(
        mlp, PARAMS, BATCHES, method=reconstruct.refit(), mask=ticket, inputs="dense"
    )
    jax.tree.map(np.testing.assert_array_equal, mask, ticket)
    jax.tree.map(lambda p, m: np.testing.assert_array_equal(p[~m], 0), pruned, ticket)
    x = jnp.concatenate(BATCHES)
    wrong = [
        jnp.sum((mlp(p, x) - mlp(PARAMS, x)) ** 2) for p in (pruned, lth.apply_mask(ticket, PARAMS))
    ]
    assert wrong[0] < 0.7 * wrong[1] and report["second"].error < report["second"].masked_error


@pytest.mark.slow
def test_experts_are_pruned_each_with_its_own_inputs():
    params = {"w": jax.random.normal(KEYS[0], (2, 6, 5))}
    x = jax.random.normal(KEYS[1], (2, 20, 6)) * jnp.array([1.0, 10.0])[:, None, None]
    pruned, mask, report = prune(experts, params, [x], method=SPARSE_GPT, density=0.5)
    for k in range(2):
        new, kept = SPARSE_GPT(params["w"][k], x[k].T @ x[k], 15)
        np.testing.assert_array_equal(mask["w"][k], kept)
        np.testing.assert_allclose(pruned["w"][k], new, rtol=1e-3, atol=1e-4)
    _, mask, _ = prune(experts, params, [x], method=SPARSE_GPT, density=0.5, per="output")
    assert (mask["w"].sum(1) == 3).all()
    _, mask, _ = prune(experts, params, [x], method=reconstruct.wanda(), counts={"w": 33})
    assert mask["w"].sum((1, 2)).tolist() == [17, 16]
    assert report["w"].layer.groups == 2 and report["w"].kept == 30


def test_a_leaf_with_another_use_is_pruned_only_on_request():
    def f(params, tokens):
        return jnp.tanh(params["e"][tokens]) @ params["e"].T

    params, tokens = {"e": jax.random.normal(KEYS[0], (7, 3))}, jnp.arange(7)
    with pytest.raises(ValueError, match="no layer to prune"):
        prune(f, params, [tokens], method=SPARSE_GPT, density=0.5)
    _, mask, _ = prune(f, params, [tokens], method=SPARSE_GPT, density=0.5, prunable={"e": True})
    assert mask["e"].sum() == 11


@pytest.mark.slow
def test_bfloat16_networks_keep_their_dtype_and_report_the_error_after_rounding():
    low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    batches = [x.astype(jnp.bfloat16) for x in BATCHES]
    pruned, _, report = prune(mlp, low, batches, method=SPARSE_GPT, density=0.5)
    assert {leaf.dtype for leaf in jax.tree.leaves(pruned)} == {jnp.dtype(jnp.bfloat16)}
    x = jnp.concatenate(batches).astype(jnp.float32)
    w, new = (p["first"].astype(jnp.float32) for p in (low, pruned))
    np.testing.assert_allclose(
        report["first"].error, reconstruct.layer_error(w, new, x.T @ x), rtol=1e-3
    )


def test_a_report_is_a_table():
    _, _, report = prune(mlp, PARAMS, BATCHES, method=reconstruct.wanda(), density=0.5)
    lines = repr(report).splitlines()
    assert len(lines) == 3 and lines[0].split()[:4] == ["layer", "matrix", "rows", "density"]
    assert all(row.error == row.masked_error for row in report)
    assert max(map(len, lines)) < 100


COUNTS = {"first": 3, "bias": 8, "second": 1}
NAN = [jnp.full((16, 6), jnp.nan)]
TIED = [x.at[:, 1].set(x[:, 0]).at[:, 2].set(x[:, 3] + x[:, 4]) for x in BATCHES]
BAD = {
    "no_layer": (dict(prunable=dict.fromkeys(PARAMS, True)), "'bias', which is no"),
    "rows": (dict(batches=[BATCHES[0][:4]]), "4 rows for the 6 inputs of 'first'"),
    "singular": (
        dict(batches=[BATCHES[0][:4]], min_rows=0, method=reconstruct.obs(damping=0)), "is singular"
    ),
    "singular_choice": (
        dict(batches=TIED, method=reconstruct.refit(reconstruct.obs(damping=0))), "is singular"
    ),
    "little_damping": (dict(batches=TIED, method=reconstruct.obs(damping=1e-12)), "is singular"),
    "nan": (dict(batches=NAN), "NaN or infinite at the inputs of 'first'"),
    "nan_weights": (
        dict(params=PARAMS | {"first": jnp.full((6, 8), jnp.inf)}), "has weights that are NaN"
    ),
    "zeros": (dict(batches=[jnp.zeros((16, 6))]), "'first' nothing but zeros"),
    "two": (dict(pattern=(2, 4)), "exactly one of"),
    "none": (dict(density=None), "exactly one of"),
    "density": (dict(density=1.5), r"`density` must lie in \(0, 1\]"),
    "too_many": (dict(density=None, counts=81), "`counts` is 81"),
    "too_few": (dict(density=None, counts=1), "fewer than the 2 layers"),
    "structure": (dict(density=None, counts={"first": 3}), "`counts` must be one number"),
    "of_leaf": (
        dict(density=None, counts=COUNTS | {"first": 49}), "`counts\\[first\\]` is 49"
    ),
    "layers_of_leaf": (
        dict(density=None, counts=COUNTS | {"first": [3, 3]}), "`counts` must be one"
    ),
    "pattern": (dict(density=None, pattern=(2, 4)), "4 does not divide the 6 inputs of 'first'"),
    "pair": (dict(density=None, pattern=4), r"`pattern` must be a pair \(n, m\)"),
    "mask": (dict(density=None, mask={"first": jnp.ones(2, bool)}), "`mask`"),
    "inputs": (dict(inputs="all"), "`inputs` must be 'pruned' or 'dense'"),
    "per": (dict(per="row"), "`per` must be 'layer'"),
    "per_counts": (dict(density=None, counts=20, per="output"), "`per` must be 'layer'"),
    "empty": (dict(batches=[]), "`batches` is empty"),
    "no_params": (dict(params={}), "`params` has no leaves"),
}  # fmt: skip
WRONG_TYPES = {
    "batches": (dict(batches=BATCHES[0]), "`batches` must be a list of inputs"),
    "pairs": (dict(batches=[(x, x[:, 0]) for x in BATCHES]), r"are `\[x for x, _ in batches\]`"),
    "method": (dict(method=reconstruct.sparse_gpt), "is the function `sparse_gpt`; call it"),
    "float8": (
        dict(params=PARAMS | {"first": jnp.ones((6, 8), jnp.float8_e4m3fn)}), "has dtype float8"
    ),
    "int8": (dict(params=PARAMS | {"first": jnp.ones((6, 8), jnp.int8)}), "'first' has dtype int8"),
}  # fmt: skip


def run(changes):
    given = dict(params=PARAMS, batches=BATCHES, method=SPARSE_GPT, density=0.5) | changes
    params, batches = given.pop("params"), given.pop("batches")
    return prune(lambda p, x: mlp(jax.tree.map(jnp.float32, p), x), params, batches, **given)


@pytest.mark.parametrize("changes, words", BAD.values(), ids=BAD)
def test_bad_input_is_named_in_one_sentence(changes, words):
    with pytest.raises(ValueError, match=words) as found:
        run(changes)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("changes, words", WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_wrong_types_are_named_in_one_sentence(changes, words):
    with pytest.raises(TypeError, match=words):
        run(changes)


def test_an_expert_without_inputs_is_named():
    x = jnp.stack([jnp.ones((20, 6)), jnp.zeros((20, 6))])
    with pytest.raises(ValueError, match=r"'w' \(group 1 of 2\) nothing but zeros"):
        prune(experts, {"w": jnp.ones((2, 6, 5))}, [x], method=SPARSE_GPT, density=0.5)


def test_rows_of_an_expert_are_those_sent_to_it():
    x = jax.random.normal(KEYS[0], (2, 20, 6)).at[1, 2:].set(0)
    with pytest.raises(ValueError, match="2 rows for the 6 inputs of 'w'"):
        prune(experts, {"w": jnp.ones((2, 6, 5))}, [x], method=SPARSE_GPT, density=0.5)


def test_one_count_for_all_layers_empties_no_layer_even_of_zeros():
    params = PARAMS | {"second": jnp.zeros((4, 8))}
    _, mask, _ = prune(mlp, params, BATCHES, method=reconstruct.wanda(), counts=20)
    assert (mask["first"].sum(), mask["second"].sum()) == (19, 1)


@pytest.mark.parametrize("batches", [[BATCHES[0], BATCHES[1][:5]], [BATCHES[0][:5], BATCHES[1]]])
def test_batches_that_enter_different_layers_are_refused(batches):
    def only_long(params, x):
        h = mlp(params, x)
        return h @ params["more"] if len(x) == 16 else h

    params = PARAMS | {"more": jnp.ones((4, 4))}
    with pytest.raises(ValueError, match=r"'more' is a layer for the batch (first|number 1)"):
        prune(only_long, params, batches, method=SPARSE_GPT, density=0.5, min_rows=0)
