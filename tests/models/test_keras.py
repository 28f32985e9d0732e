"""Keras models as pure functions, through pruning, ladders and ticket files, and back."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lth_jax as lth
from lth_jax import layouts, models, structure, trees
from lth_jax.layouts import DENSE, Layout, conv
from tests.keras_networks import NETWORKS, keras, kl

KEY, OTHER = jax.random.key(0), jax.random.key(1)
X = {
    "convnet": np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype(np.float32),
    "reader": np.array([[1, 2, 3, 4], [6, 5, 0, 1]]),
}
every = pytest.mark.parametrize("name", NETWORKS)


@functools.cache
def network(name):
    keras.utils.clear_session()
    made = NETWORKS[name]()
    return made, models.as_model(made)


@functools.cache
def drawn(name):
    return jax.jit(network(name)[1].init)(KEY, X[name])


@every
def test_outputs_are_those_of_the_model(name):
    made, _ = network(name)
    model = models.from_keras(made, initial="given")
    params, state = model.init(KEY, X[name])
    evaluate = jax.jit(functools.partial(model.apply, train=False))
    out, kept = evaluate(params, state, X[name])
    np.testing.assert_allclose(out, jax.jit(made)(X[name]), rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    assert {v.path for v in made.trainable_variables} == set(trees.names(params))


@every
@pytest.mark.slow
def test_keys_draw_the_initial_values_as_the_initializers_do(name):
    made, model = network(name)
    params, _ = drawn(name)
    keys = jnp.stack([KEY, OTHER])
    several = jax.jit(jax.vmap(lambda key: model.init(key, None)[0]))(keys)
    for leaf, both in zip(trees.names(params), jax.tree.leaves(several), strict=True):
        [given] = [np.asarray(v.value) for v in made.variables if v.path == leaf]
        np.testing.assert_array_equal(both[0], trees.to_named(params)[leaf])
        if leaf.endswith(("kernel", "embeddings")):
            assert not np.allclose(both[0], both[1]) and not np.allclose(both[0], given)
            if given.size > 100:
                assert np.std(both[0]) == pytest.approx(np.std(given), rel=0.2)
        else:
            np.testing.assert_array_equal(both[0], given)


@every
def test_training_draws_by_the_key_and_moves_the_state_alone(name):
    made, model = network(name)
    params, state = drawn(name)
    before = [np.asarray(v.value) for v in made.variables]
    run = jax.jit(lambda key: model.apply(params, state, X[name], key=key, train=True))
    (first, moved), (again, _), (other, _) = run(KEY), run(KEY), run(OTHER)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(moved), strict=True)
    changed = [not np.array_equal(a, b) for a, b in pairs]
    assert changed == [True] * (2 if name == "convnet" else 0)
    for old, variable in zip(before, made.variables, strict=True):
        np.testing.assert_array_equal(old, variable.value)
    with pytest.raises(ValueError, match="`key` must be given with `train=True`"):
        model.apply(params, state, X[name], train=True)


def test_layouts_state_inputs_outputs_windows_and_heads():
    images, words = (network(name)[1].layouts(None) for name in NETWORKS)
    assert images["grouped/kernel"] == images["deep/separable/pointwise_kernel"] == conv(2)
    assert images["deep/depth/kernel"] == Layout((), (2, 3), (0, 1))
    assert images["up/kernel"] == Layout((3,), (2,), (0, 1))
    assert words["recurrent/lstm_cell/recurrent_kernel"] == words["words/embeddings"] == DENSE
    assert words["attention/query/kernel"] == Layout((0,), (1, 2), heads=(1,))
    assert words["attention/attention_output/kernel"] == Layout((0, 1), (2,), heads=(0,))
    kernels = [n for name in NETWORKS for n in trees.names(drawn(name)[0]) if "kernel" in n]
    assert set(kernels) <= {*images, *words}


def test_kernels_are_pruned_to_the_exact_count():
    params, _ = drawn("convnet")
    prunable, scope = lth.prunable_leaves(params), lth.globally()
    count = scope.counts(params, 0.3, prunable=prunable)
    pruner = lth.prune(lth.magnitude(), scope)
    mask = pruner(params, lth.ones_like(params), count, prunable=prunable)
    assert lth.count_kept(mask, prunable) == count
    assert np.asarray(mask["norm"]["gamma"]).all()


@pytest.mark.slow
def test_the_page_runs_with_a_ladder_and_its_ticket_file(tmp_path, monkeypatch):
    keras.utils.clear_session()
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "keras.md").read_text()
    made: dict = {}
    exec("".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), made)
    first, second = made["result"].tickets(1)
    read = lth.load_ticket("one.ticket", like=first.mask)
    jax.tree.map(np.testing.assert_array_equal, read.params, first.initial)
    kernels = [one.initial["net"]["stem"]["kernel"] for one in (first, second)]
    assert not np.allclose(*kernels)
    assert made["smaller"].get_layer("stem").filters == 4
    assert made["net"].get_layer("stem").filters == 8


# Back to Keras.


def analysed(name):
    made, model = network(name)
    variables = dict(zip(("params", "state"), drawn(name), strict=True))

    def apply(variables, x):
        return model.apply(variables["params"], variables["state"], x, train=False)[0]

    return made, variables, structure.find_groups(apply, variables, X[name])


def halves(found, skip=()):
    groups = [g for g in found.groups if g.exact and g.name not in skip]
    return {g.name: np.arange(g.units) >= g.units // 2 for g in groups}


def back(name, skip=()):
    """`(the compact function, the smaller Keras model)` on the same weights."""
    made, variables, found = analysed(name)
    small, compact = structure.compact(found, variables, halves(found, skip))
    return made, jax.jit(lambda x: compact(small, x)), models.to_keras(made, **small)


@pytest.mark.slow
def test_a_compacted_convnet_is_a_smaller_keras_model():
    made, compact, small = back("convnet")
    assert structure.check_same(compact, jax.jit(small), X["convnet"]) < 1e-5
    assert small.get_layer("stem").filters == 3 and made.get_layer("stem").filters == 6
    assert small.count_params() < 0.6 * made.count_params()


def test_the_drift_of_smaller_heads_is_refused():
    _, compact, small = back("reader")
    with pytest.raises(ValueError, match="formula uses a width that changed"):  # √key_dim
        structure.check_same(compact, jax.jit(small), X["reader"])


def test_fewer_heads_and_recurrent_units_are_exact():
    _, _, found = analysed("reader")
    heads = [g.name for g in found.groups if g.exact and g.units == 2]
    sizes = [g.name for g in found.groups if g.exact and g.units == 3]
    _, compact, small = back("reader", skip=sizes)
    assert heads and small.get_layer("attention").num_heads == 1
    assert structure.check_same(compact, jax.jit(small), X["reader"]) < 1e-5


def test_weights_of_the_same_shapes_come_back():
    made, _ = network("reader")
    params, state = drawn("reader")
    new = models.to_keras(made, params, state)
    for old, variable in zip(made.trainable_variables, new.trainable_variables, strict=True):
        np.testing.assert_array_equal(variable.value, trees.to_named(params)[old.path])
    assert made.get_layer("logits").kernel is not new.get_layer("logits").kernel


class Own(kl.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(3,), name="scale")

    def call(self, x):
        return self.scale * x


def test_a_width_that_no_config_states_is_refused_by_its_leaf():
    made = keras.Sequential([keras.Input((2,)), kl.Dense(3, name="a"), Own(name="own")], name="net")
    params, state = models.from_keras(made).init(KEY, None)
    small = jax.tree.map(lambda leaf: leaf[..., :2], params)
    with pytest.raises(ValueError, match=r"whose layer 'own' \(Own\) cannot have the shapes"):
        models.to_keras(made, small, state)


# What is refused.


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.dense = kl.Dense(2, name="dense")

    def call(self, x):
        return self.dense(x)


def test_a_model_that_cannot_be_cloned_keeps_its_values():
    made = Subclassed()
    with pytest.raises(ValueError, match="'own', which has no variables yet"):
        models.from_keras(made)
    x = np.ones((1, 3), np.float32)
    expected = made(x)
    with pytest.raises(ValueError, match="`initial` is 'drawn', but Keras cannot clone"):
        models.from_keras(made)
    model = models.from_keras(made, initial="given")
    params, state = model.init(KEY, x)
    assert trees.names(params) == ["own/dense/bias", "own/dense/kernel"]
    np.testing.assert_allclose(model.apply(params, state, x, train=True)[0], expected, rtol=1e-6)


def test_bad_arguments_are_refused_in_a_sentence(monkeypatch):
    made, model = network("convnet")
    params, state = drawn("convnet")
    with pytest.raises(TypeError, match="must be a keras\\.Model, got Dense"):
        models.from_keras(kl.Dense(2))
    with pytest.raises(ValueError, match="`initial` is 'zeros'"):
        models.from_keras(made, initial="zeros")
    with pytest.raises(ValueError, match=r"`params` must have the leaves.*'stem/kernel'"):
        model.apply({**params, "stem": {}}, state, X["convnet"], train=False)
    monkeypatch.setattr(keras.config, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="'tensorflow', but must run on 'jax': set the environ"):
        models.from_keras(made)


class Twins(Subclassed):
    def __init__(self):
        super().__init__()
        self.other = kl.Dense(2, name="dense")

    def call(self, x):
        return self.other(self.dense(x))


def test_two_variables_of_one_path_are_refused():
    made = Twins()
    made(np.ones((1, 2)))
    with pytest.raises(ValueError, match="several variables below the path 'own/dense/bias'"):
        models.from_keras(made, initial="given")


def test_layouts_of_own_layers_can_be_registered(monkeypatch):
    monkeypatch.setattr(layouts.modules, "_TYPES", {})
    made = keras.Sequential([keras.Input((3,)), Own(name="own")], name="net")
    layouts.register(Own, lambda layer: {"scale": (Layout((), (0,)), ())})
    assert layouts.of_keras(made) == {"net/own/scale": Layout((), (0,))}
