"""The forward pass of one ticket in dense and sparse forms, relative to its dense network.

    python -m experiments.benchmarks.forms [--quick] [--ticket FILE]

The forms are masked dense matrices, the network without dead units, BCOO matrices of JAX, CSR
matrices of SciPy, and packed 2:4 values that the program restores. The networks are
784-300-100-10; with `--ticket`, the ticket of a file, whose leaves are kernels and biases. Times
are milliseconds on JAX's default device; a ratio above 1 means that the form is slower than the
dense network.
"""

import argparse
import itertools
from collections.abc import Iterator

import numpy as np

from experiments.benchmarks.report import main
from lth_jax import coding, trees
from lth_jax.analysis.ratios import Row, beside
from lth_jax.analysis.sparse_forms import FORMS, Layers, layers_of, passes
from lth_jax.timing import alternated

WIDTHS = (784, 300, 100, 10)
Mask = list[np.ndarray]


def unstructured(rng: np.random.Generator) -> Mask:
    """5 % of the weights."""
    return [rng.random(shape) < 0.05 for shape in itertools.pairwise(WIDTHS)]


def units(rng: np.random.Generator) -> Mask:
    """A quarter of the hidden units."""
    kept = [np.ones(WIDTHS[0], bool), *(rng.random(n) < 0.25 for n in WIDTHS[1:-1])]
    return [np.outer(a, b) for a, b in itertools.pairwise([*kept, np.ones(WIDTHS[-1], bool)])]


def two_of_four(rng: np.random.Generator) -> Mask:
    """Two of every four inputs."""
    shapes = [(rows // 4, 4, columns) for rows, columns in itertools.pairwise(WIDTHS)]
    ranks = [rng.random(shape).argsort(1) for shape in shapes]
    return [(rank < 2).reshape(-1, rank.shape[-1]) for rank in ranks]


GENERAL = (*FORMS, "compacted")
CASES = {
    "5 % of the weights": (unstructured, GENERAL),
    "a quarter of the units": (units, GENERAL),
    "2:4": (two_of_four, (*GENERAL, "2:4")),
}


def drawn(rng: np.random.Generator, masks: Mask) -> tuple[Layers, Layers]:
    """A dense network with random weights, and its ticket."""
    kernels = [rng.normal(size=mask.shape).astype(np.float32) for mask in masks]
    biases = [np.zeros(mask.shape[1], np.float32) for mask in masks]
    masked = [kernel * mask for kernel, mask in zip(kernels, masks, strict=True)]
    return list(zip(kernels, biases, strict=True)), list(zip(masked, biases, strict=True))


def networks(options: argparse.Namespace) -> Iterator[tuple[str, Layers, Layers, tuple[str, ...]]]:
    """Each case: name, dense network, ticket, forms."""
    rng = np.random.default_rng(0)
    if options.ticket:
        found = coding.load(options.ticket)
        params, mask = trees.to_named(found.params), trees.to_named(found.mask)
        ticket = layers_of(params, mask)
        dense, _ = drawn(rng, [np.ones(kernel.shape, bool) for kernel, _ in ticket])
        yield options.ticket, dense, ticket, GENERAL
        return
    for case, (make, forms) in CASES.items():
        yield case, *drawn(rng, make(rng)), forms


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """One row for each ticket, batch and form."""
    for (case, dense, ticket, forms), batch in itertools.product(networks(options), (1, 256)):
        x = np.random.default_rng(1).normal(size=(batch, len(dense[0][0]))).astype(np.float32)
        times = alternated(passes(x, dense, ticket, forms), 10 if options.quick else 60, warm=True)
        ms = {form: [1e3 * second for second in seconds] for form, seconds in times.items()}
        for form in forms:
            row = beside(f"{case}, batch {batch}, {form}, ms", ms, "dense", form)
            slower = sum(a > b for a, b in zip(ms[form], ms["dense"], strict=True))
            yield {**row, "reason": f"slower than dense in {slower} of {len(ms[form])} rounds"}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ticket", metavar="FILE", help="a .ticket file of an MLP with its values")


if __name__ == "__main__":
    main("forms", __doc__, measure, add_options)
