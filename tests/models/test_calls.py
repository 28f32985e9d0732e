"""Flags, unbound axes, outputs and keys: the calls that adapters read from signatures."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from lth_jax.models import from_equinox, from_haiku, from_linen, from_nnx
from lth_jax.models.adapters.calls import FLAGS

X = jnp.float32(np.random.default_rng(3).normal(size=(4, 3)))
KEY = jax.random.key(0)
FRAMEWORKS = ("linen", "nnx", "equinox", "haiku")


def function(signature, body, **names):
    """A function whose signature is text: `(x, *, train)`."""
    space: dict[str, Any] = names
    exec(f"def call({signature}):\n    return {body}", space)
    return space["call"]


def network(framework, signature="", body="x", **names):
    """A network without parameters whose call has a signature; the Model's constructor is not run.

    Returns the adapter with the network as its only argument left out by `functools.partial`.
    """
    extra = f", {signature}" if signature else ""
    if framework == "haiku":
        return functools.partial(from_haiku, hk.transform(function("x" + extra, body, **names)))
    call = function("self, x" + extra, body, **names)
    if framework == "linen":
        return functools.partial(from_linen, type("Net", (nn.Module,), {"__call__": call})())
    if framework == "nnx":
        return functools.partial(
            from_nnx, lambda rngs: type("Net", (nnx.Module,), {"__call__": call})()
        )
    return functools.partial(
        from_equinox, lambda key: type("Net", (eqx.Module,), {"__call__": call})()
    )


def run(model, train, key=KEY):
    params, state = model.init(KEY, X)
    return model.apply(params, state, X, key=key, train=train)[0]


every = pytest.mark.parametrize("framework", FRAMEWORKS)


@every
@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("form", ["{}", "*, {}", "{}=None", "mask=None, {}=False"])
def test_every_flag_is_found_and_set(framework, flag, form):
    model = network(framework, form.format(flag), f"x + 1.0 * {flag}")()
    for train in (True, False):
        np.testing.assert_allclose(run(model, train), X + (FLAGS[flag] == train), rtol=1e-6)


@every
def test_a_call_without_a_flag_is_the_same_in_both(framework):
    for train in (True, False):
        np.testing.assert_allclose(run(network(framework, body="2 * x")(), train), 2 * X)


@every
def test_several_flags_are_ambiguous_until_one_is_chosen(framework):
    make = network(framework, "train=None, deterministic=True", "x + 1.0 * (not deterministic)")
    with pytest.raises(ValueError, match=r"`flag` must choose between `train` and `determinis.*"):
        make()
    np.testing.assert_allclose(run(make(flag="deterministic"), True), X + 1)
    np.testing.assert_allclose(run(make(flag="none"), True), X)


@every
def test_bad_flags_and_missing_arguments_are_refused(framework):
    make = network(framework, "train=True")
    with pytest.raises(ValueError, match=r"`flag` is 'training_.*must be one of: .*auto"):
        make(flag="training_mode")
    with pytest.raises(ValueError, match=r"`flag` is 'deterministic', but .* takes `train`"):
        make(flag="deterministic")
    with pytest.raises(TypeError, match=r"callable with one input, but requires `length` and `ma"):
        network(framework, "mask, train, *, length")()


@pytest.mark.parametrize("framework", ["linen", "haiku"])
def test_any_keyword_is_ambiguous_where_the_call_alone_decides(framework):
    make = network(framework, "**kwargs", "x + 1.0 * kwargs.get('training', 0.5)")
    with pytest.raises(
        ValueError, match=r"`flag` must name the keyword with which .*takes `\*\*kwargs`"
    ):
        make()
    np.testing.assert_allclose(run(make(flag="training"), True), X + 1)
    np.testing.assert_allclose(run(make(flag="none"), True), X + 0.5)


@every
def test_a_tuple_is_refused_until_an_output_is_chosen(framework):
    make = network(framework, body="(x, 2 * x)")
    with pytest.raises(
        TypeError, match=r"returns a tuple of 2; choose the part for the loss with `o"
    ):
        run(make(), True)
    np.testing.assert_allclose(run(make(output=lambda out: out[1]), False), 2 * X)
    assert isinstance(run(make(output=lambda out: out), False), tuple)


@pytest.mark.parametrize("name", FLAGS)
def test_a_field_of_a_linen_module_is_a_flag(name):
    call = function("self, x", f"x + 1.0 * self.{name}")
    Net = type("Net", (nn.Module,), {"__call__": call, "__annotations__": {name: bool}})
    for fixed in (True, False):
        model = from_linen(Net(**{name: fixed}))
        for train in (True, False):
            np.testing.assert_allclose(run(model, train), X + (FLAGS[name] == train))


def test_a_flag_set_in_the_constructor_of_a_linen_module_is_no_conflict():
    for fixed in (None, True, False):
        model = from_linen(nn.Dropout(0.5, deterministic=fixed))
        np.testing.assert_array_equal(run(model, False, None), X)
        assert (np.asarray(run(model, True)) == 0).any()


def test_flax_layers_and_sequences_of_them_are_networks():
    for train in (True, False):
        assert run(from_linen(nn.Sequential([nn.Dense(2), nn.relu])), train).shape == (4, 2)
        model = from_nnx(lambda rngs: nnx.Sequential(nnx.Linear(3, 2, rngs=rngs), nnx.relu))
        assert run(model, train).shape == (4, 2)


def test_nnx_attributes_named_training_are_set():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.training = self.is_training = None

        def __call__(self, x):
            return x + 1.0 * self.training + 2.0 * self.is_training

    model = from_nnx(Net)
    np.testing.assert_allclose(run(model, True), X + 3)
    np.testing.assert_allclose(run(model, False), X)


@pytest.mark.parametrize("signature", ["rngs", "*, rngs=None", "rngs=None, train=True"])
@pytest.mark.parametrize("framework", ["linen", "nnx"])
def test_a_call_gets_rngs(framework, signature):
    draw = {
        "linen": lambda x, rngs: x + jax.random.normal(rngs["dropout"], x.shape) if rngs else x,
        "nnx": lambda x, rngs: x + jax.random.normal(rngs.dropout(), x.shape) if rngs else x,
    }[framework]
    model = network(framework, signature, "draw(x, rngs)", draw=draw)()
    first, again, other = (run(model, True, jax.random.key(i)) for i in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other) and not np.allclose(first, X)
    assert np.isfinite(run(model, False, None)).all()


class Streams(nn.Module):
    """Draws from two streams; the second is shared by steps of a scan that share weights too."""

    @nn.compact
    def __call__(self, x, train):
        def step(module, carry, _):
            return carry, jax.random.normal(module.make_rng("noise"), (3,))

        if not train:
            return {"drop": x, "noise": x}
        drop = nn.Dropout(0.5, deterministic=False)(jnp.ones((3, 100)))
        scan = nn.scan(step, split_rngs={"params": False, "noise": True}, length=4)
        return {"drop": drop, "noise": scan(self, (), None)[1]}


def test_linen_streams_have_the_names_that_the_module_asks_for():
    model = from_linen(Streams())
    first, again, other = (run(model, True, jax.random.key(i)) for i in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not any(np.allclose(first[name], other[name]) for name in first)
    assert len({tuple(row) for row in np.asarray(first["noise"])}) == 4  # not one key for all steps
    given = Streams().apply({}, X, True, rngs={"dropout": jax.random.key(1), "noise": KEY})
    np.testing.assert_array_equal(first["drop"], given["drop"])


# Axes


class LinenNorm(nn.Module):
    axis: str | None

    @nn.compact
    def __call__(self, x, train):
        norm = nn.BatchNorm(use_running_average=not train, axis_name=self.axis, momentum=0.5)
        return norm(nn.Dense(2)(x))


class NNXNorm(nnx.Module):
    def __init__(self, axis, rngs):
        self.dense = nnx.Linear(3, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, axis_name=axis, momentum=0.5, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.dense(x))


def normalised(framework, axis):
    if framework == "linen":
        return from_linen(LinenNorm(axis))
    if framework == "nnx":
        return from_nnx(lambda rngs: NNXNorm(axis, rngs))
    net = lambda x, is_training: hk.BatchNorm(True, True, 0.5, cross_replica_axis=axis)(  # noqa: E731
        hk.Linear(2)(x), is_training
    )
    return from_haiku(hk.transform_with_state(net))


@pytest.mark.parametrize("framework", ["linen", "nnx", "haiku"])
def test_an_unbound_axis_is_the_whole_batch_and_a_bound_one_is_the_callers(framework):
    plain, named = normalised(framework, None), normalised(framework, "batch")

    @jax.jit
    def everything():
        params, state = plain.init(KEY, X)

        def step(model, x):
            return model.apply(params, state, x, key=KEY, train=True)

        whole = step(plain, X)
        return {
            "init": ((params, state), named.init(KEY, X)),
            "one batch": (whole, step(named, X)),
            "bound by the caller": (
                whole,
                jax.vmap(lambda x: step(named, x), axis_name="batch")(X.reshape(2, 2, 3)),
            ),
            "members": (
                jnp.stack([whole[0], step(plain, X**2)[0]]),
                jax.vmap(lambda x: step(named, x)[0])(jnp.stack([X, X**2])),
            ),
            "evaluation": tuple(
                model.apply(params, whole[1], X, train=False)[0] for model in (plain, named)
            ),
        }

    found = everything()
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    for case in ("init", "one batch", "members", "evaluation"):
        jax.tree.map(close, *found[case])
    (out, state), (halves, moved) = found["bound by the caller"]
    close(halves.reshape(4, 2), out)
    jax.tree.map(lambda a, b: close(a, b[0]), state, moved)


def test_an_axis_whose_name_is_no_string_is_refused():
    class Name:
        __repr__ = lambda self: "rows"  # noqa: E731

    model = network("linen", body="lax.pmean(x, name)", lax=jax.lax, name=Name())()
    with pytest.raises(ValueError, match="An axis name must be a string, got rows"):
        run(model, True)


def test_other_name_errors_are_not_hidden():
    with pytest.raises(NameError, match="undefined_name"):
        run(network("linen", body="undefined_name")(), True)


# Equinox


class Counter(eqx.Module):
    """Counts batches, or stores a value of each example."""

    index: eqx.nn.StateIndex
    steps: jax.Array
    per_example: bool = eqx.field(static=True)

    def __init__(self, per_example):
        self.index, self.steps = eqx.nn.StateIndex(jnp.zeros(())), jnp.arange(3)
        self.per_example = per_example

    def __call__(self, x, state):
        value = x.sum() if self.per_example else state.get(self.index) + 1
        return x + self.steps, state.set(self.index, value)


def test_equinox_state_moves_in_training_only():
    model = from_equinox(lambda key: eqx.nn.make_with_state(Counter)(False))
    params, state = model.init(KEY, X)
    assert sorted(leaf.shape for leaf in state.values()) == [(), (3,)]
    assert jax.tree.leaves(params) == []
    for _ in range(2):  # the same state twice: nothing in it is used up
        out, moved = model.apply(params, state, X, train=True)
    np.testing.assert_allclose(out, X + jnp.arange(3))
    assert sorted(float(leaf) for leaf in moved.values() if leaf.ndim == 0) == [1.0]
    _, same = model.apply(params, moved, X, train=False)
    jax.tree.map(np.testing.assert_array_equal, same, moved)


def test_equinox_state_of_each_example_is_refused():
    model = from_equinox(lambda key: eqx.nn.make_with_state(Counter)(True))
    with pytest.raises(
        ValueError, match=r"Counter computes a separate `State` for each example; aver"
    ):
        run(model, True)


def test_equinox_state_must_come_with_its_module():
    with pytest.raises(ValueError, match=r"`make` must return a module and its `State`: use `eq"):
        from_equinox(lambda key: Counter(False))


def test_equinox_layers_with_two_axes_are_refused():
    def make(key):
        layers = [eqx.nn.BatchNorm(3, axis_name=name, mode="batch") for name in ("a", "b")]
        return eqx.nn.make_with_state(eqx.nn.Sequential)(layers)

    with pytest.raises(ValueError, match="Sequential names the axes 'a', 'b', but examples have"):
        from_equinox(make)


def test_an_equinox_module_may_take_the_whole_batch():
    call = function("self, x, key=None", "x - x.mean(0)")
    Net = type("Net", (eqx.Module,), {"__call__": call})
    np.testing.assert_allclose(
        run(from_equinox(lambda key: Net(), batched=True), True), X - X.mean(0)
    )


def test_equinox_parameters_are_a_filtered_module():
    make = functools.partial(eqx.nn.MLP, 3, 2, 4, 1)
    model = from_equinox(lambda key: make(key=key))
    params, _ = model.init(KEY, X)
    module = make(key=jax.random.key(1))
    trained = eqx.combine(params, eqx.filter(module, eqx.is_inexact_array, inverse=True))
    np.testing.assert_allclose(jax.vmap(trained)(X), run(model, False), rtol=1e-6)
    structures = [jax.tree.structure(model.init(jax.random.key(i), X)[0]) for i in range(2)]
    assert structures[0] == structures[1]


# Keys


class Dropping(nnx.Module):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(x)


def dropping(framework):
    if framework == "linen":
        return from_linen(nn.Dropout(0.5))
    if framework == "nnx":
        return from_nnx(Dropping)
    if framework == "equinox":
        return from_equinox(lambda key: eqx.nn.Dropout(0.5))
    drop = lambda x, train: hk.dropout(hk.next_rng_key(), 0.5, x) if train else x  # noqa: E731
    return from_haiku(hk.transform(drop))


@every
def test_training_with_dropout_needs_a_key(framework):
    with pytest.raises(ValueError, match="`key` must be given with `train=True`"):
        run(dropping(framework), True, None)
    np.testing.assert_array_equal(run(dropping(framework), False, None), X)


def test_evaluation_that_draws_or_moves_its_state_is_explained():
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dropout(0.5, deterministic=False)(x)

    class Moving(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=False)(x)

    with pytest.raises(ValueError, match=r"Noisy draws random numbers with `train=False`; give"):
        run(from_linen(Noisy()), False, None)
    assert run(from_linen(Noisy()), False).shape == X.shape
    with pytest.raises(ValueError, match=r"Moving changes its state with `train=False`; it must"):
        run(from_linen(Moving()), False)


@every
def test_what_is_no_network_is_refused(framework):
    make = {
        "linen": lambda: from_linen(3),  # type: ignore[arg-type]
        "nnx": lambda: from_nnx(lambda rngs: 3),  # type: ignore[arg-type,return-value]
        "equinox": lambda: from_equinox(lambda key: 3),
        "haiku": lambda: from_haiku(lambda x: x),
    }[framework]
    with pytest.raises(TypeError, match=r"must (be|return) .*, got (int|function|ShapeDt.*)"):
        make()


def test_a_pair_of_functions_like_haikus_is_enough():
    class Pair(NamedTuple):
        init: Any
        apply: Any

    def init(rng, x):
        return {"w": jnp.ones(3)}, {"n": jnp.zeros(())}

    def apply(params, state, x):
        return x * params["w"], {"n": state["n"] + 1}

    model = from_haiku(Pair(init, apply))
    params, state = model.init(KEY, X)
    out, moved = model.apply(params, state, X, train=True)
    np.testing.assert_array_equal(out, X)
    assert (moved["n"], model.apply(params, state, X, train=False)[1]["n"]) == (1, 0)
