"""Small helpers for pytrees: names of leaves, stacking of members, norms, checks."""

from typing import Any

import jax
import jax.numpy as jnp

KeyPath = tuple[Any, ...]
TreePath = tuple[str | int, ...]
"""The keys from the root of a tree to a leaf: strings for names, integers for positions."""


def path_keys(path: KeyPath) -> TreePath:
    """JAX's key path as strings (dictionary keys, attributes) and integers (positions).

    >>> [path_keys(path) for path, _ in jax.tree_util.tree_leaves_with_path({"a": [5.0]})]
    [('a', 0)]
    """

    def plain(entry: Any) -> str | int:
        found = next(
            (getattr(entry, k) for k in ("key", "idx", "name") if hasattr(entry, k)), entry
        )
        return found if isinstance(found, int) else str(found)

    return tuple(map(plain, path))


def path_name(path: KeyPath) -> str:
    """The name of a leaf: its key path joined by `/`, the same for every kind of container.

    Dictionary keys, attributes and positions are written plainly; the `.value` that a raw
    `nnx.State` puts at the end of each path is left out.

    >>> path_name(jax.tree_util.tree_leaves_with_path({"a": [1.0, 2.0]})[1][0])
    'a/1'
    """
    parts = list(map(str, path_keys(path)))
    if parts and parts[-1] == "value" and not isinstance(path[-1], jax.tree_util.DictKey):
        parts.pop()
    return "/".join(parts)


def names(tree: Any) -> list[str]:
    """The names of all leaves, in the order of `jax.tree.leaves`.

    >>> names({"dense": {"kernel": 1.0, "bias": 0.0}})
    ['dense/bias', 'dense/kernel']
    """
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def to_named(tree: Any) -> dict[str, Any]:
    """All leaves by name, in a flat dictionary: a tree as files and tables hold it.

    Raises:
      ValueError: if two leaves have the same name.

    >>> to_named({"dense": {"kernel": 1.0}})
    {'dense/kernel': 1.0}
    """
    found = names(tree)
    if len(set(found)) < len(found):
        twice = sorted({name for name in found if found.count(name) > 1})
        raise ValueError(f"`tree` has several leaves of one name: {twice[:3]}.")
    return dict(zip(found, jax.tree.leaves(tree), strict=True))


def from_named(named: dict[str, Any], like: Any) -> Any:
    """The inverse of `to_named`: the leaves of `named` in the structure of `like`.

    Raises:
      ValueError: if the names are not those of `like`.

    >>> from_named({"a/b": 1.0}, {"a": {"b": 0.0}})
    {'a': {'b': 1.0}}
    """
    wanted = names(like)
    if set(wanted) != set(named):
        odd = sorted(set(wanted) ^ set(named))
        raise ValueError(f"`named` must hold the leaves of `like`; they differ at {odd[:3]}.")
    return jax.tree.unflatten(jax.tree.structure(like), [named[name] for name in wanted])


def map_named(f: Any, tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` whose function also gets the leaf's name: `f(name, leaf, *leaves)`.

    >>> map_named(lambda name, leaf: f"{name}:{leaf}", {"a": 1})
    {'a': 'a:1'}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: f(path_name(path), *leaves), tree, *rest
    )


def stack(trees: list[Any]) -> Any:
    """Stacks trees of one structure along a new first axis: members become a population.

    >>> stack([{"w": jnp.zeros(3)}, {"w": jnp.ones(3)}])["w"].shape
    (2, 3)
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: Any) -> list[Any]:
    """The inverse of `stack`: a list of trees, one per index of the first axis.

    >>> [t["w"].shape for t in unstack({"w": jnp.zeros((2, 3))})]
    [(3,), (3,)]
    """
    return [index(tree, i) for i in range(jax.tree.leaves(tree)[0].shape[0])]


def index(tree: Any, i: Any) -> Any:
    """`leaf[i]` for every leaf: one member (an integer) or several (a slice or an index array).

    >>> index({"w": jnp.arange(3)}, 1)["w"].item()
    1
    """
    return jax.tree.map(lambda leaf: leaf[i], tree)


def where(condition: Any, yes: Any, no: Any) -> Any:
    """`jnp.where(condition, yes, no)` leaf by leaf for a scalar condition; keys are allowed."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def equal(a: Any, b: Any) -> jax.Array:
    """Whether two trees of one structure hold the same values: bool, shape `()`."""
    pairs = jax.tree.map(lambda x, y: jnp.all(x == y), a, b)
    return jnp.all(jnp.array(jax.tree.leaves(pairs), bool))


def vdot(a: Any, b: Any) -> jax.Array:
    """The inner product of two trees, `Σ aᵢ bᵢ` over all leaves.

    >>> vdot({"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, 4.0])}).item()
    11.0
    """
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)), start=jnp.zeros(()))


def size(tree: Any) -> int:
    """The number of entries in all leaves together.

    >>> size({"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)})
    9
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def check_same_structure(name: str, tree: Any, like_name: str, like: Any) -> None:
    """Raises `ValueError` unless `tree` has the structure and the leaf shapes of `like`."""
    here: Any = jax.tree.structure(tree)
    there: Any = jax.tree.structure(like)
    if here != there:
        odd = sorted(set(names(tree)) ^ set(names(like)))
        where_ = f"; they differ at {odd[:3]}" if odd else f": {here} against {there}"
        raise ValueError(f"`{name}` must have the structure of `{like_name}`{where_}.")
    for leaf_name, a, b in zip(
        names(like), jax.tree.leaves(tree), jax.tree.leaves(like), strict=True
    ):
        if jnp.shape(a) != jnp.shape(b):
            raise ValueError(
                f"`{name}` at '{leaf_name}' has shape {jnp.shape(a)}, "
                f"but `{like_name}` has {jnp.shape(b)} there."
            )
