"""Test accuracy after one-shot pruning by each method of `lth.reconstruct`, without retraining.

    python -m experiments.benchmarks.reconstruct [--quick]

Three networks (MLP, convolutional, Transformer encoder) are trained on scikit-learn's digits from
three seeds, 200 steps of Adam. Each is pruned layer by layer with 1,000 training images as
calibration inputs. The accuracies are those on the 597 images after the first 1,200, which are not
used before. The last line is one JSON object.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from experiments.benchmarks.report import main
from lth_jax import reconstruct
from lth_jax.analysis.ratios import Row, row
from lth_jax.models import NETWORKS, from_linen

CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "mlp": ({"features": (100, 50, 10)}, (64,)),
    "convnet": ({"stages": ((8,), (16,)), "hidden": (64,)}, (8, 8, 1)),
    "transformer_encoder": ({"width": 32, "hidden": 64, "layers": 2}, (8, 8)),
}
METHODS = {
    "magnitude": reconstruct.magnitude(),
    "wanda": reconstruct.wanda(),
    "refit(wanda)": reconstruct.refit(),
    "sparse_gpt": reconstruct.sparse_gpt(),
    "alps": reconstruct.alps(),
    "obs": reconstruct.obs(),
}
STEPS, BATCH, TRAIN, CALIBRATION = 200, 64, 1200, 1000


def trained(name: str, seed: int) -> tuple[Callable[..., Any], Any, Any, Callable[[Any], float]]:
    """A trained network: its function, parameters, calibration inputs and test accuracy."""
    options, shape = CASES[name]
    data = load_digits()
    x = jnp.asarray(data.images.reshape(-1, *shape) / 16, jnp.float32)
    y = jnp.asarray(data.target)
    model = from_linen(NETWORKS[name](**options))
    init, order = jax.random.split(jax.random.key(seed))
    params, state = model.init(init, x[:2])
    optimizer = optax.adam(3e-3)

    def f(params: Any, x: Any) -> Any:
        return model.apply(params, state, x, train=False)[0]

    def loss(params: Any, rows: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(f(params, x[rows]), y[rows]).mean()

    def step(carry: Any, rows: Any) -> Any:
        params, slots = carry
        updates, slots = optimizer.update(jax.grad(loss)(params, rows), slots)
        return (optax.apply_updates(params, updates), slots), None

    rows = jax.random.randint(order, (STEPS, BATCH), 0, TRAIN)
    start = params, optimizer.init(params)
    params, _ = jax.jit(lambda start: jax.lax.scan(step, start, rows)[0])(start)
    test = jax.jit(lambda params: (f(params, x[TRAIN:]).argmax(-1) == y[TRAIN:]).mean())
    return f, params, [x[:CALIBRATION]], lambda params: float(test(params))


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """One row for each network and density: mean accuracies in percent."""
    for name in list(CASES)[: 1 if options.quick else None]:
        networks = [trained(name, seed) for seed in range(1 if options.quick else 3)]
        dense = [100 * accuracy(params) for _, params, _, accuracy in networks]
        for density in (0.5, 0.3):
            found = {
                label: [
                    100
                    * accuracy(
                        reconstruct.prune(f, params, inputs, method=method, density=density)[0]
                    )
                    for f, params, inputs, accuracy in networks
                ]
                for label, method in METHODS.items()
            }
            means = {label: round(statistics.mean(each), 1) for label, each in found.items()}
            best = means.pop("alps")
            others = {"dense": round(statistics.mean(dense), 1), **means}
            yield row(f"{name}, density {density}: accuracy of alps", best, others, seeds=found)


if __name__ == "__main__":
    main("reconstruct", __doc__, measure)
