"""Rules of primitives that mix all entries of some axes: Fourier transforms, linear algebra.

The mixed axes are pinned; the others keep their atoms.
"""

import numpy as np

from lth_jax.structure.constraints import FINITE, WILD, ZERO, Atoms, Axes, Links
from lth_jax.structure.graph import Op
from lth_jax.structure.rules import Link, refuse, register


def _fft(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """Linear along the last axes, one for each of `fft_lengths`."""
    reason, first = "`fft` runs along it", len(ins[0]) - len(op.params["fft_lengths"])
    for atoms in ins[0][first:]:
        links.pin(atoms, reason)
    return [[*ins[0][:first], *(links.stuck(n, reason) for n in op.outs[0].shape[first:])]]


register("fft", link=_fft)


def _by_matrix(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """Functions of matrices with leading batch axes."""
    rank = len(ins[0]) - 2
    batch = _side_by_side(links, [axes[:rank] for axes in ins], [])
    _mixed(links, op, [atoms for axes in ins for atoms in axes[rank:]])
    return [[*batch, *_made(links, op, v.shape[rank:])] for v in op.outs]


def _solve(rank: int) -> Link:
    """`a⁻¹ b` or `b a⁻¹`, linear in b; `rank`: number of axes of `a` (2, or 1 for bands).

    Each column of b (or row, with a on the right) is a separate problem.
    """

    def link(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
        *matrix, right = ins
        free = -1 if op.params.get("left_side", True) else -2
        batch = _side_by_side(links, [axes[:-rank] for axes in matrix], [right[:-2]])
        _mixed(links, op, [*(a for axes in matrix for a in axes[-rank:]), right[-3 - free]])
        columns = _made(links, op, op.outs[0].shape[-2:])
        columns[free] = right[free]
        return [[*batch, *columns]]

    return link


def _mixed(links: Links, op: Op, axes: list[Atoms]) -> None:
    for atoms in axes:
        links.pin(atoms, f"`{op.name}` mixes all entries of it")


def _made(links: Links, op: Op, shape: tuple[int, ...]) -> Axes:
    return [links.stuck(n, f"`{op.name}` mixes all entries of it") for n in shape]


def _side_by_side(links: Links, matrices: list[Axes], linear: list[Axes]) -> Axes:
    """Batch axes: tied; undefined if a matrix is zero, else linear in the other operands."""
    out = []
    for across in zip(*matrices, *linear, strict=True):
        for atoms in across[1:]:
            links.tie(across[0], atoms)
        held = np.array([links.content(atoms) for atoms in across])
        count = len(matrices)
        if linear:
            held[:count] = np.where(held[:count] == FINITE, ZERO, WILD)
        else:
            held = np.where(held == ZERO, WILD, held)
        out.append(links.with_content(across[0], held.max(axis=0)))
    return out


register("triangular_solve", link=_solve(2))
register("tridiagonal_solve", link=_solve(1))
register(
    "cholesky", "eig", "eigh", "geqp3", "geqrf", "hessenberg", "householder_product", "lu",
    "ormqr", "qr", "schur", "svd", "symmetric_product", "tridiagonal",
    link=_by_matrix,
)  # fmt: skip


def _permutation(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    *batch, pivots = ins[0]
    _mixed(links, op, [pivots])
    held = [links.with_content(atoms, FINITE) for atoms in batch]
    return [[*held, *_made(links, op, op.outs[0].shape[-1:])]]


register("lu_pivots_to_permutation", link=_permutation)

# --- primitives that pin everything

_TRANSFERS = (
    "all_gather", "all_gather_reduced", "all_to_all", "pbroadcast", "ppermute", "psum",
    "psum_invariant", "reduce_scatter", "unreduced_psum", "unreduced_reduce_scatter",
)  # fmt: skip

REFUSED = {
    "cholesky_update": "updates all entries together",
    **dict.fromkeys(["custom_lin", "custom_linear_solve"], "solves for all entries together"),
    "ragged_all_to_all": "moves rows to places that depend on data",
    **dict.fromkeys(
        ["precv", "psend", *(f"{n}_{half}" for n in _TRANSFERS for half in ("start", "done"))],
        "is one half of a transfer between devices",
    ),
    **dict.fromkeys(["addupdate", "empty2", "get", "swap"], "reads or writes memory in place"),
    **dict.fromkeys(
        [
            "cudnn_fusion",
            *(
                f"dot_product_attention_{kind}{way}{end}"
                for kind in ("", "fp8_")
                for way in ("fwd", "bwd")
                for end in ("", "_wrapper")
            ),
        ],
        "is an opaque cuDNN kernel",
    ),
    "eval_jaxpr": "runs a program that the graph does not follow",
    **dict.fromkeys(
        ["after_all", "axis_index", "create_token", "platform_index"],
        "returns values without axes",
    ),
}
"""Primitives whose operands and results are pinned, with the reason."""

for _name, _reason in REFUSED.items():
    register(_name, link=refuse(f"`{_name}` {_reason}"))
