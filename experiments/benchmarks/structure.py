"""Time to find removable units, and speed of compacted networks.

    python -m experiments.benchmarks.structure [--quick]

Analysis: seconds of `find_groups` on the shapes of ResNet-50 and ViT-B/16, tracing included. Speed:
a compacted ResNet compared with the masked one and with a plain network of that size, for one
forward pass and one training step; and with torch-pruning in PyTorch, if installed (`pip install
torch-pruning`). Ratios are medians of alternated pairs.
"""

import argparse
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.report import main
from lth_jax import structure as st
from lth_jax.analysis.ratios import OURS, Row, beside, row
from lth_jax.models import NETWORKS, ResNet, from_linen
from lth_jax.timing import alternated
from lth_jax.types import Model

THEIRS = "torch-pruning"


def shapes_of(name: str) -> tuple[Callable[..., Any], Any, jax.ShapeDtypeStruct]:
    """A large network's evaluation, the shapes of its variables, and one image."""
    model = from_linen(NETWORKS[name]())
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), image)
    return evaluation(model), {"params": params, "state": state}, image


def evaluation(model: Model) -> Callable[..., Any]:
    """`(variables, x) -> logits`, parameters and state as one tree."""

    def apply(variables: Any, x: Any) -> Any:
        return model.apply(variables["params"], variables["state"], x, train=False)[0]

    return apply


def analysis(name: str, repeats: int) -> Row:
    """Seconds of `find_groups`, and of tracing alone."""
    apply, variables, image = shapes_of(name)

    def seconds(f: Callable[[], Any]) -> float:
        jax.clear_caches()
        start = time.perf_counter()
        f()
        return time.perf_counter() - start

    ours, tracing = [], []
    for _ in range(repeats):
        ours.append(seconds(lambda: st.find_groups(apply, variables, image)))
        tracing.append(seconds(lambda: jax.make_jaxpr(apply)(variables, image)))
    pairs = [a / b for a, b in zip(ours, tracing, strict=True)]
    best = min(ours)
    other = {"tracing alone": min(tracing)}
    return row(f"analysis {name}, s", best, other, pairs=pairs, goal=2.0, judged=best)


def speed(removed: float, width: int, batch: int, repeats: int) -> list[Row]:
    """Forward pass and training step: compact, masked, and plain at the compact size."""
    kept = round(width * (1 - removed))
    models = {n: from_linen(ResNet(width=w)) for n, w in (("wide", width), ("plain", kept))}
    x = jax.random.normal(jax.random.key(1), (batch, 32, 32, 3))
    y = jax.random.randint(jax.random.key(2), (batch,), 0, 10)
    variables = {n: dict(zip(("params", "state"), m.init(jax.random.key(0), x), strict=True))
                 for n, m in models.items()}  # fmt: skip

    wide, plain = evaluation(models["wide"]), evaluation(models["plain"])
    found = st.find_groups(wide, variables["wide"], x)
    units = {g.name: np.arange(g.units) < round(g.units * kept / width) for g in found.groups}
    small, compact = st.compact(found, variables["wide"], units)
    st.check_fits(lambda: variables["plain"], small)
    masked = jax.tree.map(jnp.multiply, st.expand(found, units), variables["wide"])
    nets = {"compact": (compact, small), "masked": (wide, masked),
            "plain": (plain, variables["plain"])}  # fmt: skip

    def loss(apply: Any, variables: Any) -> jax.Array:
        logits = apply(variables, x)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()

    def step(apply: Any, variables: Any) -> Any:
        grads = jax.grad(functools.partial(loss, apply))(variables)
        return jax.tree.map(lambda p, g: p - 0.01 * g, variables, grads)

    cases = []
    for what, run in (("forward", lambda f, v: f(v, x)), ("training step", step)):
        jitted = {
            name: functools.partial(jax.jit(functools.partial(run, f)), v)
            for name, (f, v) in nets.items()
        }
        cases.append(compared(f"{what}, {removed:.0%} of the units removed, s",
                              alternated(jitted, repeats)))  # fmt: skip
    return cases


def compared(case: str, times: dict[str, list[float]]) -> Row:
    """Rows of compact against plain (with a goal) and against masked."""
    pairs = [a / b for a, b in zip(times["compact"], times["plain"], strict=True)]
    gains = [a / b for a, b in zip(times["masked"], times["compact"], strict=True)]
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = medians.pop("compact")
    faster: dict[str, Any] = {"times faster than masked": statistics.median(gains)}
    return row(case, ours, medians, pairs=pairs, goal=1.1, **faster)


def beside_torch_pruning(width: int, batch: int, repeats: int) -> list[Row]:
    """The same network in PyTorch without half of its channels, by torch-pruning (Fang, 2023)."""
    if importlib.util.find_spec("torch_pruning") is None:
        print("torch-pruning is not installed; nothing is compared with it.")
        return []
    from experiments.benchmarks import torch_pruned

    model = from_linen(ResNet(width=width))
    x = jax.random.normal(jax.random.key(1), (batch, 32, 32, 3))
    variables = dict(zip(("params", "state"), model.init(jax.random.key(0), x), strict=True))
    apply = evaluation(model)
    theirs = torch_pruned.Network(width, batch)

    def analyse() -> None:
        jax.clear_caches()  # includes tracing
        st.find_groups(apply, variables, x)

    graphs = alternated({OURS: analyse, THEIRS: theirs.analyse}, max(3, repeats // 4))
    found = st.find_groups(apply, variables, x)
    units = {g.name: np.arange(g.units) < g.units // 2 for g in found.groups}
    small, compact = st.compact(found, variables, units)
    theirs.prune(0.5)
    passes = alternated(
        {OURS: functools.partial(jax.jit(compact), small, x), THEIRS: theirs.forward}, repeats
    )
    whole = f"ResNet-8 of width {width}"
    return [
        beside(f"analysis of {whole}, s", graphs, THEIRS),
        beside(f"forward of {whole}, 50% of the units removed, s", passes, THEIRS),
    ]


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Analyses, then speed, then torch-pruning."""
    quick = options.quick
    repeats, width, batch = (5, 16, 8) if quick else (21, 64, 32)
    for name in ("resnet50", "vit_base"):
        yield analysis(name, 1 if quick else 3)
    for removed in (0.5, 0.75):
        yield from speed(removed, width, batch, repeats)
    yield from beside_torch_pruning(width, batch, repeats)


if __name__ == "__main__":
    main("structure", __doc__, measure)
