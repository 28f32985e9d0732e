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
from lth_jax.types import Mask, Params, Prunable

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
        weights as in that mask, but those that `method` chooses among the live ones.
      start: `"reconstructed"`: the ticket starts from the fitted weights instead of rewinding.
        `"rewound"`: it starts as the ladder's `rewind` states; only the mask counts.
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
        """The parts in one word each."""
        return f"{self.method.name}, mask of {self.mask}, {self.start} start"

    def check(self) -> None:
        """Raises unless the parts are legal and change something.

        Raises:
          ValueError: an option is unknown, or the ticket would be that of the ladder without it.
          TypeError: `method` is not built.
        """
        check_method(self.method)
        if self.method.damping == 0:
            raise ValueError(
                "`reconstruct.method` has `damping` 0, with which a singular Gram matrix would end "
                "a ladder in NaN; it must be positive."
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
    ) -> tuple[Params, Mask]:
        """The fitted weights, exactly 0 where pruned, and the mask.

        Args:
          f: a jittable function of the parameters and one batch, in evaluation mode.
          params: trained parameters.
          mask: the mask of the criterion.
          live: the mask before; `mask` is a part of it.
          batches: calibration inputs.
          prunable: which leaves may be pruned; those that are no layers keep weights and mask.

        Raises:
          ValueError: no layer is prunable, or a layer has fewer rows than inputs.

        >>> from lth_jax.reconstruct import refit
        >>> x = jnp.array([[1.0, 1.0], [0.0, 1.0]])
        >>> params, mask = {"w": jnp.ones((2, 1))}, {"w": jnp.array([[False], [True]])}
        >>> run = Reconstruction(refit(damping=0))
        >>> new, _ = run(lambda p, x: x @ p["w"], params, mask, mask, [x], {"w": True})
        >>> new["w"].tolist()
        [[0.0], [1.5]]
        """
        stream = Stream(f, params, batches)
        leaves, masks = list(stream.leaves), list(map(jnp.asarray, jax.tree.leaves(mask)))
        before = list(map(jnp.asarray, jax.tree.leaves(live)))
        layers = _chosen(stream.programs[0], check_prunable(prunable, params), trees.names(params))
        stream.leaves[:] = mask_others(leaves, masks, layers)
        for layer in layers:
            gram, rows, _ = stream.gram(layer)
            check_rows(layer, rows, 1.0)
            old, keep = layer.read(leaves[layer.leaf]), layer.read(masks[layer.leaf])
            if self.chooses:
                keep = _among_live(self.method, old, gram, keep, layer.read(before[layer.leaf]))
            new, _ = solve_groups(self.method, old, gram, keep)
            leaves[layer.leaf] = layer.write(leaves[layer.leaf], new)
            masks[layer.leaf] = layer.write(masks[layer.leaf], keep)
            stream.proceed(layer, leaves[layer.leaf])
        structure = jax.tree.structure(params)
        return (
            jax.tree.unflatten(structure, apply_mask(masks, leaves)),
            jax.tree.unflatten(structure, masks),
        )


def _chosen(found: Layers, prunable: Sequence[bool], names: Sequence[str]) -> list[Layer]:
    """The layers of prunable leaves that nothing else reads."""
    layers = [x for x in found if prunable[x.leaf] and names[x.leaf] not in found.also]
    if not layers:
        raise ValueError(
            "`reconstruct` finds no prunable layer in the network; see "
            "`lth.reconstruct.find_layers`."
        )
    return layers


def _among_live(
    method: LayerMethod, weights: jax.Array, gram: jax.Array, mask: jax.Array, live: jax.Array
) -> jax.Array:
    """The method's choice of as many weights as `mask` has, without those that are not live.

    An update may give a pruned weight a value, and with it a place in the method's mask. Live
    weights with the largest `|w| ‖x‖` take such places.
    """
    counts = jnp.sum(mask, axis=(1, 2), dtype=jnp.int32)
    _, chosen = solve_groups(method, weights, gram, counts)
    chosen = chosen & live
    missing = counts - jnp.sum(chosen, axis=(1, 2), dtype=jnp.int32)
    norms = jnp.sqrt(jnp.diagonal(gram, axis1=1, axis2=2))[..., None]
    scores = jnp.where(live & ~chosen, jnp.abs(weights) * norms, -1.0)
    return chosen | jax.vmap(select)(scores, missing)
