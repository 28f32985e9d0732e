"""Mistakes that would show late, or never: each is refused at once, in one sentence."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lth_jax as lth
from lth_jax import coding
from lth_jax.pruning import criteria, granularity, scopes
from lth_jax.pruning.criteria import linen_inputs, nnx_inputs, squared_inputs, track_movement
from lth_jax.types import Batch

PARAMS = {"a": jnp.ones((10, 10)), "b": jnp.ones((10, 10))}
PRUNABLE = lth.prunable_leaves(PARAMS)
FULL = lth.ones_like(PARAMS)
BUILDERS = [
    builder
    for builder in (getattr(criteria, name) for name in criteria.__all__)
    if inspect.isfunction(builder)
    and builder not in (linen_inputs, nnx_inputs, squared_inputs, track_movement)
]


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda b: b.__name__)
def test_a_criterion_that_was_not_called_is_refused(builder):
    with pytest.raises(
        TypeError, match=f"`criterion` is .* call it: `{builder.__name__}\\(...\\)`"
    ):
        lth.prune(builder, lth.globally())


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        (lambda params, mask: params, "not take `key`, `batches`, `initial`;.* add `\\*\\*_` for"),
        (lambda params, mask, *, key: params, "does not take `batches`, `initial`;"),
        (lambda params, mask, *, intial, key, **_: params, "which needs `intial`;"),
        (
            lambda params, mask, *, key, batch, initial: params,
            "does not take `batches` and needs `batch`;",
        ),
        (lambda params, **_: params, "which does not take `mask`;"),
        (lambda params, mask, rate, **_: params, "which needs `rate`;"),
    ],
)
def test_the_arguments_that_a_criterion_lacks_are_named(criterion, words):
    with pytest.raises(TypeError, match=words) as caught:
        lth.prune(criterion, lth.globally())
    assert str(caught.value).startswith("`criterion` is ") and "call it" not in str(caught.value)


@pytest.mark.parametrize("builder", [scopes.globally, scopes.layerwise, scopes.erk])
def test_a_scope_that_was_not_called_is_refused(builder):
    with pytest.raises(TypeError, match=f"`scope` is .*`{builder.__name__}`; .* a Scope"):
        lth.prune(lth.magnitude(), builder)


@pytest.mark.parametrize("name", ["rows", "columns", "kernels", "heads", "blocks", "n_m", "groups"])
def test_a_granularity_that_was_not_called_is_refused(name):
    with pytest.raises(TypeError, match=f"`granularity` is .*{name}`; .* a Granularity"):
        lth.prune(lth.magnitude(), lth.globally(), getattr(granularity, name))


@pytest.mark.parametrize("scope", [lth.globally(), lth.globally(minimum=1), lth.layerwise()])
@pytest.mark.parametrize(
    ("count", "error", "words"),
    [
        (0.2, TypeError, "`count` is 0.2, but it must be a whole number of weights"),
        (372.9, TypeError, "`count` is 372.9, but"),
        (jnp.float32(5), TypeError, "`count` is 5.0, but"),
        (True, TypeError, "`count` is True, but"),
        (-1, ValueError, "`count` is -1, but it must lie between 0 and"),
        (np.int64(201), ValueError, "`count` is 201, but it must lie between 0 and"),
    ],
)
def test_a_count_that_is_none_is_refused(scope, count, error, words):
    pruner = lth.prune(lth.magnitude(), scope)
    whole = isinstance(scope.counts(PARAMS, 0.5, prunable=PRUNABLE), np.integer)
    counts = count if whole else {"a": count, "b": 5}
    with pytest.raises(error, match=words):
        pruner(PARAMS, FULL, counts, prunable=PRUNABLE)


def test_a_traced_fraction_is_refused_where_a_count_belongs():
    pruner = lth.prune(lth.magnitude(), lth.globally())
    run = jax.jit(lambda count: pruner(PARAMS, FULL, count, prunable=PRUNABLE))
    with pytest.raises(TypeError, match="`count` is traced, but it must be a whole number"):
        run(0.2)


@pytest.mark.parametrize("integer", [int, np.int8, np.int32, np.int64, np.uint16])
def test_integers_of_every_kind_are_numbers_of_weights(integer):
    assert lth.globally(minimum=integer(5)).counts(PARAMS, 0.4, prunable=PRUNABLE) == 80
    assert lth.schedules.linear(integer(2), 0.5)(1) == 0.75
    count = lth.globally(minimum=integer(5)).counts(PARAMS, 0.05, prunable=PRUNABLE)
    assert count == 10
    pruner = lth.prune(lth.random(), lth.globally(minimum=integer(5)))
    mask = pruner(PARAMS, FULL, integer(10), prunable=PRUNABLE, key=jax.random.key(0))
    assert [int(leaf.sum()) for leaf in jax.tree.leaves(mask)] == [5, 5]


@pytest.mark.parametrize("minimum", [np.float32(0.1), np.float64(0.1), 0.1])
def test_floats_of_every_kind_are_densities(minimum):
    with pytest.raises(ValueError, match="in each of 2 layers needs 20"):
        lth.globally(minimum=minimum).counts(PARAMS, 0.05, prunable=PRUNABLE)


@pytest.mark.parametrize("minimum", [-1, 1.5, -0.1, float("nan"), True, "5"])
def test_other_minima_are_refused(minimum):
    with pytest.raises(ValueError, match="`minimum` must be an integer >= 0 or a float in"):
        lth.globally(minimum=minimum)


X, Y = jnp.ones((4, 10)), jnp.ones((4, 10))


@pytest.mark.parametrize("name", ["saliency", "snip", "grasp", "fisher", "obd"])
@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        (Batch(X, Y), TypeError, "must be a list or tuple of batches"),
        (X, TypeError, "must be a list or tuple of batches"),
        ({"x": X, "y": Y}, TypeError, "must be a list or tuple of batches"),
        ((X, jnp.arange(4)), ValueError, r"array: float32\[10\].*int32\[\].*pass one batch as"),
        ([], ValueError, "`batches` is empty"),
    ],
)
def test_one_batch_where_several_belong_is_refused(name, batches, error, words):
    criterion = getattr(criteria, name)(lambda params, batch: jnp.mean(batch.x @ params["a"]))
    with pytest.raises(error, match=words):
        criterion(PARAMS, FULL, key=jax.random.key(0), batches=batches)


def test_a_ticket_is_not_read_into_another_dtype():
    data = coding.encode(FULL, PARAMS, prunable=PRUNABLE)
    like = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    with pytest.raises(ValueError, match="`like` has dtype bfloat16 at 'a', the ticket float32"):
        coding.decode(data, like=like)
    assert coding.decode(data, like=FULL).params["a"].dtype == np.float32
