"""What curvature costs: products, Lanczos and whole spectra, beside the usual ways.

Each product is compared with the floor of its network, a multiple of one gradient measured in the
same minute (1.17 gradients for the MLP, 1.9 for the conv net); Lanczos with a straightforward loop
in JAX, with matfree, and with power iteration and Lanczos as they are plainly written in PyTorch.
Figures are seconds; a ratio is the median over alternated pairs of (ours / alternative).

    python -m experiments.benchmarks.landscape [--quick]
    python -m experiments.benchmarks.landscape --full --manual_dir FOLDER [--data_dir FOLDER]

`--full` instead takes the exact spectrum of LeNet-300-100 under a mask of 3.6 % of its weights, the
largest at the start, on 5,000 images of MNIST, whose idx files lie in the folder.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lth_jax as lth
from experiments.benchmarks.prune import alternated, result
from lth_jax import data, models
from lth_jax.landscape import extremes, hessian, lanczos, spectrum
from lth_jax.types import Batch

KEY = jax.random.key(0)
STEPS = 64
TOLERANCE = 1e-3


class Case(NamedTuple):
    """A network at a point, with a batch.

    Attributes:
      name: for the tables.
      params: the point.
      loss: `(params, batch) -> mean cross-entropy`.
      batch: the examples.
      floor: a product's cost in gradients at the least.
      widths: channels of the hidden layers, for the PyTorch twin.
    """

    name: str
    params: Any
    loss: Callable[[Any, Batch], jax.Array]
    batch: Batch
    floor: float
    widths: tuple[int, ...]


def cases(examples: int) -> list[Case]:
    """LeNet-300-100 on 28 x 28 images, and a small conv net on 16 x 16 x 3."""
    networks = [
        ("MLP 784-300-100-10", models.MLP(), (28, 28, 1), 1.17, (300, 100)),
        ("conv net 8-16", models.ConvNet(((8,), (16,)), ()), (16, 16, 3), 1.9, (8, 16)),
    ]
    return [_case(*network, examples) for network in networks]


def _case(name, module, shape, floor, widths, examples) -> Case:
    model = models.from_linen(module)
    rng = np.random.default_rng(0)
    y = np.arange(examples) % 10
    x = (rng.normal(size=(examples, *shape)) + rng.normal(size=(10, *shape))[y]).astype(np.float32)
    params, state = model.init(KEY, x[:1])

    def loss(params: Any, batch: Batch) -> jax.Array:
        logits, _ = model.apply(params, state, batch.x, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean()

    return Case(name, params, loss, Batch(jnp.asarray(x), jnp.asarray(y)), floor, widths)


def product_rows(case: Case, pairs: int) -> list[dict]:
    """One product against the floor, and against `jvp` of the gradient."""
    operator = hessian(case.loss, case.params, [case.batch])
    v = jax.random.normal(KEY, (operator.size,))
    tangent = operator.expand(v)
    gradient, plain = jax.jit(jax.grad(case.loss)), jax.jit(partial(plain_product, case.loss))
    runs = {
        "one gradient": alternated(
            lambda: operator(v), lambda: gradient(case.params, case.batch), pairs
        ),
        "jvp of the gradient": alternated(
            lambda: operator(v), lambda: plain(case.params, case.batch, tangent), pairs
        ),
    }
    return result(
        f"a Hessian-vector product, {case.name}", runs, {"one gradient": 1.25 * case.floor}
    )


def plain_product(loss: Any, params: Any, batch: Batch, tangent: Any) -> Any:
    """Forward over reverse, all of it anew for each vector."""
    return jax.jvp(lambda p: jax.grad(loss)(p, batch), (params,), (tangent,))[1]


def lanczos_rows(case: Case, pairs: int) -> list[dict]:
    """64 steps with reorthogonalisation; the alternatives are checked to be right here."""
    operator = hessian(case.loss, case.params, [case.batch])
    start = jax.random.normal(KEY, (operator.size,))
    run = lanczos.driver()

    def ours():
        return run(operator, start, KEY, steps=STEPS)

    ways = ways_to_tridiagonalise(case, operator, start)
    top = lanczos.ritz(ours()).values[-1]
    for name, way in ways.items():
        found = np.linalg.eigvalsh(np.asarray(way(), np.float64))[-1]
        print(f"{case.name}: λmax {top:.6g} ours, {found:.6g} by {name}", flush=True)
    runs = {name: alternated(ours, way, pairs) for name, way in ways.items()}
    goals = dict.fromkeys(ways, 1 / 1.2)
    return result(f"{STEPS} Lanczos steps, {case.name}", runs, goals)


def ways_to_tridiagonalise(case: Case, operator: Any, start: jax.Array) -> dict[str, Callable]:
    """`() -> T`, the tridiagonal matrix of 64 steps."""

    def product(v, operator, params, batch):
        return operator.contract(plain_product(case.loss, params, batch, operator.expand(v)))

    at = (operator, case.params, case.batch)  # arguments: XLA would fold constants while compiling

    @jax.jit
    def straightforward(start, *at):
        """One scan; two passes against the whole basis."""

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

    ways: dict[str, Callable] = {"a straightforward scan": lambda: straightforward(start, *at)}
    try:
        from matfree import decomp
    except ImportError:
        print("matfree is not installed: no column for it", flush=True)
    else:
        tridiagonalise = jax.jit(decomp.tridiag_sym(STEPS, reortho="full"), static_argnums=0)
        ways["matfree"] = lambda: tridiagonalise(product, start, *at).J_small
    return ways | torch_ways(case, ("Lanczos in PyTorch",))


def top_rows(case: Case, pairs: int) -> list[dict]:
    """The largest eigenvalue to 1e-3, ours with its bound."""
    operator = hessian(case.loss, case.params, [case.batch])

    def ours():
        return extremes(operator, KEY, smallest=0, tolerance=TOLERANCE, exact_below=0).largest

    exact = extremes(operator, KEY, tolerance=1e-6, steps=128, exact_below=0).largest[0]
    ways = torch_ways(case, ("power iteration in PyTorch",))
    for name, way in ways.items():
        error = abs(float(way()) - exact) / exact
        print(f"{case.name}: λmax by {name} is off by {100 * error:.2g} %", flush=True)
    error = abs(ours()[0] - exact) / exact
    print(f"{case.name}: ours is off by {100 * error:.2g} %", flush=True)
    runs = {name: alternated(ours, way, pairs) for name, way in ways.items()}
    return result(f"λmax to {TOLERANCE:g}, {case.name}", runs, dict.fromkeys(ways, 1 / 1.2))


def torch_ways(case: Case, wanted: tuple[str, ...]) -> dict[str, Callable]:
    """Power iteration and Lanczos as people write them in PyTorch, on the same network."""
    try:
        import torch
    except ImportError:
        print(f"torch is not installed: no {' or '.join(wanted)}", flush=True)
        return {}
    params, loss = _torch_twin(case, torch)
    gradients = torch.autograd.grad(loss, params, create_graph=True)
    size = sum(p.numel() for p in params)
    flat = torch.cat([g.reshape(-1) for g in gradients])

    def product(v: Any) -> Any:
        found = torch.autograd.grad(flat, params, grad_outputs=v, retain_graph=True)
        return torch.cat([part.reshape(-1) for part in found])

    def start() -> Any:
        torch.manual_seed(0)
        v = torch.randn(size)
        return v / v.norm()

    def power_iteration() -> float:
        v, before = start(), 0.0
        for _ in range(100):
            w = product(v)
            value = float(v @ w)
            v = w / w.norm()
            if abs(value - before) <= TOLERANCE * abs(value):
                break
            before = value
        return value

    def lanczos_iteration() -> np.ndarray:
        basis, matrix = torch.zeros(STEPS, size), np.zeros((STEPS, STEPS))
        q = start()
        for i in range(STEPS):
            basis[i] = q
            w = product(q)
            matrix[i, i] = float(q @ w)
            for _ in range(2):
                w = w - (basis[: i + 1] @ w) @ basis[: i + 1]
            length = w.norm()
            if i + 1 < STEPS:
                matrix[i, i + 1] = matrix[i + 1, i] = float(length)
            q = w / length
        return matrix

    ways = {
        "power iteration in PyTorch": power_iteration,
        "Lanczos in PyTorch": lanczos_iteration,
    }
    return {name: ways[name] for name in wanted}


def _torch_twin(case: Case, torch: Any) -> tuple[list[Any], Any]:
    """The same parameters and loss in PyTorch."""
    from torch.nn import functional

    names = sorted(case.params)
    params = []
    for name in names:
        kernel = np.array(case.params[name]["kernel"])
        order = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        params += [
            torch.tensor(kernel.transpose(order).copy()),
            torch.tensor(np.array(case.params[name]["bias"])),
        ]
    for p in params:
        p.requires_grad_(True)
    x, y = torch.tensor(np.array(case.batch.x)), torch.tensor(np.array(case.batch.y))
    h = x.permute(0, 3, 1, 2).contiguous()
    layers = list(zip(params[::2], params[1::2], strict=True))
    for kernel, bias in layers[:-1]:
        if kernel.ndim == 4:
            h = functional.max_pool2d(
                functional.relu(functional.conv2d(h, kernel, bias, padding=1)), 2
            )
        else:
            h = functional.relu(functional.linear(h.flatten(1), kernel, bias))
    if h.ndim == 4:  # the last kernel reads channels last, as Flax flattens
        h = h.permute(0, 2, 3, 1)
    logits = functional.linear(h.flatten(1), *layers[-1])
    return params, functional.cross_entropy(logits, y.long())


def exact_row(manual_dir: str, data_dir: str) -> dict:
    """The whole spectrum of LeNet-300-100 at a density of 3.6 %, and its parts' seconds."""
    images = data.load("mnist", data_dir=data_dir, manual_dir=manual_dir, seed=0, validation=5000)
    chosen = np.random.default_rng(0).permutation(len(images.train.y))[:5000]
    x, y = np.asarray(images.train.x)[chosen], np.asarray(images.train.y)[chosen]
    model = models.from_linen(models.MLP())
    params, _ = model.init(KEY, x[:1])
    prunable = lth.prunable_leaves(params)
    count = lth.globally().counts(params, 0.036, prunable=prunable)
    mask = lth.prune(lth.magnitude(), lth.globally())(
        params, lth.ones_like(params), count, prunable=prunable
    )
    batches = [
        Batch(jnp.asarray(x[i : i + 1000]), jnp.asarray(y[i : i + 1000]))
        for i in range(0, 5000, 1000)
    ]

    def loss(params: Any, batch: Batch) -> jax.Array:
        logits, _ = model.apply(params, {}, batch.x, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean()

    began = time.perf_counter()
    operator = hessian(loss, lth.apply_mask(mask, params), batches, mask=mask)
    matrix = spectrum.dense(operator)
    written = time.perf_counter()
    values = np.linalg.eigvalsh(matrix)
    ended = time.perf_counter()
    print(
        f"{operator.size} weights: matrix {written - began:.0f} s, eigvalsh {ended - written:.0f} s"
    )
    print(f"eigenvalues from {values[0]:.4g} to {values[-1]:.4g}")
    return {
        "case": f"exact spectrum, {operator.size} weights, 5,000 images",
        "ours": ended - began,
        "alternatives": {},
        "ratio": None,
        "spread": None,
        "goal": None,
        "met": None,
    }


def rows(arguments: argparse.Namespace) -> Iterator[dict]:
    """All rows, each as soon as it is measured."""
    if arguments.full:
        yield exact_row(arguments.manual_dir, arguments.data_dir)
        return
    pairs = 2 if arguments.quick else 9
    for case in cases(examples=128 if arguments.quick else 1000):
        yield from product_rows(case, 5 * pairs)
        yield from lanczos_rows(case, pairs)
        yield from top_rows(case, pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer examples and pairs")
    parser.add_argument(
        "--full", action="store_true", help="the exact spectrum of a ticket instead"
    )
    parser.add_argument("--manual_dir", default="", help="MNIST's idx files, for --full")
    parser.add_argument("--data_dir", default="runs/data", help="where prepared data lie")
    arguments = parser.parse_args()
    results = []
    for row in rows(arguments):
        ratio = "" if row["ratio"] is None else f", ratio {row['ratio']:.3f}"
        goal = "" if row["goal"] is None else f" (goal {row['goal']:.3g}: met {row['met']})"
        print(f"{row['case']}: {row['ours']:.4f} s{ratio}{goal}", flush=True)
        results.append(row)
    machine = f"{platform.processor() or platform.machine()}, {jax.devices()[0].device_kind}"
    print(json.dumps({"benchmark": "landscape", "machine": machine, "results": results}))


if __name__ == "__main__":
    main()
