"""How long it takes to find removable units, and what a network gains by losing them.

    python -m experiments.benchmarks.structure [--quick]

Analysis: seconds of `find_groups` on the shapes of ResNet-50 and ViT-B/16, tracing included.
Speed: a compacted ResNet beside the masked one and beside a plain network built at that size, for
one forward pass and one training step; and beside torch-pruning in PyTorch, where that is installed
(`pip install torch-pruning`). Ratios are medians of alternated pairs.
"""

import argparse
import functools
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import structure as st
from lth_jax.analysis.timing import alternated
from lth_jax.models import NETWORKS, ResNet, from_linen
from lth_jax.types import Model

Case = dict[str, Any]


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


def analysis(name: str, repeats: int) -> Case:
    """Seconds of `find_groups`, beside those of tracing alone."""
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
    return result(f"analysis {name}, s", best, {"tracing alone": min(tracing)}, pairs, 2.0, best)


def result(
    case: str,
    ours: float,
    alternatives: dict[str, float],
    pairs: list[float],
    goal: float | None = None,
    judged: float | None = None,
) -> Case:
    """One line of the report; the goal, if there is one, is met if `judged` is at most `goal`."""
    return {
        "case": case,
        "ours": ours,
        "alternatives": alternatives,
        "ratio": statistics.median(pairs),
        "spread": [min(pairs), max(pairs)],
        "goal": goal,
        "met": None if goal is None or judged is None else judged <= goal,
    }


def speed(removed: float, width: int, batch: int, repeats: int) -> list[Case]:
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


def compared(case: str, times: dict[str, list[float]]) -> Case:
    """Compact against plain is the goal; how much faster than masked is printed beside it."""
    pairs = [a / b for a, b in zip(times["compact"], times["plain"], strict=True)]
    gains = [a / b for a, b in zip(times["masked"], times["compact"], strict=True)]
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = medians.pop("compact")
    line = result(case, ours, medians, pairs, 1.1, statistics.median(pairs))
    return line | {"times faster than masked": statistics.median(gains)}


def beside_torch_pruning(width: int, batch: int, repeats: int) -> list[Case]:
    """The same network in PyTorch, where half of its channels go by torch-pruning (Fang, 2023)."""
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
        jax.clear_caches()  # tracing is part of it
        st.find_groups(apply, variables, x)

    graphs = alternated({"ours": analyse, "theirs": theirs.analyse}, max(3, repeats // 4))
    found = st.find_groups(apply, variables, x)
    units = {g.name: np.arange(g.units) < g.units // 2 for g in found.groups}
    small, compact = st.compact(found, variables, units)
    theirs.prune(0.5)
    passes = alternated(
        {"ours": functools.partial(jax.jit(compact), small, x), "theirs": theirs.forward}, repeats
    )
    whole = f"ResNet-8 of width {width}"
    return [
        beside(f"analysis of {whole}, s", graphs),
        beside(f"forward of {whole}, 50% of the units removed, s", passes),
    ]


def beside(case: str, times: dict[str, list[float]]) -> Case:
    """Ours and torch-pruning's; there is no goal."""
    pairs = [a / b for a, b in zip(times["ours"], times["theirs"], strict=True)]
    medians = {name: statistics.median(values) for name, values in times.items()}
    return result(case, medians["ours"], {"torch-pruning": medians["theirs"]}, pairs)


def main() -> None:
    """Prints one line for each case, and the JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, a smaller network")
    quick = parser.parse_args().quick
    repeats, width, batch = (5, 16, 8) if quick else (21, 64, 32)
    results = [
        analysis("resnet50", 1 if quick else 3),
        analysis("vit_base", 1 if quick else 3),
    ]
    for removed in (0.5, 0.75):
        results += speed(removed, width, batch, repeats)
    results += beside_torch_pruning(width, batch, repeats)
    for line in results:
        print({k: line[k] for k in ("case", "ours", "alternatives", "ratio", "met")})
    machine = {"platform": platform.platform(), "cpus": os.cpu_count(), "jax": jax.__version__,
               "device": jax.devices()[0].device_kind}  # fmt: skip
    print(json.dumps({"benchmark": "structure", "machine": machine, "results": results}))


if __name__ == "__main__":
    main()
