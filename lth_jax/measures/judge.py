"""Verdicts from evidence: corrected intervals, controls at α = .001, and two rounds.

`summarise_round` summarises one round of a study; `judgement` gives its verdict, and `overall` that
of both rounds.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lth_jax.measures.claims import COMPARISON, CURVE, MAP, Control, Evidence, Primary, Protocol
from lth_jax.measures.coverage import Chosen, choose_interval
from lth_jax.measures.intervals import Interval, paired_shares
from lth_jax.measures.simultaneous import calibrated
from lth_jax.measures.verdicts import (
    ALPHA,
    INCONCLUSIVE,
    SUPPORTED,
    all_of,
    both_rounds,
    in_map,
    seeds_needed,
    verdict,
)

SHOWN, STRICT = 0.05, 0.001  # error rates of intervals as shown, and of controls
DISCOVERY, REPLICATION = ROUNDS = ("discovery", "replication")

VOID = "void"
"""The verdict of a study in which a control failed."""

NO_TICKET = "premise not met"
"""The verdict of a study whose setting has no winning tickets, which its claim presupposes."""

HOLD = "controls hold"
"""The verdict at the smoke size, at which only the controls run."""

MEASURED = "measured"
"""The result of a curve, which has no verdict."""

OR = " or "
"""The separator of the verdicts that are correct for a control."""

Found = dict[str, Any]
"""The JSON-like results of a study."""


def summarise_round(protocol: Protocol, evidence: Evidence, controls: Sequence[Control]) -> Found:
    """A round's numbers with intervals, and the verdicts of its controls.

    The method of an interval is the first whose coverage, simulated on the values, is high enough
    (`coverage.choose_interval`). The corrected intervals of a map hold for all its cells at once,
    and a note states their simulated coverage.
    """
    rng = np.random.default_rng(zlib.crc32(protocol.claim.encode()))
    primaries, notes = [_numbers(part, rng) for part in evidence.primaries], list(evidence.notes)
    if protocol.kind == MAP and primaries:
        table = np.stack([part.values for part in evidence.primaries], axis=1)
        bands, nominal, covered = calibrated(table, rng=rng, confidence=1 - ALPHA)
        notes.append(
            f"The simultaneous intervals cover all cells in {100 * covered:.2f} % of simulations "
            f"on the study's own values, at a nominal confidence of {100 * nominal:.4g} %."
        )
    else:
        bands = [_chosen(part, 1 - ALPHA, rng).interval for part in evidence.primaries]
    for part, band in zip(primaries, bands, strict=True):
        part["corrected"] = [_or_none(band.low), _or_none(band.high)]
    return {
        "kind": protocol.kind,
        "primaries": primaries,
        "secondary": [_numbers(part, rng) for part in evidence.secondary],
        "gate": None if evidence.gate is None else _gate(evidence.gate, rng),
        "controls": judged(controls, rng),
        "member_steps": int(evidence.member_steps),
        "flops": {arm: float(value) for arm, value in evidence.flops.items()},
        "notes": notes,
    }


def judged(controls: Sequence[Control], rng: np.random.Generator) -> list[Found]:
    """The verdict of each control at α = .001, and the expected one."""
    return [
        {
            "name": control.name,
            "expected": OR.join((control.expected, *control.also)),
            "got": _strictly(control.primaries, rng),
            "primaries": [_numbers(part, rng, 1 - STRICT) for part in control.primaries],
        }
        for control in controls
    ]


def _strictly(primaries: Sequence[Primary], rng: np.random.Generator) -> str:
    parts = []
    for part in primaries:
        interval = _chosen(part, 1 - STRICT, rng).interval
        parts.append(verdict(interval, part.delta, two_sided=part.two_sided))
    return all_of(parts)


def _chosen(part: Primary, confidence: float, rng: np.random.Generator) -> Chosen:
    """The interval of one effect: exact for shares, else the first that covers."""
    if part.is_share:
        return Chosen("exact", paired_shares(part.values, confidence=confidence), math.nan)
    return choose_interval(part.values, confidence, rng)


def _numbers(part: Primary, rng: np.random.Generator, confidence: float = 1 - SHOWN) -> Found:
    method, interval, covered = _chosen(part, confidence, rng)
    values = np.asarray(part.values, float)
    return {
        "name": part.name,
        "cell": part.cell,
        "unit": part.unit,
        "delta": float(part.delta),
        "two_sided": part.two_sided,
        "estimate": _or_none(interval.estimate),
        "low": _or_none(interval.low),
        "high": _or_none(interval.high),
        "seeds": interval.replicates,
        "missing": interval.missing,
        "method": method,
        "coverage": _or_none(covered),
        "values": [_or_none(value) for value in values],
        "needed": _needed(values, part.delta),
    }


def _gate(values: Any, rng: np.random.Generator) -> Found:
    interval = choose_interval(values, 1 - SHOWN, rng).interval
    return {
        "estimate": _or_none(interval.estimate),
        "low": _or_none(interval.low),
        "high": _or_none(interval.high),
        "met": bool(interval.low > 0),
    }


def _needed(values: Any, delta: float) -> int | None:
    """The number of seeds needed; None if the spread is unknown."""
    if delta <= 0 or np.isfinite(values).sum() < 2:
        return None
    return seeds_needed(values, delta)


def judgement(one: Found, failed: Sequence[str] = ()) -> Found:
    """The verdict of one round.

    Args:
      one: from `found`.
      failed: controls of the whole pipeline that failed; any of them makes all studies void.

    Returns:
      `verdict`, `why` (one sentence), `decided_by`, the name of the primary that determines the
      verdict (the weakest of several parts, or the largest effect of a map), and `held`, the cells
      of a map that hold.
    """
    wrong = [*failed, *wrong_controls(one)]
    if wrong:
        return _judgement(VOID, f"a control with a known answer failed: {'; '.join(wrong)}")
    if one["gate"] is not None and not one["gate"]["met"]:
        why = "tickets do not beat masks drawn at random here, so the question does not apply"
        return _judgement(NO_TICKET, why)
    if not one["primaries"]:
        return _judgement(HOLD, "every control with a known answer was judged right")
    return {COMPARISON: _comparison, MAP: _map, CURVE: _curve}[one["kind"]](one["primaries"])


def wrong_controls(one: Found) -> list[str]:
    """The names of the controls that failed."""
    return [c["name"] for c in one["controls"] if c["got"] not in c["expected"].split(OR)]


def _comparison(primaries: Sequence[Found]) -> Found:
    parts = [_verdict(part) for part in primaries]
    name = all_of(parts)
    weakest = primaries[parts.index(name)]
    return _judgement(name, _why(name, weakest), weakest["name"])


def _map(primaries: Sequence[Found]) -> Found:
    cells: dict[str, list[Found]] = {}
    for part in primaries:
        cells.setdefault(part["cell"] or part["name"], []).append(part)
    held = [c for c, parts in cells.items() if {_verdict(part) for part in parts} == {SUPPORTED}]

    largest = max(part["delta"] for part in primaries) or 1.0  # the δ of a margin is 0

    def room(part: Found) -> float:
        """How far a lower band lies above its δ, in units of δ."""
        return (_ends(part)[0] - part["delta"]) / (part["delta"] or largest)

    best = max(cells, key=lambda cell: min(map(room, cells[cell])))
    weakest = min(cells[best], key=room)
    where = f"in {len(held)} of {len(cells)} cells ({'; '.join(held)})" if held else "in no cell"
    words = "in the best cell, the part with the smallest margin over its δ is"
    why = f"{where}; {words} {_effect(weakest)}"
    return _judgement(in_map(held), why, weakest["name"], held)


def _curve(primaries: Sequence[Found]) -> Found:
    return _judgement(MEASURED, _effect(primaries[0]), primaries[0]["name"])


def overall(rounds: Mapping[str, Found]) -> Found:
    """The verdict of a study from the judgements of its rounds.

    Args:
      rounds: from `judgement`, by name of the round.

    Returns:
      As `judgement`, with `rounds`: the verdict of each. `is_replicated` is False as long as one
      round is missing; the verdict is then provisional, that of the other round. The cells of a map
      must hold in both rounds.
    """
    names = {name: rounds[name]["verdict"] for name in ROUNDS if name in rounds}
    first = rounds[next(iter(names))]
    if len(names) < len(ROUNDS):
        return first | {"rounds": names, "is_replicated": False}
    second = rounds[REPLICATION]
    held = [cell for cell in first["held"] if cell in second["held"]]
    decided, verdicts = first, tuple(names.values())
    special = [name for name in (VOID, NO_TICKET) if name in verdicts]
    if special:
        name = special[0]
        decided = second if second["verdict"] == name else first
    elif first["held"] and second["held"]:
        name = in_map(held)
    else:
        name = both_rounds(*verdicts)
        decided = second if second["verdict"] == name != first["verdict"] else first
    return decided | {"verdict": name, "held": held, "rounds": names, "is_replicated": True}


def _verdict(part: Found) -> str:
    interval = Interval(math.nan, *_ends(part), part["seeds"], part["missing"])
    return verdict(interval, part["delta"], two_sided=part["two_sided"])


def _ends(part: Found) -> tuple[float, float]:
    """The corrected interval; infinite ends were stored as None."""
    low, high = part["corrected"]
    return -math.inf if low is None else low, math.inf if high is None else high


def _judgement(
    name: str, why: str, decided_by: str | None = None, held: Sequence[str] = ()
) -> Found:
    return {"verdict": name, "why": why, "decided_by": decided_by, "held": list(held)}


def _effect(part: Found) -> str:
    return f"{part['name']}: {shown(part)}"


def _why(name: str, part: Found) -> str:
    if name == SUPPORTED:
        return _effect(part)
    need = part["needed"]
    more = f"; about {need} seeds would decide" if need and need > part["seeds"] else ""
    return f"{_effect(part)}, δ = {part['delta']:g}{more if name == INCONCLUSIVE else ''}"


def shown(part: Found) -> str:
    """An effect with its 95 % interval as text.

    >>> shown({"estimate": 2.04, "low": 1.0, "high": None, "unit": "points"})
    '+2.04 [+1, –] points'
    """
    ends = [signed(part[name]) for name in ("estimate", "low", "high")]
    return f"{ends[0]} [{ends[1]}, {ends[2]}] {part['unit']}".strip()


def signed(value: float | None) -> str:
    """A number with its sign, or "–" for None.

    >>> signed(-1.234), signed(None)
    ('−1.23', '–')
    """
    return "–" if value is None else f"{value:+.3g}".replace("-", "−")


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
