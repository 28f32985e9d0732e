"""Reconstruction between the levels of a ladder, as one pure function of a network."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.legal import nearest
from lth_jax.pruning.checks import check_prunable
from lth_jax.pruning.masks import apply_mask
from lth_jax.reconstruct.keep import select
from lth_jax.reconstruct.layers import Layer, Layers
from lth_jax.reconstruct.methods.method import LayerMethod
from lth_jax.reconstruct.prune import check_method, check_rows, mask_others, solve_groups
from lth_jax.reconstruct.stream import Stream
from lth_jax.types import Info, Mask, Params, Prunable

MASKS = ("criterion", "method")
STARTS = ("reconstructed", "rewound")


class Reconstruction(NamedTuple):
    """Updates the trained weights of a level for its mask; `Spec.reconstruct` of a ladder.

    The layers are those of `find_layers`; each is fitted on the inputs that it gets in the network
    whose earlier layers are pruned and fitted already. Pure: it runs under `jax.jit` and
    `jax.vmap`. Weights that were pruned before stay pruned, and every layer keeps as many weights
    as in the given mask.

    Attributes:
      method: a method of `lth.reconstruct`, such as `refit()` or `sparse_gpt()`.
      mask: `"criterion"`: the mask of the ladder's criterion. `"method"`: each layer keeps as many
        weights as in that mask; `method` chooses them among the live ones.
      start: `"reconstructed"`: the ticket starts from the fitted weights instead of rewinding.
        `"rewound"`: it starts as the ladder's `rewind` states; only the mask is used.
    """

    method: LayerMethod
    mask: Literal["criterion", "method"] = "criterion"
    start: Literal["reconstructed", "rewound"] = "reconstructed"

    @property
    def chooses(self) -> bool:
        """Whether the method chooses the mask."""
        return self.mask == "method"

    @property
    def name(self) -> str:
        """A short description for reports: method, mask and start."""
        return f"{self.method.name}, mask of {self.mask}, {self.start} start"

    def check(self) -> None:
        """Raises unless the parts are legal and have an effect.

        Raises:
          ValueError: an option is unknown, `method` has damping 0, or the ticket would be that of
            the ladder without reconstruction.
          TypeError: `method` is not a `LayerMethod`.
        """
        check_method(self.method)
        if self.method.damping == 0:
            raise ValueError(
                "`reconstruct.method` has `damping` 0, with which a singular Gram matrix gives "
                "NaN weights; it must be positive."
            )
        for name, value, known in (("mask", self.mask, MASKS), ("start", self.start, STARTS)):
            if value not in known:
                raise ValueError(nearest(f"`reconstruct.{name}`", value, known))
        if (self.mask, self.start) == ("criterion", "rewound"):
            raise ValueError(
                "`reconstruct` has the mask of the criterion and a rewound start, which changes "
                "nothing; set `mask='method'` or `start='reconstructed'`."
            )

    def __call__(
        self,
        f: Callable[[Params, Any], Any],
        params: Params,
        mask: Mask,
        live: Mask,
        batches: Sequence[Any],
        prunable: Prunable,
    ) -> tuple[Params, Mask, Info]:
        """The fitted weights, exactly 0 where pruned, the mask, and which leaves cannot be fitted.

        Args:
          f: a jittable function of the parameters and one batch, in evaluation mode.
          params: trained parameters.
          mask: the mask of the criterion.
          live: the previous mask; `mask` is a subset of it.
          batches: calibration inputs.
          prunable: which leaves may be pruned; the weights of leaves that are not layers are masked
            but not fitted.

        Returns:
          `(params, mask, info)`. `info` has bool arrays, an entry per leaf: `"few_rows"`, whether
          all inputs of one of its layers are 0, or one of its experts has fewer nonzero rows than
          inputs; `"not_fitted"`, whether its new weights are NaN or infinite.

        Raises:
          ValueError: no layer is prunable, a layer has fewer rows than inputs, or `damping` is too
            small to make a singular Gram matrix regular in the layer's dtype.

        >>> from lth_jax.reconstruct import refit
        >>> x = jnp.array([[1.0, 1.0], [0.0, 1.0]])
        >>> params, mask = {"w": jnp.ones((2, 1))}, {"w": jnp.array([[False], [True]])}
        >>> run = Reconstruction(refit(damping=1e-6))
        >>> new, _, _ = run(lambda p, x: x @ p["w"], params, mask, mask, [x], {"w": True})
        >>> new["w"].round(4).tolist()
        [[0.0], [1.5]]
        """
        stream = Stream(f, params, batches)
        leaves, masks = list(stream.leaves), list(map(jnp.asarray, jax.tree.leaves(mask)))
        before = list(map(jnp.asarray, jax.tree.leaves(live)))
        layers = _chosen(stream.programs[0], check_prunable(prunable, params), trees.names(params))
        stream.leaves[:] = mask_others(leaves, masks, layers)
        few, bad = [jnp.array(False)] * len(leaves), [jnp.array(False)] * len(leaves)
        for layer in layers:
            gram, rows, filled = stream.gram(layer)
            check_rows(layer, rows, 1.0)
            _check_damping(self.method, layer, gram.dtype)
            few[layer.leaf] |= jnp.any(filled < (layer.inputs if layer.groups > 1 else 1))
            old, keep = layer.read(leaves[layer.leaf]), layer.read(masks[layer.leaf])
            if self.chooses:
                keep = _among_live(self.method, old, gram, keep, layer.read(before[layer.leaf]))
            new, _ = solve_groups(self.method, old, gram, keep)
            bad[layer.leaf] |= ~jnp.isfinite(new).all()
            leaves[layer.leaf] = layer.write(leaves[layer.leaf], new)
            masks[layer.leaf] = layer.write(masks[layer.leaf], keep)
            stream.proceed(layer, leaves[layer.leaf])
        structure = jax.tree.structure(params)
        return (
            jax.tree.unflatten(structure, apply_mask(masks, leaves)),
            jax.tree.unflatten(structure, masks),
            {"few_rows": jnp.stack(few), "not_fitted": jnp.stack(bad)},
        )

    def reasons(self, info: Info, names: Sequence[str]) -> dict[str, str]:
        """Why leaves cannot be fitted; reads values.

        Args:
          info: that of a call, on the host.
          names: the names of the leaves.

        >>> info = {"few_rows": [True, False], "not_fitted": [True, False]}
        >>> Reconstruction(None).reasons(info, ["a", "b"])
        {'a': 'no inputs other than 0, or an expert with fewer rows than inputs'}
        """
        words = {
            "not_fitted": "new weights that are NaN or infinite",
            "few_rows": "no inputs other than 0, or an expert with fewer rows than inputs",
        }
        return {
            name: text
            for kind, text in words.items()
            for name, flag in zip(names, info[kind], strict=True)
            if flag
        }


def _chosen(found: Layers, prunable: Sequence[bool], names: Sequence[str]) -> list[Layer]:
    """The layers of prunable leaves that nothing else reads."""
    layers = [x for x in found if prunable[x.leaf] and names[x.leaf] not in found.also]
    if not layers:
        raise ValueError(
            "`reconstruct` finds no prunable layer in the network; see "
            "`lth.reconstruct.find_layers`."
        )
    return layers


def _check_damping(method: LayerMethod, layer: Layer, dtype: jnp.dtype) -> None:
    """Raises unless the damping makes every Gram matrix of a layer regular."""
    least = layer.inputs * float(jnp.finfo(dtype).eps)
    if method.damping is not None and method.damping <= least:
        raise ValueError(
            f"`reconstruct.method` has `damping` {method.damping:g}, with which a singular Gram "
            f"matrix of the {layer.inputs} inputs of '{layer.name}' stays singular in {dtype}; it "
            f"must be above {least:.1e}."
        )


def _among_live(
    method: LayerMethod, weights: jax.Array, gram: jax.Array, mask: jax.Array, live: jax.Array
) -> jax.Array:
    """The method's mask of as many weights as `mask` keeps, restricted to live weights.

    The method may choose a pruned weight if an update gives it a value. Such weights are replaced
    by the live weights with the largest `|w| ‖x‖`.
    """
    counts = jnp.sum(mask, axis=(1, 2), dtype=jnp.int32)
    _, chosen = solve_groups(method, weights, gram, counts)
    chosen = chosen & live
    missing = counts - jnp.sum(chosen, axis=(1, 2), dtype=jnp.int32)
    norms = jnp.sqrt(jnp.diagonal(gram, axis1=1, axis2=2))[..., None]
    scores = jnp.where(live & ~chosen, jnp.abs(weights) * norms, -1.0)
    return chosen | jax.vmap(select)(scores, missing)
