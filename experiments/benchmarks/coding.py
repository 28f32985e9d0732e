"""Sizes of coded masks and values compared with their bounds, and coding speed.

    python -m experiments.benchmarks.coding [--quick]

Sizes are relative to the bound (n·H of the mask's density, or the entropy of the values), without
headers. Speeds are in millions of mask entries per second, measured in alternated rounds; `ratio`
is the median over rounds of ours over the fastest alternative within 0.2 % of the bound.
constriction and zstandard are compared if installed.
"""

import argparse
import importlib.util
import lzma
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax

from experiments.benchmarks.report import main
from lth_jax import coding, lottery
from lth_jax.analysis.ratios import Row, row
from lth_jax.coding import codecs, entropy, values
from lth_jax.models.mlp import MLP
from lth_jax.population import Plan

DENSITIES = (0.5, 0.1, 0.02)
SIDES = {"1e6": 1000, "25e6": 5000}
BOUND = 1.002  # the goal for sizes; only codes that reach it are compared for speed


class Coder(NamedTuple):
    """A code for boolean matrices: encode, length in bytes, and decode (in any shape)."""

    encode: Callable[[np.ndarray], Any]
    size: Callable[[Any], int]
    decode: Callable[[Any], np.ndarray]


def ours(shape: tuple[int, int], kept: int) -> Coder:
    """The shortest of the library's codes, including the choice."""
    return Coder(
        codecs.encode,
        lambda code: len(code[1]),
        lambda code: codecs.decode(code[0], code[1], shape, kept),
    )


def packed(compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes]) -> Coder:
    """A general compressor over packed bits."""
    return Coder(
        lambda mask: (mask.size, compress(np.packbits(mask).tobytes())),
        lambda code: len(code[1]),
        lambda code: np.unpackbits(np.frombuffer(decompress(code[1]), np.uint8), count=code[0]),
    )


def zstandard_coder() -> Coder:
    """Packed bits, then zstd at its level 19."""
    import zstandard

    compressor, decompressor = zstandard.ZstdCompressor(level=19), zstandard.ZstdDecompressor()
    return packed(compressor.compress, decompressor.decompress)


def csr_coder(side: int) -> Coder:
    """Compressed sparse rows: 16-bit columns and 32-bit row starts."""

    def encode(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = np.nonzero(mask)
        starts = np.searchsorted(rows, np.arange(side + 1))
        return starts.astype(np.uint32), columns.astype(np.uint16)

    def decode(code: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        counts = code[0][1:].astype(np.int64) - code[0][:-1]
        rows = np.repeat(np.arange(side), counts)
        mask = np.zeros((side, side), bool)
        mask[rows, code[1]] = True
        return mask

    return Coder(encode, lambda code: code[0].nbytes + code[1].nbytes, decode)


def constriction_coder(density: float) -> Coder:
    """A range coder with the true density, one flip at a time."""
    import constriction  # its submodules are attributes, and cannot be imported from

    queue = constriction.stream.queue
    flip = constriction.stream.model.Bernoulli(density, perfect=False)

    def encode(mask: np.ndarray) -> tuple[int, np.ndarray]:
        coder = queue.RangeEncoder()
        coder.encode(mask.ravel().astype(np.int32), flip)
        return mask.size, coder.get_compressed()

    def decode(code: tuple[int, np.ndarray]) -> np.ndarray:
        return queue.RangeDecoder(code[1]).decode(flip, code[0])

    return Coder(encode, lambda code: code[1].nbytes, decode)


def alternatives(side: int, density: float) -> dict[str, Coder]:
    """The installed alternatives."""
    found = {"packbits+lzma": packed(lzma.compress, lzma.decompress), "csr": csr_coder(side)}
    if importlib.util.find_spec("zstandard"):
        found["packbits+zstd-19"] = zstandard_coder()
    if importlib.util.find_spec("constriction"):
        found["constriction range"] = constriction_coder(density)
    return found


class Trial(NamedTuple):
    """One code of one mask, measured once."""

    size: int
    encode: float
    decode: float


def trial(coder: Coder, mask: np.ndarray) -> Trial:
    """Encodes and decodes once; raises if the result differs."""
    start = time.perf_counter()
    code = coder.encode(mask)
    middle = time.perf_counter()
    found = coder.decode(code)
    end = time.perf_counter()
    if not np.array_equal(found.ravel(), mask.ravel()):
        raise RuntimeError("a decoded mask differs")
    return Trial(coder.size(code), middle - start, end - middle)


def speed_row(
    case: str, entries: int, mine: list[float], others: dict[str, list[float]], near: list[str]
) -> Row:
    """Millions of entries per second, and the ratio to the fastest alternative near the bound."""
    rates = {name: entries / 1e6 / float(np.median(times)) for name, times in others.items()}
    pairs = [min(others[name][i] for name in near) / t for i, t in enumerate(mine)] if near else []
    ours = entries / 1e6 / float(np.median(mine))
    return row(case, ours, rates, pairs=pairs, goal=100.0, judged=ours, most=False)


def size_row(case: str, ours: float, alternatives: dict[str, float], goal: float) -> Row:
    """A size relative to its bound."""
    return row(case, ours, alternatives, goal=goal, judged=ours)


def random_masks(name: str, density: float, rounds: int) -> list[Row]:
    """Size and speeds for a random mask."""
    side = SIDES[name]
    mask = np.random.default_rng(0).random((side, side)) < density
    kept = int(mask.sum())
    coders = {"ours": ours(mask.shape, kept), **alternatives(side, density)}
    trial(coders["ours"], mask)  # warm-up: memory and tables
    trials = [{key: trial(coder, mask) for key, coder in coders.items()} for _ in range(rounds)]
    bound = entropy.layer_bits([(mask.size, kept)]) / 8
    sizes = {key: trials[0][key].size / bound for key in coders}
    mine = sizes.pop("ours")
    near = [key for key in sizes if sizes[key] <= BOUND]
    label = f"random mask, {name} entries, density {density}"
    rows = [size_row(f"{label}: payload / nH", mine, sizes, BOUND)]
    for part in ("encode", "decode"):
        times = {key: [getattr(t[key], part) for t in trials] for key in coders}
        rows.append(
            speed_row(f"{label}: {part}, Mbit/s", mask.size, times.pop("ours"), times, near)
        )
    return rows


def trained_masks(rounds: int, steps: int) -> Iterator[Row]:
    """Masks of iterative magnitude pruning on 8x8 digits and the enumerative bound per layer."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    digits = (images / 16.0).astype(np.float32), labels
    task = lottery.Task(MLP(), digits, optimizer=optax.adam(1e-3), batch_size=128, steps=steps)
    spec = lottery.imp(rounds, rate=0.3)
    result = lottery.run(task, spec, replicates=1, plan=Plan(1), progress=False)
    for level in range(1, rounds + 1):
        ticket = result.ticket(level)
        total = coding.table(coding.encode(ticket.mask, prunable=ticket.prunable)).total
        case = f"IMP mask, density {total.density:.3f}: payload / enumerative bound per layer"
        others = {
            "nH per layer": total.entropy_layers / total.enumerative,
            "nH global": total.entropy_global / total.enumerative,
        }
        yield size_row(case, total.mask / total.enumerative, others, 1.02)


def quantized_values() -> Row:
    """Normal values at four bits, compared with their entropy."""
    leaf = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
    code, kept = values.encode(leaf, np.ones(leaf.shape, bool), coding.integers(4))
    bound = entropy.empirical_bits(kept) / 8
    others = {"packed": kept.size / 2 / bound}
    case = "1e6 normal values at 4 bits: payload / entropy"
    return size_row(case, len(code) / bound, others, 1.01)


def large_ticket(rounds: int) -> Row:
    """Saving and loading a ticket of 25 million parameters at density 0.05."""
    rng = np.random.default_rng(0)
    params = {f"layer{i}": rng.normal(size=(2500, 2500)).astype(np.float32) for i in range(4)}
    mask = {name: rng.random(leaf.shape) < 0.05 for name, leaf in params.items()}
    prunable = dict.fromkeys(params, True)
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.ticket")
        for _ in range(rounds):
            start = time.perf_counter()
            coding.save(path, mask, params, prunable=prunable)
            coding.load(path)
            seconds.append(time.perf_counter() - start)
    median, spread = float(np.median(seconds)), [min(seconds), max(seconds)]
    case = "25e6 parameters at density 0.05, exact values: save and load, s"
    return row(case, median, goal=5.0, judged=median, spread=spread)


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Random masks, trained masks, values, and a whole ticket."""
    quick = options.quick
    for name in list(SIDES)[: 1 if quick else 2]:
        for density in DENSITIES:
            yield from random_masks(name, density, rounds=3)
    yield from trained_masks(rounds=6 if quick else 12, steps=50 if quick else 300)
    yield quantized_values()
    yield large_ticket(rounds=1 if quick else 3)


if __name__ == "__main__":
    main("coding", __doc__, measure)
