"""Finds the layers of a function: the matrix products of data and entries of a leaf."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

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
      name: name of the leaf; `leaf[i]` if a leaf holds several layers, as in a scanned stack, in
        the order of their places in the leaf.
      leaf: the position of the leaf among the leaves of the parameters.
      primitive: name of the product's primitive.
      groups: the number of matrices: groups of a convolution, experts; 1 for a dense layer.
      inputs: rows of each matrix; channels times window for a convolution.
      outputs: columns of each matrix.
      sites: the number of products that use these weights.
      first: the first flat position of its weights in the leaf.
      key: equal for the same layer of two traces.
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
        """The shape as text: `inputs×outputs`, after the number of groups if there are several."""
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
    """The result of `find_layers`; iterable.

    Attributes:
      layers: the layers, in the order in which the function first uses them.
      others: leaf name to the reason why the leaf is not a layer.
      also: name of a layer's leaf to the other primitives that read it.
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
    {'c': 'not read by a matrix product; read by add'}
    """
    block, _ = trace(f, params, batch)
    names = trees.names(params)
    sites: list[Layer] = []
    uses: defaultdict[int, dict[str, None]] = defaultdict(dict)

    def run(arrays: list[Any], data: list[Any]) -> None:
        views = [View(k) for k in range(len(arrays))]
        for event in walk(block, [*views, *data], arrays):
            if isinstance(event, Site):
                leaf = event.view.leaf
                sites.append(_layer_at(event, names[leaf], arrays[leaf].shape))
            else:
                uses[event.leaf][event.primitive] = None

    jax.eval_shape(run, jax.tree.leaves(params), jax.tree.leaves(batch))
    clashes = _clashes(sites)
    others = dict(clashes)
    for k, name in enumerate(names):
        if all(site.leaf != k for site in sites):
            reason = "not read by a matrix product"
            others[name] = f"{reason}; read by {', '.join(uses[k])}" if uses[k] else reason
    layers = _named(sites, clashes)
    return Layers(
        layers=layers,
        others=others,
        also={names[x.leaf]: tuple(uses[x.leaf]) for x in layers if uses[x.leaf]},
        block=block,
        order=tuple(site.key for site in sites),
    )


def _layer_at(site: Site, name: str, shape: tuple[int, ...]) -> Layer:
    """The layer of one product."""
    matrix = site.product.matrix
    places = _places(site.view, matrix, shape)
    groups, inputs, outputs = places.shape
    digest = hashlib.sha256(repr(places.shape).encode() + places.tobytes()).hexdigest()
    return Layer(
        name=name,
        leaf=site.view.leaf,
        primitive=site.primitive,
        groups=groups,
        inputs=inputs,
        outputs=outputs,
        sites=1,
        first=int(places.min()),
        key=(site.view.leaf, digest),
        _view=site.view,
        _matrix=matrix,
        _shape=shape,
    )


def _places(view: View, matrix: Callable[[Any], Any], shape: tuple[int, ...]) -> np.ndarray:
    with jax.ensure_compile_time_eval():
        return np.asarray(matrix(jnp.asarray(view.places(shape))))


def _clashes(sites: list[Layer]) -> dict[str, str]:
    """The leaves with a weight in two different matrices, or twice in one, and the reason."""
    found: dict[str, str] = {}
    covered: dict[str, np.ndarray] = {}
    for site in {site.key: site for site in sites}.values():
        places = site.places().ravel()
        here = covered.setdefault(site.name, np.zeros(math.prod(site._shape), bool))
        if len(np.unique(places)) < len(places):
            found[site.name] = "a product reads some of its weights twice"
        elif here[places].any():
            found[site.name] = "it enters matrix products along different axes"
        here[places] = True
    return found


def _named(sites: list[Layer], clashes: dict[str, str]) -> tuple[Layer, ...]:
    """Each layer once, with its number of sites, numbered where its leaf holds several."""
    counts = Counter(site.key for site in sites)
    once = {site.key: site for site in sites if site.name not in clashes}
    beside: defaultdict[str, list[Any]] = defaultdict(list)
    for layer in sorted(once.values(), key=lambda layer: layer.first):
        beside[layer.name].append(layer.key)

    def named(layer: Layer) -> Layer:
        together = beside[layer.name]
        number = f"[{together.index(layer.key)}]" if len(together) > 1 else ""
        return replace(layer, name=layer.name + number, sites=counts[layer.key])

    return tuple(map(named, once.values()))
