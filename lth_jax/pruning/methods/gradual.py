"""Gradual pruning during training."""

from collections.abc import Sequence
from typing import Any

from lth_jax.layouts import Layouts
from lth_jax.pruning.criteria import Criterion, magnitude
from lth_jax.pruning.methods._parts import cubic_count, events_in, on_subnetwork
from lth_jax.pruning.methods.method import METHODS, Inputs, Method
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scopes import Scope, globally
from lth_jax.pruning.scores import is_bad
from lth_jax.pruning.transforms import Events
from lth_jax.pruning.transforms.subnetwork import Revision, owning
from lth_jax.types import Count, Mask, Params, Prunable


def gradual(
    *,
    prunable: Prunable,
    layouts: Layouts | None = None,
    scope: Scope | None = None,
    steps: int,
    criterion: Criterion | None = None,
    events: Events | Sequence[int] | None = None,
) -> Method:
    """Gradual pruning (Zhu & Gupta, 2017, "To prune, or not to prune").

    Event i of N prunes to `count + (all − count)·(1 − (i+1)/N)³` weights (equation 1, from sparsity
    0), the last one to `count`. Pruned weights stay pruned.

    Args:
      prunable: static tree of Python booleans.
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`), as scope and criterion need it.
      scope: which weights compete; `globally()` by default.
      steps: updates of the training.
      criterion: one that needs neither data nor a key; `magnitude()` by default.
      events: when to prune: `Events`, or its numbers every,begin,end; by default every 100 updates
        (every twentieth of a shorter training) in the first three quarters of the training. The
        authors prune every 100 to 1000 updates.

    Raises:
      ValueError: `steps` is not an integer of at least 1, or `events` are invalid or do not begin
        in the training; from `update`, `prunable` does not fit the parameters.
      TypeError: `criterion` or `scope` has the wrong type.

    >>> method = gradual(prunable={"w": True}, steps=1000, events=Events(every=50, end=600))
    >>> method.name, method.starts_dense
    ('gradual', True)
    """
    when = events_in(steps, events)
    pruner = prune(criterion or magnitude(), scope or globally())

    def revise(
        mask: Mask, step: Any, key: Any, grads: Params, params: Params, count: Count
    ) -> Revision:
        now = cubic_count(count, params, prunable, step, when)
        new, info = pruner.with_info(params, mask, now, prunable=prunable, layouts=layouts)
        return new, is_bad(info)

    def build(inner: Any, inputs: Inputs) -> Any:
        return owning(inner, lambda params: inputs.mask, when, revise, None, inputs.count)

    return on_subnetwork("gradual", build, starts_dense=True)


METHODS.register("gradual", gradual)
