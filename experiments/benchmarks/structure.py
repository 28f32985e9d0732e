"""How long it takes to find removable units, and what a network gains by losing them.

    python -m experiments.benchmarks.structure [--quick]

Analysis: seconds of `find_groups` on the shapes of ResNet-50 and ViT-B/16, tracing included.
Speed: a compacted ResNet beside the masked one and beside a plain network built at that size, for
one forward pass and one training step. Ratios are medians of alternated pairs.
"""

import argparse
import functools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lth_jax import structure as st
from lth_jax.models.adapters import from_linen
from lth_jax.models.resnet import ResNet

Case = dict[str, Any]


class Bottleneck(nn.Module):
    """A block of ResNet-50 (He et al., 2016), stride on the 3×3 convolution."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[batch, h, w, c]` to `[batch, h/stride, w/stride, 4 width]`."""
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        y = nn.relu(norm()(conv(self.width, (1, 1))(x)))
        y = nn.relu(norm()(conv(self.width, (3, 3), self.stride)(y)))
        y = norm()(conv(4 * self.width, (1, 1))(y))
        if x.shape != y.shape:
            x = norm()(conv(4 * self.width, (1, 1), self.stride)(x))
        return nn.relu(x + y)


class ResNet50(nn.Module):
    """ResNet-50 for 224×224 images."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[batch, 224, 224, 3]` to `[batch, 1000]`."""
        x = nn.Conv(64, (7, 7), (2, 2), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, blocks in enumerate((3, 4, 6, 3)):
            for k in range(blocks):
                x = Bottleneck(64 * 2**stage, 2 if stage and not k else 1)(x)
        return nn.Dense(1000)(x.mean((1, 2)))


class EncoderBlock(nn.Module):
    """A pre-norm transformer block."""

    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[batch, tokens, width]` to the same."""
        h = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads)(h, h)
        h = nn.gelu(nn.Dense(self.hidden)(nn.LayerNorm()(x)))
        return x + nn.Dense(x.shape[-1])(h)


class ViTB16(nn.Module):
    """ViT-B/16 (Dosovitskiy et al., 2021)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[batch, 224, 224, 3]` to `[batch, 1000]`."""
        x = nn.Conv(768, (16, 16), (16, 16))(x).reshape(len(x), -1, 768)
        cls = self.param("cls", nn.initializers.zeros, (1, 1, 768))
        x = jnp.concatenate([jnp.tile(cls, (len(x), 1, 1)), x], 1)
        x = x + self.param("position", nn.initializers.normal(0.02), (1, x.shape[1], 768))
        for _ in range(12):
            x = EncoderBlock(12, 3072)(x)
        return nn.Dense(1000)(nn.LayerNorm()(x)[:, 0])


def shapes_of(module: nn.Module) -> tuple[Any, jax.ShapeDtypeStruct]:
    """The shapes of a large module's variables and of one image."""
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), image), image


def analysis(name: str, module: nn.Module, repeats: int) -> Case:
    """Seconds of `find_groups`, beside those of tracing alone."""
    variables, image = shapes_of(module)
    apply: Any = module.apply

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
    goal: float,
    judged: float,
) -> Case:
    """One line of the report; the goal is met if `judged` is at most `goal`."""
    return {
        "case": case,
        "ours": ours,
        "alternatives": alternatives,
        "ratio": statistics.median(pairs),
        "spread": [min(pairs), max(pairs)],
        "goal": goal,
        "met": judged <= goal,
    }


def alternated(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each function in each round, after one call that compiles."""
    for f in functions.values():
        jax.block_until_ready(f())
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, f in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(f())
            times[name].append(time.perf_counter() - start)
    return times


def speed(removed: float, width: int, batch: int, repeats: int) -> list[Case]:
    """Forward pass and training step: compact, masked, and plain at the compact size."""
    kept = round(width * (1 - removed))
    models = {n: from_linen(ResNet(width=w)) for n, w in (("wide", width), ("plain", kept))}
    x = jax.random.normal(jax.random.key(1), (batch, 32, 32, 3))
    y = jax.random.randint(jax.random.key(2), (batch,), 0, 10)
    variables = {n: m.init(jax.random.key(0), x) for n, m in models.items()}

    def eval_of(model: Any) -> Callable[..., Any]:
        return lambda variables, x: model.apply(*variables, x, train=False)[0]

    wide, plain = eval_of(models["wide"]), eval_of(models["plain"])
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


def main() -> None:
    """Prints one line for each case, and the JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, a smaller network")
    quick = parser.parse_args().quick
    repeats, width, batch = (5, 16, 8) if quick else (21, 64, 32)
    results = [
        analysis("ResNet-50", ResNet50(), 1 if quick else 3),
        analysis("ViT-B/16", ViTB16(), 1 if quick else 3),
    ]
    for removed in (0.5,) if quick else (0.5, 0.75):
        results += speed(removed, width, batch, repeats)
    for line in results:
        print({k: line[k] for k in ("case", "ours", "alternatives", "ratio", "met")})
    machine = {"platform": platform.platform(), "cpus": os.cpu_count(), "jax": jax.__version__,
               "device": jax.devices()[0].device_kind}  # fmt: skip
    print(json.dumps({"benchmark": "structure", "machine": machine, "results": results}))


if __name__ == "__main__":
    main()
