"""Rules of programs for many devices: `shard_map` and the collectives inside it."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lth_jax.structure.constraints import Atoms, Axes, Links
from lth_jax.structure.graph import Op
from lth_jax.structure.rules import Shrunk, register, same, walk

# --- shard_map


def _shards(op: Op, spec: Any, d: int) -> int:
    """The number of devices over which a partition spec splits axis `d`."""
    entry = spec[d] if d < len(spec) else None
    names = entry if isinstance(entry, tuple) else (entry,)
    return math.prod(op.params["mesh"].shape[name] for name in names if name is not None)


def _one_shard(links: Links, atoms: Atoms, shards: int) -> Atoms:
    """The local axis of a split axis: all devices lose the same local indices."""
    rows = atoms.reshape(shards, -1)
    links.tie(np.broadcast_to(rows[:1], rows.shape), rows)
    return links.with_content(rows[0], links.content(rows).max(axis=0))


def _shard_map(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    inner = [
        [_one_shard(links, atoms, _shards(op, spec, d)) for d, atoms in enumerate(axes)]
        for axes, spec in zip(ins, op.params["in_specs"], strict=True)
    ]
    outs = walk(links, op.blocks[0], inner)
    return [
        [np.tile(atoms, _shards(op, spec, d)) for d, atoms in enumerate(axes)]
        for axes, spec in zip(outs, op.params["out_specs"], strict=True)
    ]


def _run_shard_map(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    body = jax.shard_map(
        lambda *xs: tuple(shrunk.block(op.blocks[0], xs)),
        mesh=op.params["mesh"],
        in_specs=op.params["in_specs"],
        out_specs=op.params["out_specs"],
        axis_names=op.params["newly_manual_axes"],
        check_vma=op.params["check_vma"],
    )
    return list(body(*args))


register("shard_map", link=_shard_map, run=_run_shard_map)


# --- collectives


def _reduced(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """An elementwise reduction over devices; axes given by number are reduced too."""
    gone = [axis for axis in op.params["axes"] if isinstance(axis, int)]
    for axes in ins:
        for d in gone:
            held = links.content(axes[d])
            links.add_up(axes[d], held, f"`{op.name}` runs over units")
    return [[atoms for d, atoms in enumerate(axes) if d not in gone] for axes in ins]


def _all_gather(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    along, size = op.params["all_gather_dimension"], op.params["axis_size"]
    axes = ins[0]
    if op.params["tiled"]:
        return [[np.tile(a, size) if d == along else a for d, a in enumerate(axes)]]
    return [[*axes[:along], links.stuck(size, f"an axis created by `{op.name}`"), *axes[along:]]]


def _reduce_scatter(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    along, axes = op.params["scatter_dimension"], ins[0]
    if op.params["tiled"]:
        part = _one_shard(links, axes[along], op.params["axis_size"])
        return [[*axes[:along], part, *axes[along + 1 :]]]
    links.pin(axes[along], f"an axis split by `{op.name}`")
    return [[*axes[:along], *axes[along + 1 :]]]


def _all_to_all(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """Each device sends parts of one axis to the others and concatenates along another."""
    split, joined = op.params["split_axis"], op.params["concat_axis"]
    size, out = _group_size(op), list(ins[0])
    out[split] = _one_shard(links, out[split], size)
    out[joined] = np.tile(out[joined], size)
    return [out]


def _group_size(op: Op) -> int:
    """The number of devices of a collective."""
    groups, names = op.params["axis_index_groups"], op.params["axis_name"]
    if groups is not None:
        return len(groups[0])
    mesh = op.context.cur_abstract_mesh
    return math.prod(mesh.shape[n] for n in (names if isinstance(names, tuple | list) else [names]))


register(
    "pmax", "pmin", "preduced", "psum", "psum_invariant", "pvary", "unreduced_psum",
    "vary_unreduced_cast_p",
    link=_reduced,
)  # fmt: skip
register("pbroadcast", "ppermute", link=same)
register("all_gather", "all_gather_invariant", "all_gather_reduced", link=_all_gather)
register("reduce_scatter", "unreduced_reduce_scatter", link=_reduce_scatter)
register("all_to_all", link=_all_to_all)
