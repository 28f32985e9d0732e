"""From evidence to a verdict: intervals, controls at α = .001, and the correction over studies.

`found` keeps what a study found, uncorrected; `verdicts` judges several studies together, since
Holm's correction concerns all primaries.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lth_jax.measures.claims import Control, Evidence, Primary, Protocol
from lth_jax.measures.intervals import Interval, holm
from lth_jax.measures.verdicts import SUPPORTED, all_of, assess, seeds_needed, verdict

ALPHA, STRICT = 0.05, 0.001  # of the claims; of the controls
VOID = "void"
"""The verdict of a study one of whose controls was judged wrong."""

NO_TICKET = "premise not met"
"""The verdict of a study without the tickets that its claim is about."""

HOLD = "controls hold"
"""The verdict of the smoke size, which runs the controls alone."""

Found = dict[str, Any]
"""What a study found, as JSON holds it."""


def found(protocol: Protocol, evidence: Evidence, controls: Sequence[Control]) -> Found:
    """A study's numbers with intervals, and what its controls gave; no verdict on the claim yet."""
    rng = np.random.default_rng(zlib.crc32(protocol.claim.encode()))
    return {
        "primaries": [_numbers(part, rng) for part in evidence.primaries],
        "secondary": [_numbers(part, rng) for part in evidence.secondary],
        "gate": None if evidence.gate is None else _gate(evidence.gate, rng),
        "controls": judged(controls, rng),
        "member_steps": int(evidence.member_steps),
        "flops": {arm: float(value) for arm, value in evidence.flops.items()},
        "notes": list(evidence.notes),
    }


def judged(controls: Sequence[Control], rng: np.random.Generator) -> list[Found]:
    """Each control with the verdict it got at α = .001 and the one it had to get."""
    return [
        {
            "name": control.name,
            "expected": control.expected,
            "got": _strictly(control.primaries, rng),
            "primaries": [_numbers(part, rng, 1 - STRICT) for part in control.primaries],
        }
        for control in controls
    ]


def _strictly(primaries: Sequence[Primary], rng: np.random.Generator) -> str:
    parts = []
    for part in primaries:
        interval, p = assess(part.values, rng=rng, confidence=1 - STRICT)
        parts.append(verdict(interval, p, part.delta, alpha=STRICT, two_sided=part.two_sided))
    return all_of(parts)


def _numbers(part: Primary, rng: np.random.Generator, confidence: float = 1 - ALPHA) -> Found:
    interval, p = assess(part.values, rng=rng, confidence=confidence)
    values = np.asarray(part.values, float)
    return {
        "name": part.name,
        "unit": part.unit,
        "delta": float(part.delta),
        "two_sided": part.two_sided,
        "estimate": _or_none(interval.estimate),
        "low": _or_none(interval.low),
        "high": _or_none(interval.high),
        "p": p,
        "seeds": interval.replicates,
        "missing": interval.missing,
        "values": [_or_none(value) for value in values],
        "needed": _needed(values, part.delta),
    }


def _gate(values: Any, rng: np.random.Generator) -> Found:
    interval, _ = assess(values, rng=rng)
    return {
        "estimate": _or_none(interval.estimate),
        "low": _or_none(interval.low),
        "high": _or_none(interval.high),
        "met": bool(interval.low > 0),
    }


def _needed(values: Any, delta: float) -> int | None:
    """The seeds that would decide; None where the spread does not say."""
    if delta <= 0 or np.isfinite(values).sum() < 2:
        return None
    return seeds_needed(values, delta)


def verdicts(all_found: Mapping[str, Found], family: Sequence[str]) -> dict[str, Found]:
    """The verdict on every study that has evidence, corrected over the whole family.

    Args:
      all_found: from `found`, by claim.
      family: the claims whose primaries are corrected together, those without evidence too: they
        count as not significant, which is the strictest for the others.

    Returns:
      By claim: `verdict`, `why` (one sentence), `adjusted_p`, and `decided_by`, the name of the
      primary that the verdict rests on: of several the weakest.
    """
    raw = {claim: _claim_p(one) for claim, one in all_found.items()}
    adjusted = holm([raw.get(claim, 1.0) for claim in family])
    corrected = raw | dict(zip(family, adjusted.tolist(), strict=True))
    judged = {claim: _verdict(one, corrected[claim]) for claim, one in all_found.items()}
    for claim in set(judged) - set(family):
        judged[claim]["adjusted_p"] = None  # its p is as it was
    return judged


def _claim_p(one: Found) -> float:
    """The p-value of a claim: that of its weakest part (intersection–union)."""
    return max((part["p"] for part in one["primaries"]), default=1.0)


def _verdict(one: Found, adjusted: float) -> Found:
    wrong = [c["name"] for c in one["controls"] if c["got"] != c["expected"]]
    if wrong:
        return _judgement(VOID, f"a control with a known answer failed: {'; '.join(wrong)}", None)
    if one["gate"] is not None and not one["gate"]["met"]:
        why = "tickets do not beat masks drawn at random here, so there is none to ask about"
        return _judgement(NO_TICKET, why, adjusted)
    if not one["primaries"]:
        return _judgement(HOLD, "every control with a known answer was judged right", None)
    parts = []
    for part in one["primaries"]:
        # The correction multiplies the claim's p; each part is judged with the same factor.
        p = min(1.0, adjusted * part["p"] / max(_claim_p(one), 1e-12))
        interval = _interval(part)
        parts.append(verdict(interval, p, part["delta"], two_sided=part["two_sided"]))
    name = all_of(parts)
    weakest = one["primaries"][parts.index(name)]
    return _judgement(name, _why(name, weakest), adjusted, weakest["name"])


def _interval(part: Found) -> Interval:
    estimate, low, high = (
        np.nan if part[end] is None else part[end] for end in ("estimate", "low", "high")
    )
    return Interval(estimate, low, high, part["seeds"], part["missing"])


def _judgement(name: str, why: str, adjusted: float | None, decided_by: str | None = None) -> Found:
    return {"verdict": name, "why": why, "adjusted_p": adjusted, "decided_by": decided_by}


def _why(name: str, part: Found) -> str:
    effect = f"{part['name']}: {shown(part)}"
    if name == SUPPORTED:
        return effect
    need = part["needed"]
    more = f"; about {need} seeds would decide" if need and need > part["seeds"] else ""
    return f"{effect}, δ = {part['delta']:g}{more if name == 'inconclusive' else ''}"


def shown(part: Found) -> str:
    """An effect as text.

    >>> shown({"estimate": 2.04, "low": 1.0, "high": 3.0, "unit": "points"})
    '+2.04 [+1, +3] points'
    """
    ends = [_signed(part[name]) for name in ("estimate", "low", "high")]
    return f"{ends[0]} [{ends[1]}, {ends[2]}] {part['unit']}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3g}".replace("-", "−")


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
