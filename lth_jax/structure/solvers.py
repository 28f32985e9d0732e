"""Rules of the primitives that mix all entries of some axes: Fourier transforms, linear algebra.

The axes that they do not touch pass; the others must stay.
"""

import numpy as np

from lth_jax.structure.graph import Op
from lth_jax.structure.links import WILD, ZERO, Atoms, Axes, Links
from lth_jax.structure.rules import refuse, register


def _fft(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """Linear along the last axes, one for each of `fft_lengths`."""
    reason, first = "`fft` runs along it", len(ins[0]) - len(op.params["fft_lengths"])
    for atoms in ins[0][first:]:
        links.pin(atoms, reason)
    return [[*ins[0][:first], *(links.stuck(n, reason) for n in op.outs[0].shape[first:])]]


register("fft", link=_fft)


def _by_matrix(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    return _batched(links, op, ins, len(ins[0]) - 2)


def _by_vector(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    return _batched(links, op, ins, len(ins[0]) - 1)


def _batched(links: Links, op: Op, ins: list[Axes], rank: int) -> list[Axes]:
    """The first `rank` axes are a batch of problems; a problem of zeros may have no solution."""
    reason = f"`{op.name}` mixes all entries of it"
    for axes in ins:
        for atoms in axes[rank:]:
            links.pin(atoms, reason)
    batch = [_side_by_side(links, [axes[d] for axes in ins]) for d in range(rank)]
    return [[*batch, *(links.stuck(n, reason) for n in v.shape[rank:])] for v in op.outs]


def _side_by_side(links: Links, across: list[Atoms]) -> Atoms:
    for atoms in across[1:]:
        links.tie(across[0], atoms)
    held = np.array([links.content(atoms) for atoms in across])
    return links.with_content(across[0], np.where(held == ZERO, WILD, held).max(axis=0))


def _triangular_solve(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """`a⁻¹ b` or `b a⁻¹`: each column of b (or row) is a problem of its own, linear in it."""
    matrix, right = ins
    free = len(right) - (1 if op.params["left_side"] else 2)
    (out,) = _batched(links, op, [matrix, [*right[:-2], *right[free : free - 1]]], len(matrix) - 2)
    mixed = len(right) - (2 if op.params["left_side"] else 1)
    links.pin(right[mixed], f"`{op.name}` mixes all entries of it")
    out[free] = right[free]
    return [out]


register("triangular_solve", link=_triangular_solve)
register(
    "cholesky", "eig", "eigh", "geqp3", "geqrf", "hessenberg", "householder_product", "lu",
    "ormqr", "qr", "schur", "svd", "symmetric_product", "tridiagonal",
    link=_by_matrix,
)  # fmt: skip
register("lu_pivots_to_permutation", "tridiagonal_solve", link=_by_vector)

# --- primitives of which nothing can go

_REASONS = {
    "`{name}` updates all entries together": ("cholesky_update",),
    "`{name}` solves for all entries together": ("custom_lin", "custom_linear_solve"),
    "`{name}` moves rows to places that depend on data": ("ragged_all_to_all",),
    "`{name}` is one half of a transfer between devices": (
        "precv", "psend",
        *(f"{name}_{half}" for half in ("start", "done") for name in (
            "all_gather", "all_to_all", "pbroadcast", "ppermute", "psum", "reduce_scatter")),
        "all_gather_reduced_start", "psum_invariant_start", "unreduced_psum_start",
        "unreduced_reduce_scatter_start",
    ),
    "`{name}` reads or writes memory in place": (
        "addupdate", "empty2", "get", "swap",
    ),
    "`{name}` runs a program that the graph does not follow": ("eval_jaxpr",),
    "`{name}` has no axes": ("after_all", "axis_index", "create_token", "platform_index"),
}  # fmt: skip

for _reason, _names in _REASONS.items():
    for _name in _names:
        register(_name, link=refuse(_reason.format(name=_name)))
