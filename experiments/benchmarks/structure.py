"""Time to find removable units, and speed of compacted networks.

    python -m experiments.benchmarks.structure [--quick]

Analysis: CPU seconds of `find_groups` on the shapes of ResNet-50 and ViT-B/16, tracing included;
the same and the peak memory for a decoder of 7 billion weights, each in a process of its own.
Speed: a compacted ResNet compared with the masked one and with a plain network of that size, for
one forward pass and one training step. If torch-pruning is installed (`pip install torch-pruning`),
the same networks in PyTorch: analysis, units found, and the forward pass without half of the units
of every group. Ratios are medians of alternated pairs.
"""

import argparse
import functools
import importlib.util
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.report import main
from experiments.benchmarks.structure_networks import ConvNeXt, Decoder
from lth_jax import structure as st
from lth_jax.analysis.ratios import OURS, Row, beside, row
from lth_jax.models import NETWORKS, ResNet, VisionTransformer, from_linen
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
    """CPU seconds of `find_groups`, and of tracing alone."""
    apply, variables, image = shapes_of(name)

    def seconds(f: Callable[[], Any]) -> float:
        jax.clear_caches()
        start = time.process_time()
        f()
        return time.process_time() - start

    ours, tracing = [], []
    for _ in range(repeats):
        ours.append(seconds(lambda: st.find_groups(apply, variables, image)))
        tracing.append(seconds(lambda: jax.make_jaxpr(apply)(variables, image)))
    pairs = [a / b for a, b in zip(ours, tracing, strict=True)]
    best = min(ours)
    other = {"tracing alone": min(tracing)}
    return row(f"analysis {name}, s of CPU time", best, other, pairs=pairs, goal=2.0, judged=best)


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


def large(layers: int, scanned: bool) -> list[Row]:
    """The decoder of 7 billion weights (with all 32 layers), in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, memory, units = pool.apply(analyse_decoder, (layers, scanned))
    case = f"decoder of width 4096, {layers} layers {'in a scan' if scanned else 'unrolled'}"
    return [
        row(
            f"analysis of a {case}, s of CPU time", seconds, goal=20.0, judged=seconds, units=units
        ),
        row(f"peak memory of that, GB: {case}", memory, goal=2.0, judged=memory),
    ]


def analyse_decoder(layers: int, scanned: bool) -> tuple[float, float, int]:
    """CPU seconds of `find_groups`, peak GB of the process, and the number of units."""
    network = Decoder(layers=layers, scanned=scanned)
    start = time.process_time()
    found = st.find_groups(network.apply, network.shapes(), tokens(1, 8))
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return seconds, peak, sum(group.units for group in found.groups)


def tokens(batch: int, time: int) -> jax.ShapeDtypeStruct:
    """The shape of a batch of tokens."""
    return jax.ShapeDtypeStruct((batch, time), jnp.int32)


_FULL: dict[str, dict[str, Any]] = {
    "ResNet-50": dict(blocks=(3, 4, 6, 3), width=64, classes=1000),
    "ConvNeXt": dict(blocks=(3, 3, 9, 3), width=96, classes=1000),
    "ViT": dict(patch=16, width=768, layers=12, heads=12, hidden=3072, classes=1000),
    "decoder": dict(width=1024, layers=4, heads=16, hidden=2816, vocabulary=32000),
}
_QUICK: dict[str, dict[str, Any]] = {
    "ResNet-50": dict(blocks=(1, 1), width=16, classes=10),
    "ConvNeXt": dict(blocks=(1, 1), width=16, classes=10),
    "ViT": dict(patch=16, width=32, layers=2, heads=4, hidden=64, classes=10),
    "decoder": dict(width=32, layers=2, heads=4, hidden=32, vocabulary=32),
}

Case = tuple[Callable[..., Any], Any, jax.ShapeDtypeStruct, dict[str, Any]]
"""A function of parameters and inputs, their shapes, and the sizes of the same PyTorch network."""


def peers(quick: bool) -> Iterator[tuple[str, Case]]:
    """The networks that are compared with those of torch-pruning."""
    side, batch = (64, 1) if quick else (224, 4)
    image = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)

    def of_model(model: Model) -> tuple[Callable[..., Any], Any, jax.ShapeDtypeStruct]:
        params, state = jax.eval_shape(model.init, jax.random.key(0), image)
        return evaluation(model), {"params": params, "state": state}, image

    sizes = _QUICK if quick else _FULL
    resnet = ResNet(**sizes["ResNet-50"], bottleneck=True, large_images=True)
    yield "ResNet-50", (*of_model(from_linen(resnet)), sizes["ResNet-50"])
    convnext = from_linen(ConvNeXt(**sizes["ConvNeXt"]))
    yield "ConvNeXt", (*of_model(convnext), sizes["ConvNeXt"])
    vit = from_linen(VisionTransformer(**sizes["ViT"]))
    yield "ViT", (*of_model(vit), sizes["ViT"] | {"side": side})
    decoder = Decoder(**sizes["decoder"], dtype=jnp.float32)
    text = tokens(1, 8 if quick else 256)
    yield "decoder", (decoder.apply, decoder.shapes(), text, sizes["decoder"])


def beside_torch_pruning(quick: bool, repeats: int) -> Iterator[Row]:
    """The same networks in PyTorch without half of their units, by torch-pruning (Fang, 2023)."""
    if importlib.util.find_spec("torch_pruning") is None:
        print("torch-pruning is not installed; nothing is compared with it.")
        return
    from experiments.benchmarks import torch_pruned

    for name, (apply, shapes, inputs, sizes) in peers(quick):
        shape = (inputs.shape[0], 3, *inputs.shape[1:3]) if len(inputs.shape) == 4 else inputs.shape
        theirs = torch_pruned.Pruned(name, shape, **sizes)

        def analyse(apply: Any = apply, shapes: Any = shapes, inputs: Any = inputs) -> None:
            jax.clear_caches()  # includes tracing
            st.find_groups(apply, shapes, inputs)

        graphs = alternated({OURS: analyse, THEIRS: theirs.analyse}, max(3, repeats // 4))
        found = st.find_groups(apply, shapes, inputs)
        units = {"ours": sum(g.units for g in found.groups), THEIRS: theirs.analyse()}
        yield beside(f"analysis of {name}, s", graphs, THEIRS, units=units)
        yield half(name, (apply, shapes, inputs, sizes), found, theirs, repeats)
    try:
        torch_pruned.Pruned("decoder", (1, 8), **sizes, split=True).analyse()
        refused = None
    except Exception as error:  # whatever it raises
        refused = f"{type(error).__name__}: {error}"
    yield row("torch-pruning on a decoder whose rotary positions split an axis", refused or "found")


def half(name: str, case: Case, found: st.Structure, theirs: Any, repeats: int) -> Row:
    """The forward pass without half of the units of every group, and what it gains."""
    apply, shapes, inputs, _ = case
    params, x = random_like(shapes, inputs)
    units = {g.name: np.arange(g.units) < g.units // 2 for g in found.groups}
    small, compact = st.compact(found, params, units)
    runs = {OURS: (jax.jit(apply), params), "compact": (jax.jit(compact), small)}
    costs: Any = [f.lower(p, x).cost_analysis() for f, p in runs.values()]
    passes = {way: functools.partial(f, p, x) for way, (f, p) in runs.items()}
    dense = alternated({OURS: passes[OURS], THEIRS: theirs.forward}, repeats)
    left, untouched = theirs.prune(0.5)
    after = alternated({OURS: passes["compact"], THEIRS: theirs.forward}, repeats)
    gains = {way: statistics.median(dense[way]) / statistics.median(after[way]) for way in dense}
    pinned = {leaf for leaf in found.shapes if not any(
        slot.leaf == leaf for group in found.groups for slot in group.slots)}  # fmt: skip
    return beside(
        f"forward of {name}, 50% of the units removed, s", after, THEIRS, faster=gains,
        flops={OURS: costs[1]["flops"] / costs[0]["flops"], THEIRS: left},
        untouched={OURS: sorted(pinned), THEIRS: untouched},
    )  # fmt: skip


def random_like(shapes: Any, inputs: jax.ShapeDtypeStruct) -> tuple[Any, jax.Array]:
    """Small positive parameters (variances among them), and inputs."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: jnp.asarray(0.02 * rng.random(s.shape), s.dtype), shapes)
    return params, jnp.asarray(2 * rng.random(inputs.shape), inputs.dtype)


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Analyses, then speed, then torch-pruning."""
    quick = options.quick
    repeats, width, batch = (5, 16, 8) if quick else (21, 64, 32)
    for scanned in (False, True):  # first, since a new process inherits the peak of its parent
        yield from large(2 if quick else 32, scanned)
    for name in ("resnet50", "vit_base"):
        yield analysis(name, 1 if quick else 3)
    for removed in (0.5, 0.75):
        yield from speed(removed, width, batch, repeats)
    yield from beside_torch_pruning(quick, repeats if quick else 9)


if __name__ == "__main__":
    main("structure", __doc__, measure)
