"""Dynamic sparse training: drops and grows weights at a fixed count."""

from collections.abc import Sequence
from typing import Any

from lth_jax.layouts import Layouts
from lth_jax.pruning import transforms
from lth_jax.pruning.checks import check_fraction
from lth_jax.pruning.methods._parts import events_in, on_subnetwork
from lth_jax.pruning.methods.method import METHODS, Inputs, Method
from lth_jax.pruning.scopes import Scope
from lth_jax.pruning.transforms import Events
from lth_jax.types import Prunable


def sparse_evolution(
    *,
    prunable: Prunable,
    layouts: Layouts | None = None,
    scope: Scope | None = None,
    steps: int,
    fraction: float = 0.3,
    events: Events | Sequence[int] | None = None,
) -> Method:
    """SET (Mocanu et al., 2018): each event drops the smallest weights and grows random ones.

    The count of each layer is that of the initial mask. See `transforms.sparse_evolution`.

    Args:
      prunable: static tree of Python booleans.
      layouts: declares stacked layers (`lth_jax.layouts`).
      scope: unused: the initial mask determines the count of each layer.
      steps: updates of the training.
      fraction: fraction of the kept weights that each event drops.
      events: when to revise the mask: `Events`, or its numbers every,begin,end; by default every
        100 updates (every twentieth of a shorter training), up to the end. The authors revise the
        mask after each epoch.

    Raises:
      ValueError: `steps` is not an integer of at least 1, `events` are invalid or do not begin in
        the training, or `fraction` is outside (0, 1]; from `update`, `prunable` does not fit the
        parameters.
      TypeError: `fraction` is not a number.

    >>> method = sparse_evolution(prunable={"w": True}, steps=1000)
    >>> method.name, method.starts_dense
    ('sparse_evolution', False)
    """
    del scope
    fraction = check_fraction("fraction", fraction)
    when = events_in(steps, events, until=1.0)

    def build(inner: Any, inputs: Inputs) -> Any:
        return transforms.sparse_evolution(
            inner,
            lambda params: inputs.mask,
            when,
            key=inputs.key,
            fraction=fraction,
            prunable=prunable,
            layouts=layouts,
        )

    return on_subnetwork("sparse_evolution", build, starts_dense=False)


def rigl(
    *,
    prunable: Prunable,
    layouts: Layouts | None = None,
    scope: Scope | None = None,
    steps: int,
    fraction: float = 0.3,
    events: Events | Sequence[int] | None = None,
) -> Method:
    """RigL (Evci et al., 2020): drops the smallest weights, grows where the gradient is largest.

    The count of each layer is that of the initial mask. See `transforms.rigl`.

    Args:
      prunable: static tree of Python booleans.
      layouts: declares stacked layers (`lth_jax.layouts`).
      scope: unused: the initial mask determines the count of each layer, usually by ERK.
      steps: updates of the training.
      fraction: fraction of the kept weights that the first event drops; it decays to 0 as a cosine.
      events: when to revise the mask: `Events`, or its numbers every,begin,end; by default every
        100 updates (every twentieth of a shorter training) in the first three quarters of the
        training, as the authors do.

    Raises:
      ValueError: `steps` is not an integer of at least 1, `events` are invalid or do not begin in
        the training, or `fraction` is outside (0, 1]; from `update`, `prunable` does not fit the
        parameters.
      TypeError: `fraction` is not a number.

    >>> method = rigl(prunable={"w": True}, steps=1000)
    >>> method.name, method.starts_dense
    ('rigl', False)
    """
    del scope
    fraction = check_fraction("fraction", fraction)
    when = events_in(steps, events)

    def build(inner: Any, inputs: Inputs) -> Any:
        return transforms.rigl(
            inner,
            lambda params: inputs.mask,
            when,
            fraction=fraction,
            prunable=prunable,
            layouts=layouts,
        )

    return on_subnetwork("rigl", build, starts_dense=False)


METHODS.register("sparse_evolution", sparse_evolution)
METHODS.register("rigl", rigl)
