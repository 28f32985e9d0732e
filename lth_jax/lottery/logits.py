"""The logits of stored networks in test mode."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lth_jax import trees
from lth_jax.coding.stored import Stored
from lth_jax.types import Model, Params

BLOCK = 1024  # examples per evaluation


def logits_of(model: Model, networks: Sequence[Stored], x: NDArray[Any]) -> NDArray[Any]:
    """The logits of networks of one architecture on the same inputs, in test mode.

    Args:
      model: the architecture.
      networks: at least one; parameters and states are leaves by name.
      x: inputs `(n, …)`.

    Returns:
      `(networks, n, …, classes)`, in the dtype of the model's outputs.

    Raises:
      ValueError: the networks do not fit the model or the inputs, or there are no inputs.

    >>> import flax.linen as nn
    >>> from lth_jax.models import as_model
    >>> x, eye = np.array([[1.0, 2.0]], np.float32), np.eye(2, dtype=np.float32)
    >>> def network(kernel):
    ...     params = {"bias": np.zeros(2, np.float32), "kernel": kernel}
    ...     return Stored("dense", 0, 0, 1.0, None, "", "", {}, params, {}, {})
    >>> logits_of(as_model(nn.Dense(2)), [network(eye), network(2 * eye)], x).tolist()
    [[[1.0, 2.0]], [[2.0, 4.0]]]
    """
    like = jax.eval_shape(model.init, jax.random.key(0), jax.eval_shape(jnp.asarray, x[:1]))
    points = [tuple(map(trees.from_named, (one.params, one.state), like)) for one in networks]
    trees.check_same_structure("params", points[0][0], "the network", like[0])
    population = trees.stack(points)

    @jax.jit
    def answers(x: jax.Array) -> Any:
        def one(point: tuple[Params, Any]) -> Any:
            return model.apply(*point, x, train=False)[0]

        return jax.lax.map(one, population)

    blocks = [answers(x[first : first + BLOCK]) for first in range(0, len(x), BLOCK)]
    return np.concatenate(blocks, axis=1)
