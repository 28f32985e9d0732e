"""A study with its rounds, and its tables and texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from lth_jax.measures.judge import (
    HOLD,
    MEASURED,
    NO_TICKET,
    ROUNDS,
    VOID,
    judgement,
    overall,
    shown,
    signed,
)
from lth_jax.measures.verdicts import (
    BELOW,
    FOUND,
    INCONCLUSIVE,
    NOT_FOUND,
    NOT_REPLICATED,
    NOT_SUPPORTED,
    OPEN,
    REVERSED,
    SUPPORTED,
)
from lth_jax.report.effects import DECIDED
from lth_jax.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATES = {
    SUPPORTED: "The evidence supports",
    FOUND: "A setting exists, as the claim states, for",
    BELOW: "An effect exists but is smaller than δ in",
    OPEN: "An effect exists, and may be smaller or larger than δ, in",
    NOT_SUPPORTED: "An effect of δ is excluded in",
    NOT_FOUND: "No setting of the map shows what the claim states in",
    REVERSED: "The effect has the opposite sign in",
    INCONCLUSIVE: "The evidence does not decide",
    NOT_REPLICATED: "The two rounds contradict each other in",
    NO_TICKET: "Tickets beat no random mask, so that nothing can be concluded, in",
    MEASURED: "Curves without a verdict describe",
    VOID: "A control with a known answer failed in",
}
"""How the summary of the page begins the sentence on the claims of each verdict."""


WORDS = (
    ("Question", "question"),
    ("Form of the claim", "kind"),
    ("In the article", "paragraph"),
    ("Set-up", "setup"),
    ("Settings", "chosen_by"),
    ("Statistic", "statistic"),
    ("Rule", "rule"),
    ("Expected", "expects"),
    ("Outcome", "outcome"),
    ("Limits", "limits"),
)
"""The texts of a study that are shown, with their headings."""


class Chapter(NamedTuple):
    """One study as it is shown.

    Attributes:
      protocol: the fields of a `Protocol`, and `outcome`, which compares results and expectation.
      rounds: the numbers of each finished round, in order: those of `judge.summarise_round`, and
        `seconds`, `finished`, `hash` and `environment`.
      figure: the picture of its deciding numbers; None if there is none.
      command: the command that repeats it.
      changes: one sentence for each version of the protocol.
      failed: for each round, the controls of the whole pipeline that were judged wrong.
    """

    protocol: dict[str, Any]
    rounds: dict[str, dict[str, Any]]
    figure: Figure | None
    command: str
    changes: Sequence[str] = ()
    failed: Mapping[str, Sequence[str]] = MappingProxyType({})

    @property
    def judgement(self) -> dict[str, Any]:
        """The verdict of all rounds together, as of `judge.overall`."""
        return overall(
            {name: judgement(one, self.failed.get(name, ())) for name, one in self.rounds.items()}
        )

    @property
    def found(self) -> dict[str, Any]:
        """The numbers of the last round: after a replication, those that nothing was chosen on."""
        return list(self.rounds.values())[-1]

    @property
    def seconds(self) -> float:
        """The time of all rounds."""
        return float(sum(one["seconds"] for one in self.rounds.values()))

    @property
    def verdict(self) -> str:
        """The verdict, marked as preliminary before the replication."""
        one = self.judgement
        waits = not one["is_replicated"] and one["verdict"] in DECIDED
        return f"{one['verdict']}, one round" if waits else str(one["verdict"])


def state(chapters: Sequence[Chapter]) -> Iterator[str]:
    """The state of the hypothesis in a few sentences: how many claims have which verdict."""
    groups: dict[str, list[str]] = {}
    for chapter in chapters:
        verdict, claim = chapter.judgement["verdict"], chapter.protocol["claim"]
        text = chapter.protocol["says" if verdict == SUPPORTED else "title"].rstrip(".")
        groups.setdefault(verdict, []).append(f"{text} ({claim})")
    judged = sum(len(titles) for name, titles in groups.items() if name not in (HOLD, MEASURED))
    yield f"{counted(judged, 'claim')} {'was' if judged == 1 else 'were'} tested."
    for name, start in STATES.items():
        if name in groups:
            yield f"{start}: {('; ' if name == SUPPORTED else ', ').join(groups[name])}."
    waiting = [
        one.protocol["claim"]
        for one in chapters
        if not one.judgement["is_replicated"] and one.judgement["verdict"] != HOLD
    ]
    if waiting:
        yield f"A replication on other seeds and data has not run for {', '.join(waiting)}."
    yield "All studies are small, so a null result here does not refute a finding at scale."


def result(chapter: Chapter) -> dict[str, Any]:
    """A study for machines: verdict, headline, controls, and all numbers of its rounds."""
    head = headlines(chapter).get(list(chapter.rounds)[-1], {})
    controls = [
        {name: control[name] for name in ("name", "expected", "got")}
        for control in chapter.found["controls"]
    ]
    return {
        "claim": chapter.protocol["claim"],
        "title": chapter.protocol["title"],
        **chapter.judgement,
        **{name: head.get(name) for name in ("estimate", "low", "high", "delta", "unit", "seeds")},
        "controls": controls,
        "seconds": chapter.seconds,
        "rounds": {
            name: {"verdict": chapter.judgement["rounds"][name]}
            | {field: one.get(field) for field in FIELDS}
            for name, one in chapter.rounds.items()
        },
    }


FIELDS = (
    "primaries",
    "secondary",
    "gate",
    "notes",
    "flops",
    "member_steps",
    "seconds",
    "hash",
    "finished",
)
"""What `result` holds of each round."""


MARGINS = (
    "Verdicts use intervals that are corrected for the number of tests, which can be wider than "
    "the 95 % intervals. An effect whose name ends in a number, such as `ticket − dense + 5`, "
    "contains its margin: the claim allows a loss of 5, so δ is 0. The difference itself, the "
    "effect minus 5, is given in brackets."
)
"""The sentence below tables of deciding effects."""


def markdown(size: str, chapters: Sequence[Chapter]) -> str:
    """The table of verdicts for a README, and when and with what they were made."""
    head = ["claim", "verdict", "deciding effect", "discovery [95 %]", "replication [95 %]"]
    table = markdown_table([[*head, "corrected", "δ", "seeds"], *map(cells, chapters)])
    made = [one for chapter in chapters for one in chapter.rounds.values()]
    dates = sorted({found["finished"][:10] for found in made})
    libraries = {
        f"{name} {found['environment']['versions'][name]}"
        for found in made
        for name in ("jax", "flax", "optax")
    }
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    facts = (
        f"{when}, {', '.join(sorted(libraries))}, {clock(sum(found['seconds'] for found in made))}"
    )
    return f"{table}\n\n`python -m experiments.atlas --size={size}`, {facts}."


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of which is the header, as a table in Markdown."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body))


def sentence(text: str) -> str:
    """A text with a capital at its start and a full stop at its end.

    >>> sentence("log of the share, per seed")
    'Log of the share, per seed.'
    """
    first = text[:1].upper() if text[:1].isascii() else text[:1]  # keeps κ in lower case
    return first + text[1:] + "." * (text[-1:] not in ".?!")


def clock(seconds: float) -> str:
    """A time in minutes, or in seconds below 90."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"


def headlines(chapter: Chapter) -> dict[str, dict[str, Any]]:
    """In each round, the primary that the verdict rests on."""
    decided = chapter.judgement["decided_by"]
    found: dict[str, dict[str, Any]] = {}
    for name, one in chapter.rounds.items():
        chosen = [part for part in one["primaries"] if part["name"] == decided] or one["primaries"]
        found |= {name: chosen[0]} if chosen else {}
    return found


def cells(chapter: Chapter) -> list[str]:
    """A study's row of the table of verdicts."""
    heads = headlines(chapter)
    who = f"{chapter.protocol['claim']} {chapter.protocol['title']}"
    if not heads:
        return [who, chapter.verdict, *["–"] * 6]
    both = [_with_difference(heads[name]) if name in heads else "–" for name in ROUNDS]
    head, ends = list(heads.values())[-1], corrected(heads.values())
    row = [who, chapter.verdict, head["name"], *both, ends, f"{head['delta']:g}"]
    return [*row, str(head["seeds"])]


def corrected(parts: Iterable[dict[str, Any]]) -> str:
    """The corrected intervals of an effect in each round.

    >>> corrected([{"corrected": [-1.0, 2.0]}, {"corrected": [0.5, None]}])
    '[−1, +2]; [+0.5, –]'
    """
    return "; ".join(f"[{', '.join(map(signed, part['corrected']))}]" for part in parts)


def _with_difference(part: dict[str, Any]) -> str:
    """An effect with its interval and, if it contains a margin, the difference without it.

    >>> part = {"estimate": 5.5, "low": 4.0, "high": 7.0, "unit": "%", "delta": 0.0}
    >>> _with_difference(part | {"name": "ticket − dense + 5"})
    '+5.5 [+4, +7] % (difference +0.5)'
    """
    margin = re.search(r" \+ ([\d.]+)$", part["name"])
    if part["delta"] or part["estimate"] is None or margin is None:
        return shown(part)
    return f"{shown(part)} (difference {signed(part['estimate'] - float(margin[1]))})"


def history(chapter: Chapter) -> str:
    """The versions of a study's protocol with their reasons, as one paragraph."""
    return " ".join(map(sentence, chapter.changes))


def verdict_sentence(chapter: Chapter) -> str:
    """The verdict with its reason and both rounds; a study of controls alone has no rounds."""
    one = chapter.judgement
    if one["verdict"] == HOLD:
        return f"{HOLD.capitalize()}: {one['why']}."
    rounds = "; ".join(f"{name}: {verdict}" for name, verdict in one["rounds"].items())
    return f"{chapter.verdict.capitalize()}: {one['why']} ({rounds})."
