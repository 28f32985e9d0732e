"""Tests the reader with damaged and forged ticket files.

    python -m tests.coding.fuzz_tickets --cases 100000 --seed 0

Whatever the bytes, reading them must give a ticket or a `TicketError`, soon and within the memory
that `max_bytes` grants. A file whose bytes were damaged by accident must never give another ticket.
"""

import argparse
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from lth_jax import coding
from lth_jax.coding import container
from lth_jax.coding.codecs import CODECS

MAX_BYTES = 1 << 22
Rng = np.random.Generator
Mutation = Callable[[Rng, bytes], bytes]


def samples(rng: Rng) -> list[bytes]:
    """Small tickets that together use every code for masks and values."""
    stripes = rng.random((64, 1)) < 0.3
    pairs = rng.permuted(np.tile([True, True, False, False], (64, 8, 1)), axis=-1)
    mask = {
        "blocks": stripes & (rng.random((64, 64)) < 0.7),
        "constant": np.ones(7, bool),
        "enumerative": rng.random((20, 20)) < 0.1,
        "gaps": rng.random((64, 64)) < 0.05,
        "n_of_m": pairs.reshape(64, 32),
        "packbits": rng.random((64, 40)) < 0.5,
    }
    params = jax.tree.map(lambda m: rng.normal(size=m.shape).astype(np.float32), mask)
    prunable = {name: name != "constant" for name in mask}
    about = {"level": 3, "criterion": "magnitude"}
    init = coding.Initializer("zeros", lambda key: params, jax.random.key(0))
    return [
        coding.encode(mask, prunable=prunable, provenance=about),
        coding.encode(mask, params, prunable=prunable),
        coding.encode(mask, params, prunable=prunable, precision=coding.integers(4, -1)),
        coding.encode(mask, params, prunable=prunable, precision=coding.bfloat16()),
        coding.encode(mask, prunable=prunable, initializer=init),
    ]


def flip(rng: Rng, data: bytes) -> bytes:
    """Flips one to eight bits anywhere."""
    out = np.frombuffer(data, np.uint8).copy()
    for at in rng.integers(len(out), size=rng.integers(1, 9)):
        out[at] ^= 1 << rng.integers(8)
    return out.tobytes()


def truncate(rng: Rng, data: bytes) -> bytes:
    """Cuts the end off."""
    return data[: rng.integers(len(data))]


def extend(rng: Rng, data: bytes) -> bytes:
    """Adds bytes after the end."""
    return data + rng.bytes(int(rng.integers(1, 20)))


def splice(rng: Rng, data: bytes) -> bytes:
    """Overwrites a stretch with noise, zeros or ones."""
    start = int(rng.integers(len(data)))
    stop = min(start + int(rng.integers(1, 64)), len(data))
    noise = [rng.bytes(stop - start), b"\0" * (stop - start), b"\xff" * (stop - start)]
    return data[:start] + noise[rng.integers(3)] + data[stop:]


def _odd(rng: Rng, value: Any) -> Any:
    """Something else to stand where a value stands, mostly of the same kind."""
    number = value if isinstance(value, int) else 8
    numbers = [0, 1, 2, number + 1, number - 1, 2 * number, number // 2, 2**31, 2**63, 10**30]
    words = [*CODECS, "float32", "float64", "int4", "exact", "bfloat16", "none", "../../etc/passwd"]
    others: list[Any] = [None, True, False, "", 0.5, [], {}, [1] * 40, [2**20, 2**20], [64, 32]]
    others += [[0, 64], [2**40, 0, 2**40], [0, 2**59 - 1], [2**62, 2**62, 0]]
    same_kind = numbers if isinstance(value, int) else words if isinstance(value, str) else others
    choices = same_kind if rng.random() < 0.8 else [*numbers, *words, *others]
    return choices[rng.integers(len(choices))]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _choose(rng: Rng, about: Any) -> tuple[Any, Any]:
    """Half of the time any place, else one of the few at the top, which leaves outnumber."""
    places = list(_places(about))
    if rng.random() < 0.5:
        places = [(about, key) for key in about]
    return places[rng.integers(len(places))]


def _empty(rng: Rng, about: Any) -> None:
    """Gives a leaf a shape without entries, which every limit on bytes allows."""
    leaves = about["leaves"]
    if isinstance(leaves, list) and leaves and isinstance(leaf := leaves[0], dict):
        axes = [0, *(1 << rng.integers(0, 63, rng.integers(0, 4))).tolist()]
        leaf.update(
            shape=rng.permutation(axes).tolist(), kept=0, codec=rng.choice([*CODECS]).item()
        )


def _sign(about: Any) -> Any:
    """Gives a forged manifest the SHA-256 that fits it."""
    unsigned = {key: value for key, value in about.items() if key != "sha256"}
    digest = hashlib.sha256(container.canonical_json(unsigned).encode()).hexdigest()
    return {**unsigned, "sha256": digest}


def forge(rng: Rng, data: bytes) -> bytes:
    """Changes the header and renews its hash, so that only later checks can detect it."""
    opened = container.read(data, len(data))
    about = opened.manifest
    for _ in range(rng.integers(1, 4)):
        place, key = _choose(rng, about)
        place[key] = _odd(rng, place[key])
    if rng.random() < 0.2:
        _empty(rng, about)
    blobs = {name: data[blob.start : blob.stop] for name, blob in opened.blobs.items()}
    return container.write(_sign(about), blobs)


def swap(rng: Rng, data: bytes) -> bytes:
    """Exchanges or damages blobs under a header that fits them."""
    opened = container.read(data, len(data))
    blobs = {name: data[blob.start : blob.stop] for name, blob in opened.blobs.items()}
    one, other = rng.choice(list(blobs), 2)
    blobs[one], blobs[other] = blobs[other], blobs[one]
    if blobs[one]:
        damage = (flip, truncate, extend, splice)[rng.integers(4)]
        blobs[one] = damage(rng, blobs[one])
    return container.write(opened.manifest, blobs)


ACCIDENTS: tuple[Mutation, ...] = (flip, truncate, extend, splice)
FORGERIES: tuple[Mutation, ...] = (forge, swap)


def _same(one: coding.Ticket, other: coding.Ticket) -> bool:
    leaves = zip(jax.tree.leaves(one[:2]), jax.tree.leaves(other[:2]), strict=True)
    return one.manifest == other.manifest and all(np.array_equal(a, b) for a, b in leaves)


def outcome(data: bytes, original: coding.Ticket | None, init: Any) -> str:
    """The result of reading: "refused", "same" or "another"; any other exception passes through."""
    try:
        found = coding.decode(data, init=init, max_bytes=MAX_BYTES)
        coding.table(data, max_bytes=MAX_BYTES)
    except coding.TicketError:
        return "refused"
    except ValueError as error:  # what the caller's `init` does not fit is the caller's to know
        if "`init`" not in str(error):
            raise
        return "refused"
    return "same" if original is not None and _same(found, original) else "another"


def fuzz(cases: int, seed: int) -> Counter[tuple[str, str]]:
    """Reads `cases` damaged and forged files; counts what came of it, by mutation.

    Raises:
      AssertionError: if damage gives another ticket than was saved, or reading takes a second.
    """
    rng = np.random.default_rng(seed)
    files = samples(rng)
    params = coding.decode(files[1]).params
    originals = [coding.decode(data, init=lambda key: params) for data in files]
    seen: Counter[tuple[str, str]] = Counter()
    for _ in range(cases):
        which = rng.integers(len(files))
        mutations = (*ACCIDENTS, *FORGERIES)
        mutation = mutations[rng.integers(len(mutations))]
        data = mutation(rng, files[which])
        start = time.process_time()
        init = None if rng.random() < 0.1 else lambda key: params
        got = outcome(data, originals[which], init)
        assert time.process_time() - start < 1.0, f"{mutation.__name__} takes too long"
        assert got != "another" or mutation in FORGERIES, f"{mutation.__name__} went unnoticed"
        seen[mutation.__name__, got] += 1
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for (mutation, got), count in sorted(fuzz(arguments.cases, arguments.seed).items()):
        print(f"{mutation:10} {got:10} {count:8}")


if __name__ == "__main__":
    main()
