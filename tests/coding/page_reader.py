"""A reader of `.ticket` files in NumPy, written from docs/ticket_format.md alone."""

import hashlib
import itertools
import json
import math

import ml_dtypes  # noqa: F401  gives NumPy bfloat16 and the other small dtypes
import numpy as np


def bits_of(data):
    return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")


def integers(bits, width):
    return (bits.reshape(-1, width).astype(np.int64) << np.arange(width)).sum(1)


class Blob:
    def __init__(self, data):
        self.data = data

    def take(self, count):
        found, self.data = self.data[:count], self.data[count:]
        return found

    def varint(self):
        value, shift, byte = 0, 0, 128
        while byte & 128:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
        return value

    def packed(self, count, width):
        return integers(bits_of(self.take((count * width + 7) // 8))[: count * width], width)


def normalize(weights):
    total = sum(weights)
    table = [max(w * 8192 // total, w > 0) for w in weights]
    missing = 8192 - sum(table)
    remainders = sorted(range(len(weights)), key=lambda i: -(weights[i] * 8192 % total))
    for i in remainders[: max(missing, 0)]:
        table[i] += 1
    for _ in range(-missing):
        table[table.index(max(table))] -= 1
    return table


def slots(table):
    """Symbol, width and base of the 8192 slots."""
    symbol = np.zeros(8192, int)
    symbol[np.arange(8192) * 5123 % 8192] = np.repeat(np.arange(len(table)), table)
    small = np.zeros(8192, int)
    for s, f in enumerate(table):
        small[symbol == s] = np.arange(f, 2 * f)
    width = np.array([14 - int(n).bit_length() for n in small])
    return symbol, width, (small << width) - 8192


def phases(tables, uses):
    log = lambda f: (f.bit_length() - 1 << 8) + ((f << 8) >> f.bit_length() - 1) - 256  # noqa: E731
    entropy = [sum(f * (3328 - log(f)) for f in map(int, table) if f) for table in tables]
    pushed = max(sum(e * u for e, u in zip(entropy, uses, strict=True)), 1)
    left = sum(uses)
    steps = min((48 << 21) * left // pushed + 2, 512)
    found, lanes = [], 1
    while left:
        last = 4 * lanes > 4096 or left <= steps * lanes + max(steps, 64) * 4 * lanes
        start = 0 if last else left - steps * lanes
        found.append((lanes, start, left))
        left, lanes = start, 4 * lanes
    return found[::-1]


def stream(blob, tables, contexts, raw=0):
    """The symbols with these contexts, and the raw bits."""
    bits = bits_of(blob.data)
    stack = list(bits[: np.flatnonzero(bits)[-1]])
    decoders = [slots(table) for table in tables]
    uses = [contexts.count(row) for row in range(len(tables))]
    plan, states, out = phases(tables, uses), [], []

    def pop(width):
        taken = stack[len(stack) - width :]
        del stack[len(stack) - width :]
        return sum(int(bit) << i for i, bit in enumerate(taken))

    if plan:
        states = [pop(13) for _ in range(plan[0][0])][::-1]
    for lanes, start, stop in plan:
        for state in states[lanes:]:
            stack += [state >> i & 1 for i in range(13)]
        states = states[:lanes]
        for i in range(start, stop):
            lane = (i - start) % lanes
            symbol, width, base = decoders[contexts[i]]
            slot = states[lane]
            out.append(int(symbol[slot]))
            states[lane] = int(base[slot]) + pop(int(width[slot]))
    below = len(stack) - raw
    assert not any(states) and not any(stack[:below])
    return out, np.array(stack[below:], np.uint8)


def symbols(blob, count, alphabet):
    if blob.varint() == 0:
        width = (alphabet - 1).bit_length()
        return blob.packed(count, width) if width else np.zeros(count, int)
    table = blob.packed(blob.varint(), 14)
    return np.array(stream(blob, [table], [0] * count)[0], int)


def gaps(blob, sizes, kept):
    """Positions over all blocks."""
    shifts, tables, escapes = [], [], [blob.varint() for _ in sizes]
    for n, k in zip(sizes, kept, strict=True):
        shift = max((n // (16 * k)).bit_length() - 1, 0) if k else 0
        ratio = ((n - k) << 32) // n if k else 0
        for _ in range(shift):
            ratio = ratio * ratio >> 32
        tails = [1 << 32] if k else [1]
        while k and tails[-1] > 1 << 22 and len(tails) < 256:
            tails.append(tails[-1] * ratio >> 32)
        laws = [a - b for a, b in itertools.pairwise(tails)]
        tables.append(normalize(laws + tails[-1:]))
        shifts.append(shift)
    contexts = [b for b in range(len(sizes)) for _ in range(kept[b] + escapes[b])]
    raw = sum(s * k for s, k in zip(shifts, kept, strict=True))
    found, low = stream(blob, tables, contexts, raw)
    positions, start, at = [], 0, 0
    found = iter(found)
    for n, k, shift, table in zip(sizes, kept, shifts, tables, strict=True):
        previous = start - 1
        for _ in range(k):
            high = symbol = next(found)
            while symbol == len(table) - 1:
                symbol = next(found)
                high += symbol
            rest = int(integers(low[at : at + shift], shift)[0]) if shift else 0
            at += shift
            previous += (high << shift) + rest + 1
            positions.append(previous)
        start += n
    return np.array(positions, int)


def blocks(blob, rows, columns):
    a, b = blob.varint(), blob.varint()
    kept = [blob.varint() for _ in range(a * b)]
    lengths = blob.varint(), blob.varint()
    row = symbols(Blob(blob.take(lengths[0])), rows, a)
    column = symbols(Blob(blob.take(lengths[1])), columns, b)
    cells = [
        [(i, j) for i in np.flatnonzero(row == r) for j in np.flatnonzero(column == c)]
        for r in range(a)
        for c in range(b)
    ]
    flat = [cell for block in cells for cell in block]
    mask = np.zeros((rows, columns), bool)
    for position in gaps(blob, list(map(len, cells)), kept):
        mask[flat[position]] = True
    return mask


def mask_of(codec, data, shape, kept):
    blob, size = Blob(data), math.prod(shape)
    few, invert = min(kept, size - kept), 2 * kept > size
    if codec == "constant" or 0 in shape:
        return np.full(shape, kept > 0)
    if codec == "packbits":
        return bits_of(data)[:size].astype(bool).reshape(shape)
    if codec == "blocks":
        columns = shape[-1] if shape else 1
        return blocks(blob, size // columns, columns).reshape(shape)
    if codec == "n_of_m":
        axis, m = blob.varint(), blob.varint()
        patterns = [p for p in range(1 << m) if p.bit_count() == kept * m // size]
        table = normalize([1] * len(patterns))
        found, _ = stream(blob, [table], [0] * (size // m))
        bits = np.array([patterns[s] >> i & 1 for s in found for i in range(m)], bool)
        moved = shape[:axis] + shape[axis + 1 :] + shape[axis : axis + 1]
        return np.moveaxis(bits.reshape(moved), -1, axis)
    if codec == "enumerative":
        rank, positions, p = int.from_bytes(data, "little"), [], size
        for i in range(few, 0, -1):
            p = next(q for q in range(p - 1, -1, -1) if math.comb(q, i) <= rank)
            rank -= math.comb(p, i)
            positions.append(p)
    elif codec == "rice":
        width = blob.varint()
        low = blob.packed(few, width) if width else np.zeros(few, int)
        ends = np.flatnonzero(bits_of(blob.data))
        high = np.diff(ends, prepend=-1) - 1
        positions = np.cumsum((high << width) + low + 1) - 1
    else:
        assert codec == "gaps"
        positions = gaps(blob, [size], [few])
    mask = np.full(size, invert)
    mask[positions] = not invert
    return mask.reshape(shape)


def values_of(precision, data, mask, dtype):
    blob, count = Blob(data), int(mask.sum())
    if precision["kind"] == "integers":
        axis = precision["channel_axis"]
        channels = 1 if axis is None else mask.shape[axis]
        scale = np.frombuffer(blob.take(4 * channels), "<f4")
        largest = 2 ** (precision["bits"] - 1) - 1
        codes = symbols(blob, count, 2 * largest + 1) - largest
        which = 0 if axis is None else np.argwhere(mask)[:, axis]
        return (codes.astype("<f4") * scale[which]).astype(dtype)
    stored = np.dtype("bfloat16") if precision["kind"] == "bfloat16" else dtype
    planes = [symbols(Blob(blob.take(blob.varint())), count, 256) for _ in range(stored.itemsize)]
    data = np.array(planes, np.uint8).T.tobytes()
    return np.frombuffer(data, stored).astype(dtype)


def read(data):
    """`name -> (mask, values or None)`, and the manifest."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    about = json.loads(header.pop("__metadata__")["lth_jax.ticket"])
    digest = about.pop("sha256")
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    assert about["version"] == 1 and hashlib.sha256(text.encode()).hexdigest() == digest

    def blob(name):
        begin, end = header[name]["data_offsets"]
        return data[start + begin : start + end]

    found = {}
    for leaf in about["leaves"]:
        shape = tuple(leaf["shape"])
        mask = mask_of(leaf["codec"], blob("mask:" + leaf["name"]), shape, leaf["kept"])
        dense, kept = None, b""
        if about["values"] == "embedded":
            dtype = np.dtype(leaf["dtype"])
            values = values_of(leaf["precision"], blob("values:" + leaf["name"]), mask, dtype)
            dense, kept = np.zeros(shape, dtype), values.tobytes()
            dense[mask] = values
        if about["values"] != "initializer":
            packed = np.packbits(mask, bitorder="little").tobytes()
            assert hashlib.sha256(packed + kept).hexdigest() == leaf["sha256"], leaf["name"]
        found[leaf["name"]] = mask, dense
    return found, about
