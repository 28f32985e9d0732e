"""Cost of Hessian-vector products, Lanczos and whole spectra, compared with the usual methods.

Each product is compared with a lower bound for its network, a multiple of the time of one gradient
(1.17 gradients for the MLP, 1.9 for the conv net). Lanczos is compared with a plain loop in JAX,
with matfree, and with power iteration and Lanczos in PyTorch. The alternatives for the conv net use
Flax's layers, in a loop on the host and in a scan; rows with this library's layers have no goal.
Power iteration ends when its value no longer changes, which is no guarantee, or when its residual
is within the tolerance, which bounds the error as ours does. Values are seconds; a ratio is the
median over alternated pairs of (ours / alternative). Every table is measured in a separate process,
because earlier allocations change the time of PyTorch's convolutions by a third.

    python -m experiments.benchmarks.landscape [--quick]
    python -m experiments.benchmarks.landscape --full --manual_dir FOLDER [--data_dir FOLDER]

`--full` instead prunes LeNet-300-100 to 3.6 % of its weights in three rounds with rewinding, and
computes the ticket's exact spectrum on 5,000 images of MNIST, whose idx files are in the folder.
"""

import argparse
import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from experiments.benchmarks import landscape_exact, landscape_torch
from experiments.benchmarks.report import main
from experiments.benchmarks.tasks import StockConvNet
from lth_jax import models
from lth_jax.analysis.ratios import Row, beside_each
from lth_jax.landscape import extremes, hessian, lanczos
from lth_jax.landscape.tridiagonal import ritz
from lth_jax.types import Batch

KEY = jax.random.key(0)
STEPS = 64
TOLERANCE = 1e-3
SCAN, HOST, MATFREE = "a straightforward scan", "a loop on the host", "matfree"


class Case(NamedTuple):
    """A network with parameters and a batch.

    Attributes:
      name: for the tables.
      params: its parameters.
      loss: `(params, batch) -> mean cross-entropy`.
      batch: the examples.
      floor: lower bound of a product's cost in gradients.
      usual: `loss` with Flax's layers, if they differ.
    """

    name: str
    params: Any
    loss: Callable[[Any, Batch], jax.Array]
    batch: Batch
    floor: float
    usual: Callable[[Any, Batch], jax.Array] | None = None


def cases(quick: bool) -> list[Case]:
    """LeNet-300-100 on 28 x 28 images and a small conv net on 16 x 16 x 3; smaller if quick."""
    examples, widths, side = (64, (64, 32), 8) if quick else (1000, (300, 100), 16)
    hidden = "-".join(map(str, widths))
    mlp, conv = models.MLP((*widths, 10)), models.ConvNet(((8,), (16,)), ())
    usual = StockConvNet((8, 16))
    return [
        _case(f"MLP 784-{hidden}-10", mlp, (28, 28, 1), 1.17, examples),
        _case("conv net 8-16", conv, (side, side, 3), 1.9, examples, usual),
    ]


def _case(name, module, shape, floor, examples, usual=None) -> Case:
    model = models.from_linen(module)
    rng = np.random.default_rng(0)
    y = np.arange(examples) % 10
    x = (rng.normal(size=(examples, *shape)) + rng.normal(size=(10, *shape))[y]).astype(np.float32)
    shapes, state = jax.eval_shape(model.init, KEY, x[:1])
    params = jax.tree.map(lambda leaf: jnp.asarray(_glorot(rng, leaf.shape)), shapes)

    def loss(params: Any, batch: Batch, model: Any = model) -> jax.Array:
        logits, _ = model.apply(params, state, batch.x, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean()

    other = usual and partial(loss, model=models.from_linen(usual))
    return Case(name, params, loss, Batch(jnp.asarray(x), jnp.asarray(y)), floor, other)


def _glorot(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal weights by numpy: compiling initializers would take longer than the rest."""
    fans = np.prod(shape[:-1]) + shape[-1]
    return (rng.normal(size=shape) * np.sqrt(2 / fans)).astype(np.float32)


def product_rows(case: Case, pairs: int) -> list[Row]:
    """One product compared with one gradient, and with `jvp` of the gradient."""
    operator = hessian(case.loss, case.params, [case.batch])
    v = jax.random.normal(KEY, (operator.size,))
    tangent = operator.expand(v)
    gradient, plain = jax.jit(jax.grad(case.loss)), jax.jit(partial(plain_product, case.loss))
    ways = {
        "one gradient": lambda: gradient(case.params, case.batch),
        "jvp of the gradient": lambda: plain(case.params, case.batch, tangent),
    }
    goals = {"one gradient": 1.25 * case.floor}
    return beside_each(
        f"a Hessian-vector product, {case.name}", lambda: operator(v), ways, pairs, goals
    )


def plain_product(loss: Any, params: Any, batch: Batch, tangent: Any) -> Any:
    """Forward over reverse, without sharing work between vectors."""
    return jax.jvp(lambda p: jax.grad(loss)(p, batch), (params,), (tangent,))[1]


def lanczos_rows(case: Case, pairs: int) -> list[Row]:
    """64 steps with reorthogonalisation; prints the largest eigenvalue of each way."""
    operator = hessian(case.loss, case.params, [case.batch])
    start = jax.random.normal(KEY, (operator.size,))
    run = lanczos.driver(operator, start)

    def ours():
        return run(operator, start, KEY, steps=STEPS).found

    given = {} if case.usual is None else ways_to_tridiagonalise(case.loss, case, start)
    ways = ways_to_tridiagonalise(case.usual or case.loss, case, start)
    ways |= torch_ways(case, landscape_torch.LANCZOS)
    goals = dict.fromkeys(ways, 1 / 1.2)
    ways |= {f"{name}, given our layers": way for name, way in given.items()}
    top = ritz(ours()).values[-1]
    for name, way in ways.items():
        found = np.linalg.eigvalsh(np.asarray(way(), np.float64))[-1]
        print(f"{case.name}: λmax {top:.6g} ours, {found:.6g} by {name}", flush=True)

    def rounds(name: str) -> int:
        # XLA's convolution in a scan takes tens of times longer on a CPU.
        return 1 if case.usual and name in (SCAN, MATFREE) else pairs

    return beside_each(f"{STEPS} Lanczos steps, {case.name}", ours, ways, rounds, goals)


def ways_to_tridiagonalise(loss: Any, case: Case, start: jax.Array) -> dict[str, Callable]:
    """`() -> T`, the tridiagonal matrix of 64 steps."""
    _, unravel = ravel_pytree(case.params)

    @jax.jit
    def product(v, params, batch):
        return ravel_pytree(plain_product(loss, params, batch, unravel(v)))[0]

    at = (case.params, case.batch)  # arguments: XLA would fold constants while compiling

    @jax.jit
    def straightforward(start, *at):
        """One scan; two passes over the whole basis."""

        def body(carry, i):
            basis, q = carry
            basis = basis.at[i].set(q)
            w = product(q, *at)
            diagonal = q @ w
            for _ in range(2):
                w = w - (basis @ w) @ basis
            length = jnp.linalg.norm(w)
            return (basis, w / length), (diagonal, length)

        basis = jnp.zeros((STEPS, start.size))
        carry = (basis, start / jnp.linalg.norm(start))
        _, (diagonal, length) = jax.lax.scan(body, carry, jnp.arange(STEPS))
        return jnp.diag(diagonal) + jnp.diag(length[:-1], 1) + jnp.diag(length[:-1], -1)

    @jax.jit
    def orthogonal(w, basis):
        for _ in range(2):
            w = w - (basis @ w) @ basis
        return w

    def on_host() -> np.ndarray:
        """Dispatches a product and two passes over the basis at each step."""
        basis, matrix = jnp.zeros((STEPS, start.size)), np.zeros((STEPS, STEPS))
        q = start / jnp.linalg.norm(start)
        for i in range(STEPS):
            basis = basis.at[i].set(q)
            w = product(q, *at)
            matrix[i, i] = float(q @ w)
            w = orthogonal(w, basis)
            length = jnp.linalg.norm(w)
            if i + 1 < STEPS:
                matrix[i, i + 1] = matrix[i + 1, i] = float(length)
            q = w / length
        return matrix

    ways: dict[str, Callable] = {SCAN: lambda: straightforward(start, *at), HOST: on_host}
    try:
        from matfree import decomp
    except ImportError:
        print("matfree is not installed: no column for it", flush=True)
    else:
        tridiagonalise = jax.jit(decomp.tridiag_sym(STEPS, reortho="full"), static_argnums=0)
        ways[MATFREE] = lambda: tridiagonalise(product, start, *at).J_small
    return ways


def top_rows(case: Case, pairs: int) -> list[Row]:
    """The largest eigenvalue to 1e-3 (ours with a bound), from a new start vector in every run.

    The cost of power iteration depends on the start vector. The goal applies to ways that are
    accurate from all of `pairs` starts.
    """
    operator, starts = hessian(case.loss, case.params, [case.batch]), itertools.count()
    few = jax.tree.map(lambda leaf: leaf[: len(leaf) // 16], case.batch)
    pilot = hessian(case.loss, case.params, [few])

    def ours():
        key = jax.random.fold_in(KEY, next(starts))
        found = extremes(operator, key, smallest=0, tolerance=TOLERANCE, pilot=pilot, exact_below=0)
        return found.largest[0]

    exact = extremes(operator, KEY, smallest=0, tolerance=0.0, exact_below=0).largest[0]
    ways = torch_ways(case, landscape_torch.POWER, landscape_torch.POWER_BOUND)
    errors = {
        name: max(abs(float(way()) - exact) / exact for _ in range(pairs))
        for name, way in {**ways, "ours": ours}.items()
    }
    for name, error in errors.items():
        print(f"{case.name}: λmax is off by up to {100 * error:.2g} %, {name}", flush=True)
    goals = {name: 1 / 1.2 for name in ways if errors[name] <= TOLERANCE}
    return beside_each(f"λmax to {TOLERANCE:g}, {case.name}", ours, ways, pairs, goals)


def torch_ways(case: Case, *wanted: str) -> dict[str, Callable]:
    """The given ways in PyTorch, if installed."""
    ways = landscape_torch.ways(case.params, case.batch, steps=STEPS, tolerance=TOLERANCE)
    return {name: way for name, way in ways.items() if name in wanted}


TABLES = {"products": (product_rows, 5), "lanczos": (lanczos_rows, 1), "top": (top_rows, 3)}
"""The tables, and a factor for their number of pairs."""


def rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """All rows, each as soon as it is measured."""
    if arguments.full:
        yield landscape_exact.on_mnist(arguments.manual_dir, arguments.data_dir)
        return
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as alone:
        for case in range(len(cases(arguments.quick))):
            for table in TABLES:
                yield from alone.submit(measured, table, case, arguments.quick).result()


def measured(table: str, case: int, quick: bool) -> list[Row]:
    """The rows of one table of a case."""
    measure, times = TABLES[table]
    return measure(cases(quick)[case], times * (1 if quick else 9))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The exact spectrum and its files."""
    parser.add_argument(
        "--full", action="store_true", help="the exact spectrum of a ticket instead"
    )
    parser.add_argument("--manual_dir", default="", help="MNIST's idx files, for --full")
    parser.add_argument("--data_dir", default="runs/data", help="folder of prepared data")


if __name__ == "__main__":
    main("landscape", __doc__, rows, add_options)
