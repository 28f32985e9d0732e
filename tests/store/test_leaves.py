import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.store import leaves as lv


def names(tree):
    return [leaf.name for leaf in lv.leaves(tree)]


def test_names_follow_every_kind_of_container():
    state = optax.trace(0.9).init({"w": jnp.ones(2)})
    assert names({"a": [1.0, {"b": 2.0}]}) == ["a/0", "a/1/b"]
    assert names(state) == ["trace/w"]
    assert names(jnp.ones(3)) == names({"": 1.0}) == ["value"]


def test_leaves_are_copies():
    array = np.zeros(3)
    (leaf,) = lv.leaves(array)
    array[0] = 1.0
    assert leaf.array[0] == 0.0


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_typed_keys_come_back_as_themselves(impl):
    keys = jax.random.split(jax.random.key(0, impl=impl), 3)
    (leaf,) = lv.leaves(keys)
    again = lv.value(leaf)
    assert again.dtype == keys.dtype
    np.testing.assert_array_equal(jax.random.key_data(again), jax.random.key_data(keys))


@pytest.mark.parametrize("bad", ["text", object(), np.array([None]), np.array(["2020"], "M8[Y]")])
def test_what_is_no_array_is_refused_by_name(bad):
    with pytest.raises(TypeError, match="`tree` at 'a/0' must be an array"):
        list(lv.leaves({"a": [bad]}))


def test_nest_undoes_leaves_for_dicts_and_lists():
    tree = {"a": [1, {"b": 2}, []], "c": {}, "d": {"e": {"f": 3}}}
    pairs = [(leaf.path, int(leaf.array)) for leaf in lv.leaves(tree)]
    assert lv.nest(pairs + lv.empties(tree)) == tree


def test_nest_keeps_integer_keys_that_are_no_positions():
    assert lv.nest([((0,), "a"), ((2,), "b")]) == {0: "a", 2: "b"}
