"""The layers of any function: which leaf enters which matrix product, and how."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import text, trees
from lth_jax.reconstruct.views import View
from lth_jax.reconstruct.walk import Site, walk
from lth_jax.structure.graph import Block, trace
from lth_jax.types import Params


@dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """The weights of one matrix product, or of several products that use the same weights.

    Attributes:
      name: of the leaf; `leaf[i]` where a leaf holds several layers, as in a scanned stack, in the
        order of their places in the leaf.
      leaf: the position of the leaf among the leaves of the parameters.
      primitive: the product's.
      groups: the number of matrices: groups of a convolution, experts; 1 for a dense layer.
      inputs: rows of each matrix; channels times window for a convolution.
      outputs: columns of each matrix.
      sites: the number of products that use these weights.
      first: the first flat position of its weights in the leaf.
      key: what equal layers of two traces have in common.
    """

    name: str
    leaf: int
    primitive: str
    groups: int
    inputs: int
    outputs: int
    sites: int
    first: int
    key: tuple[int, str]
    _view: View
    _matrix: Callable[[Any], Any]
    _shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of weights."""
        return self.groups * self.inputs * self.outputs

    def places(self) -> np.ndarray:
        """The flat position in the leaf of each weight, int32 `(groups, inputs, outputs)`."""
        return _places(self._view, self._matrix, self._shape)

    def read(self, leaf: Any) -> jax.Array:
        """The matrices `(groups, inputs, outputs)` in an array shaped like the leaf."""
        return _take(leaf, self.places())

    def write(self, leaf: Any, matrices: jax.Array) -> jax.Array:
        """The array with these matrices instead, in its dtype."""
        return _put(leaf, self.places(), matrices)

    @property
    def matrix(self) -> str:
        """The shape in words: `inputs×outputs`, after the number of groups if there are several."""
        groups = f"{self.groups}×" if self.groups > 1 else ""
        return f"{groups}{self.inputs}×{self.outputs}"

    def __repr__(self) -> str:
        return f"Layer({self.name}, {self.primitive}, {self.matrix})"


@jax.jit
def _take(leaf: jax.Array, places: jax.Array) -> jax.Array:
    return leaf.reshape(-1)[places]


@jax.jit
def _put(leaf: jax.Array, places: jax.Array, matrices: jax.Array) -> jax.Array:
    return leaf.reshape(-1).at[places].set(matrices.astype(leaf.dtype)).reshape(leaf.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Layers:
    """What `find_layers` found; iterable.

    Attributes:
      layers: in the order in which the function first uses them.
      others: by the name of the leaf, why it is no layer.
      also: by the name of the leaf of a layer, which other primitives read it.
      block: the function's program.
      order: the keys of the layers in the order of the products.
    """

    layers: tuple[Layer, ...]
    others: dict[str, str]
    also: dict[str, tuple[str, ...]]
    block: Block
    order: tuple[tuple[int, str], ...]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, name: str) -> Layer:
        """The layer of this name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer is called {name!r}; there are {[x.name for x in self.layers]}")

    def __repr__(self) -> str:
        rows = [(x.name, x.primitive, x.matrix, str(x.sites)) for x in self.layers]
        return text.table(("layer", "product", "matrix", "sites"), rows)


def find_layers(f: Callable[[Params, Any], Any], params: Params, batch: Any) -> Layers:
    """The layers of `f(params, batch)`, read off its jaxpr; nothing is computed.

    A layer is a product `Y = X W` of data and of entries of one leaf, which may have been reshaped,
    transposed, sliced, split or converted: `dot_general` (dense layers, einsum, attention
    projections; experts as groups), `ragged_dot`, convolutions (X are the patches; groups,
    strides and dilations too) and what `products.RULES` adds. Each layer of a scanned stack is a
    layer. A leaf in several products of the same matrix (tied layers, a recurrent cell) is one
    layer with several sites.

    Args:
      f: a jittable function of the parameters and one batch of inputs.
      params: tree of arrays or `jax.ShapeDtypeStruct`s.
      batch: tree of arrays or `jax.ShapeDtypeStruct`s.

    Raises:
      ValueError: `f` is not jittable.

    >>> def mlp(params, x):
    ...     return jax.nn.relu(x @ params["a"]) @ params["b"].T + params["c"]
    >>> params = {"a": jnp.ones((4, 8)), "b": jnp.ones((2, 8)), "c": jnp.ones(2)}
    >>> found = find_layers(mlp, params, jnp.ones((16, 4)))
    >>> found
    layer  product      matrix  sites
    a      dot_general  4×8         1
    b      dot_general  8×2         1
    >>> found.others
    {'c': 'no matrix product reads it, but add'}
    """
    block, _ = trace(f, params, batch)
    leaves = jax.tree.leaves(params)
    sites: list[_Found] = []
    uses: defaultdict[int, dict[str, None]] = defaultdict(dict)

    def run(arrays: list[Any], data: list[Any]) -> None:
        views = [View(k) for k in range(len(arrays))]
        for event in walk(block, [*views, *data], arrays):
            if isinstance(event, Site):
                sites.append(_found(event, arrays[event.view.leaf].shape))
            else:
                uses[event.leaf][event.primitive] = None

    jax.eval_shape(run, leaves, jax.tree.leaves(batch))
    names = trees.names(params)
    clashes = _clashes(sites)
    others = {}
    for k, name in enumerate(names):
        if k in clashes:
            others[name] = clashes[k]
        elif all(site.key[0] != k for site in sites):
            others[name] = "no matrix product reads it" + (
                f", but {', '.join(uses[k])}" if uses[k] else ""
            )
    used = [site for site in sites if site.key[0] not in clashes]
    return Layers(
        layers=_layers(used, names),
        others=others,
        also={names[k]: tuple(uses[k]) for k in {s.key[0]: None for s in used} if uses[k]},
        block=block,
        order=tuple(site.key for site in sites),
    )


class _Found(NamedTuple):
    """A site as it stays after the trace; `shape` is that of its matrices."""

    key: tuple[int, str]
    primitive: str
    shape: tuple[int, int, int]
    first: int
    view: View
    matrix: Callable[[Any], Any]
    leaf_shape: tuple[int, ...]


def _found(site: Site, shape: tuple[int, ...]) -> _Found:
    places = _places(site.view, site.product.matrix, shape)
    digest = hashlib.sha256(repr(places.shape).encode() + places.tobytes()).hexdigest()
    key = (site.view.leaf, digest)
    return _Found(
        key, site.primitive, places.shape, int(places.min()), site.view, site.product.matrix, shape
    )


def _places(view: View, matrix: Callable[[Any], Any], shape: tuple[int, ...]) -> np.ndarray:
    with jax.ensure_compile_time_eval():
        return np.asarray(matrix(jnp.asarray(view.places(shape))))


def _clashes(sites: list[_Found]) -> dict[int, str]:
    """The leaves whose weights stand in two different matrices, or twice in one."""
    found: dict[int, str] = {}
    covered: dict[int, np.ndarray] = {}
    for site in {site.key: site for site in sites}.values():
        leaf, places = site.key[0], _places(site.view, site.matrix, site.leaf_shape).ravel()
        here = covered.setdefault(leaf, np.zeros(np.prod(site.leaf_shape, dtype=int), bool))
        if len(np.unique(places)) < len(places):
            found[leaf] = "a product reads some of its weights twice"
        elif here[places].any():
            found[leaf] = "it enters matrix products along different axes"
        here[places] = True
    return found


def _layers(sites: list[_Found], names: list[str]) -> tuple[Layer, ...]:
    grouped: defaultdict[tuple[int, str], list[_Found]] = defaultdict(list)
    for site in sites:
        grouped[site.key].append(site)
    of_leaf: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    for key in sorted(grouped, key=lambda key: grouped[key][0].first):
        of_leaf[key[0]].append(key)

    def layer(key: tuple[int, str], found: list[_Found]) -> Layer:
        first, beside = found[0], of_leaf[key[0]]
        number = f"[{beside.index(key)}]" if len(beside) > 1 else ""
        groups, inputs, outputs = first.shape
        return Layer(
            name=f"{names[key[0]]}{number}",
            leaf=key[0],
            primitive=first.primitive,
            groups=groups,
            inputs=inputs,
            outputs=outputs,
            sites=len(found),
            first=first.first,
            key=key,
            _view=first.view,
            _matrix=first.matrix,
            _shape=first.leaf_shape,
        )

    return tuple(layer(key, found) for key, found in grouped.items())
