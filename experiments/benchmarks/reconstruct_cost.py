"""Time and memory of one-shot pruning for the layers of a 7B network, from measured blocks.

    python -m experiments.benchmarks.reconstruct_cost [--quick]

The layers are those of Llama-2-7B: 32 blocks of four matrices 4096×4096, two 4096×11008 and one
11008×4096. A method takes c (n³ + n²m) seconds for n inputs and m outputs, a Gram matrix c n² for
each row. The constants c are measured on square matrices; `growth` is the factor from the second
largest to the largest, 8 by this law (4 for Gram matrices). Memory is what XLA allocates for the
largest layer, from programs that are compiled at its shape and not run: weights, Gram matrix,
results and temporary arrays. The last line is one JSON object.
"""

import argparse
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.report import main
from lth_jax import reconstruct
from lth_jax.analysis.ratios import Row, row
from lth_jax.population.planning import program_bytes
from lth_jax.timing import alternated

LAYERS = {(4096, 4096): 4 * 32, (4096, 11_008): 2 * 32, (11_008, 4096): 32}
"""`(inputs, outputs)` -> number of layers."""
ROWS = 128 * 2048  # of calibration: 128 sequences of 2,048 tokens, as in SparseGPT's paper
METHODS = {"sparse_gpt": reconstruct.sparse_gpt(), "alps": reconstruct.alps()}


def gram(rows: jax.Array) -> jax.Array:
    """`XᵀX` in full precision, as `reconstruct.prune` sums it."""
    return jnp.matmul(rows.T, rows, precision=jax.lax.Precision.HIGHEST)


def seconds(f: Callable[..., Any], *args: Any) -> float:
    """The fastest of three calls of a compiled function."""
    run = jax.jit(f)
    return min(alternated({"": lambda: run(*args)}, 3)[""])


def bytes_of(method: Any, inputs: int, outputs: int) -> int:
    """The bytes of a method's program at a shape."""
    shapes = (jax.ShapeDtypeStruct(s, "float32") for s in ((inputs, outputs), (inputs, inputs)))
    half = inputs * outputs // 2
    return program_bytes(jax.jit(lambda w, g: method(w, g, half)).lower(*shapes).compile()) or 0


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Hours for the whole layer set and bytes of its largest layer, for each method."""
    sizes = (128, 256) if options.quick else (512, 1024)
    keys = jax.random.split(jax.random.key(0))
    n = sizes[-1]
    each = [seconds(gram, jax.random.normal(keys[0], (4 * n, k))) / (4 * n) for k in sizes]
    total = sum(count * ROWS * each[-1] * (k / n) ** 2 for (k, _), count in LAYERS.items())
    hours = round(total / 3600, 2)
    yield row("7B layers, Gram matrices, hours", hours, growth=round(each[-1] / each[0], 2))
    for name, method in METHODS.items():
        times = []
        for k in sizes:
            weights, rows = (
                jax.random.normal(key, (m, k)) for key, m in zip(keys, (k, 4 * k), strict=True)
            )
            half = functools.partial(method, keep=k * k // 2)
            times.append(seconds(half, weights, gram(rows)))
        constant = times[-1] / (2 * n**3)
        total = sum(count * constant * (k**3 + k**2 * m) for (k, m), count in LAYERS.items())
        hours = round(total / 3600, 2)
        growth = round(times[-1] / times[0], 2)
        yield row(f"7B layers, {name}, hours", hours, growth=growth, measured=times)
        largest = max(bytes_of(method, *shape) for shape in LAYERS) / 2**30
        yield row(f"7B layers, {name}, GiB of the largest layer", round(largest, 2))


if __name__ == "__main__":
    main("reconstruct_cost", __doc__, measure)
