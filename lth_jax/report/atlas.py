"""The atlas: the results of the studies, as one page.

It is drawn from the files of the studies; nothing is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
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
from lth_jax.report import effects
from lth_jax.report.effects import COLOURS, DECIDED
from lth_jax.report.plotting import SIZE, images
from lth_jax.report.rendering import Caption, Picture, render
from lth_jax.store import files
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
    ("In the article", "paragraph"),
    ("Set-up", "setup"),
    ("Settings", "chosen_by"),
    ("Statistic", "statistic"),
    ("Rule", "rule"),
    ("Expected", "expects"),
    ("Limits", "limits"),
)
"""The texts of a protocol that are shown, with their headings."""


class Chapter(NamedTuple):
    """One study as it is shown.

    Attributes:
      protocol: the fields of a `Protocol`.
      rounds: the numbers of each finished round, in order: those of `judge.found`, and `seconds`,
        `finished`, `hash` and `environment`.
      figure: the picture that decides it; None where there is none.
      command: how to repeat it.
      changes: one sentence for each version of the protocol.
      failed: of each round, the controls of the whole pipeline that were judged wrong.
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


def write_atlas(folder: Path, size: str, chapters: Sequence[Chapter]) -> Path:
    """Writes the page, the pictures, and everything as JSON for machines.

    Args:
      folder: `index.html`, `atlas.json`, `table.md`, `effects.svg`, `effects.png`, and per claim
        `result.json`, `figure.svg` and `figure.png` go here.
      size: of the studies.
      chapters: the studies that are finished, in order.

    Returns:
      The page.
    """
    sections, written = [], dict[str, bytes]()
    for chapter in chapters:
        claim, picture = chapter.protocol["claim"], None
        if chapter.figure is not None:
            text = f"{sentence(chapter.protocol['statistic'])} Means and 95 % intervals over seeds"
            text += " of both rounds." if len(chapter.rounds) > 1 else "."
            picture = _picture(claim, Caption(chapter.protocol["title"], text), chapter.figure)
            written |= {f"{claim}/figure.{kind}": one for kind, one in picture.files.items()}
        files.write_json(folder / claim / "result.json", result(chapter))
        sections.append(_section(chapter, picture))
    decisive, overview = _effects(chapters), []
    if len(decisive) > 1:
        picture = _picture("effects", effects.caption(decisive), effects.draw(decisive))
        overview.append(picture)
        written |= {f"effects.{kind}": one for kind, one in picture.files.items()}
    for name, content in written.items():
        files.write(folder / name, content)
    studies = [result(chapter) for chapter in chapters]
    files.write_json(folder / "atlas.json", {"size": size, "studies": studies})
    files.write(folder / "table.md", (markdown(size, chapters) + "\n").encode())
    verdicts = Counter(chapter.verdict for chapter in chapters)
    page = render(
        "atlas.html",
        title=f"The atlas of the lottery ticket hypothesis ({size})",
        verdicts=verdicts,
        time=_time(sum(chapter.seconds for chapter in chapters)),
        only_controls=set(verdicts) <= {HOLD, VOID},
        state=list(state(chapters)),
        pictures=overview,
        chapters=sections,
    )
    files.write(folder / "index.html", page)
    return folder / "index.html"


def _effects(chapters: Sequence[Chapter]) -> list[effects.Effect]:
    decided = ((one, _headlines(one)) for one in chapters)
    return [
        effects.Effect(
            one.protocol["claim"],
            one.protocol["title"],
            one.judgement["verdict"],
            list(parts.values()),
        )
        for one, parts in decided
        if parts
    ]


def _picture(name: str, caption: Caption, figure: Figure) -> Picture:
    return Picture(name, caption, images(figure), figure.get_figwidth() > SIZE[0])


def state(chapters: Sequence[Chapter]) -> Iterator[str]:
    """The state of the hypothesis in a few sentences: how many claims have which verdict."""
    groups: dict[str, list[str]] = {}
    for chapter in chapters:
        title = f"{chapter.protocol['title']} ({chapter.protocol['claim']})"
        groups.setdefault(chapter.judgement["verdict"], []).append(title)
    judged = sum(len(titles) for name, titles in groups.items() if name != HOLD)
    yield f"{counted(judged, 'claim')} of the hypothesis {'was' if judged == 1 else 'were'} tested."
    for name, start in STATES.items():
        if name in groups:
            yield f"{start}: {', '.join(groups[name])}."
    waiting = [one.protocol["claim"] for one in chapters if not one.judgement["is_replicated"]]
    if waiting and judged:
        yield f"A replication on other seeds and data has not run for {', '.join(waiting)}."
    yield "All studies are small, so a null result here does not refute a finding at scale."


def result(chapter: Chapter) -> dict[str, Any]:
    """A study for machines: verdict, headline, controls, and all numbers of its rounds."""
    head = _headlines(chapter).get(list(chapter.rounds)[-1], {})
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


def markdown(size: str, chapters: Sequence[Chapter]) -> str:
    """The table of verdicts for a README, and when and with what they were made."""
    head = ["claim", "verdict", "deciding effect", "discovery [95 %]", "replication [95 %]", "δ"]
    lines = [[*head, "seeds"], ["---"] * (len(head) + 1), *map(_cells, chapters)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    made = [one for chapter in chapters for one in chapter.rounds.values()]
    dates = sorted({found["finished"][:10] for found in made})
    libraries = {
        f"{name} {found['environment']['versions'][name]}"
        for found in made
        for name in ("jax", "flax", "optax")
    }
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    facts = (
        f"{when}, {', '.join(sorted(libraries))}, {_time(sum(found['seconds'] for found in made))}"
    )
    return f"{table}\n\n`python -m experiments.atlas --size={size}`, {facts}."


def document(folder: Path, size: str, chapters: Sequence[Chapter]) -> Path:
    """Writes the atlas as a page of a documentation site: state, effects, table, sections.

    Args:
      folder: `atlas.md` goes here, and the pictures into `atlas/`.
      size: of the studies.
      chapters: the finished studies, in order.

    Returns:
      The page.
    """
    decisive = _effects(chapters)
    pictures = {"effects": effects.draw(decisive)} if decisive else {}
    pictures |= {c.protocol["claim"]: c.figure for c in chapters if c.figure is not None}
    for name, figure in pictures.items():
        files.write(folder / "atlas" / f"{name}.svg", images(figure)["svg"])
    lines = ["# The atlas", "", " ".join(state(chapters)), ""]
    lines += ["![All deciding effects](atlas/effects.svg)", ""] if decisive else []
    lines += [effects.caption(decisive).text, ""] if decisive else []
    lines += [markdown(size, chapters)]
    for chapter in chapters:
        words, claim = chapter.protocol, chapter.protocol["claim"]
        lines += ["", f"## {claim} {words['title']}", "", words["says"], "", _sentence(chapter)]
        for name, key in WORDS:
            lines += ["", f"*{name}.* {sentence(words[key])}"] if words.get(key) else []
        if claim in pictures:
            lines += ["", f"![{words['title']}](atlas/{claim}.svg)"]
    files.write(folder / "atlas.md", ("\n".join(lines) + "\n").encode())
    return folder / "atlas.md"


def sentence(text: str) -> str:
    """A text with a capital at its start and a full stop at its end.

    >>> sentence("log of the share, per seed")
    'Log of the share, per seed.'
    """
    return text[:1].upper() + text[1:] + "." * (text[-1:] not in ".?!")


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"


def _headlines(chapter: Chapter) -> dict[str, dict[str, Any]]:
    """In each round, the primary that the verdict rests on."""
    decided = chapter.judgement["decided_by"]
    found: dict[str, dict[str, Any]] = {}
    for name, one in chapter.rounds.items():
        chosen = [part for part in one["primaries"] if part["name"] == decided] or one["primaries"]
        found |= {name: chosen[0]} if chosen else {}
    return found


def _cells(chapter: Chapter) -> list[str]:
    heads = _headlines(chapter)
    who = f"{chapter.protocol['claim']} {chapter.protocol['title']}"
    if not heads:
        return [who, chapter.verdict, *["–"] * 5]
    both = [shown(heads[name]) if name in heads else "–" for name in ROUNDS]
    head = list(heads.values())[-1]
    return [who, chapter.verdict, head["name"], *both, f"{head['delta']:g}", str(head["seeds"])]


def _section(chapter: Chapter, picture: Picture | None) -> dict[str, Any]:
    """What the template shows of a study."""
    protocol, found = chapter.protocol, chapter.found
    _, verdict, part, first, second, delta, seeds = _cells(chapter)
    flops = [f"{value / 1e9:.3g}" for value in found["flops"].values()]
    return {
        **{name: protocol[name] for name in ("claim", "title", "says")},
        "verdict": verdict,
        "colour": COLOURS[chapter.judgement["verdict"]],
        "part": part,
        "effects": [first, second],
        "delta": delta,
        "seeds": seeds,
        "time": _time(chapter.seconds),
        "sentence": _sentence(chapter),
        "picture": picture,
        "terms": [(name, sentence(protocol[key])) for name, key in WORDS if protocol.get(key)],
        "premise": _premise(found["gate"]) if found["gate"] else "",
        "numbers": _numbers(chapter),
        "controls": _controls(found),
        "notes": list(dict.fromkeys(n for one in chapter.rounds.values() for n in one["notes"])),
        "changes": chapter.changes,
        "flops": [["per network", *found["flops"]], ["GFLOP, search included", *flops]]
        if flops
        else [],
        "spent": [_spent(name, one) for name, one in chapter.rounds.items()],
        "command": chapter.command,
    }


def _sentence(chapter: Chapter) -> str:
    one = chapter.judgement
    rounds = "; ".join(f"{name}: {verdict}" for name, verdict in one["rounds"].items())
    return f"{chapter.verdict.capitalize()}: {one['why']} ({rounds})."


def _premise(gate: dict[str, Any]) -> str:
    part = {**gate, "unit": "points of test accuracy"}
    is_met = "met" if gate["met"] else "not met"
    return f"Premise, that tickets beat masks drawn at random here: {shown(part)}, {is_met}."


def _numbers(chapter: Chapter) -> list[list[str]]:
    """Primaries with corrected intervals and secondary effects, a column for each round."""
    rows = [["", *(f"{name} [95 %]" for name in chapter.rounds), "corrected", "δ", "seeds"]]
    rounds = list(chapter.rounds.values())
    for kind in ("primaries", "secondary"):
        for part in rounds[-1][kind]:
            same: list[dict[str, Any]] = [
                next((p for p in one[kind] if p["name"] == part["name"]), {}) for one in rounds
            ]
            name = part["name"] if kind == "secondary" else f"primary: {part['name']}"
            corrected = [_ends(each["corrected"]) for each in same if "corrected" in each]
            cells = [shown(each) if each else "–" for each in same]
            last = [f"{part['delta']:g}", str(part["seeds"])]
            rows.append([name, *cells, "; ".join(corrected) or "–", *last])
    return rows


def _ends(ends: Sequence[float | None]) -> str:
    low, high = ("–" if end is None else f"{end:+.3g}".replace("-", "−") for end in ends)
    return f"[{low}, {high}]"


def _controls(found: dict[str, Any]) -> list[list[str]]:
    return [["control", "known answer", "got", "effect [99.9 %]"]] + [
        [c["name"], c["expected"], c["got"], "; ".join(shown(part) for part in c["primaries"])]
        for c in found["controls"]
    ]


def _spent(name: str, found: dict[str, Any]) -> str:
    versions = found["environment"]["versions"]
    steps = f"{found['member_steps']:,} member-steps, " if found["member_steps"] else ""
    return (
        f"{name.capitalize()}: {found['seconds']:.0f} s, {steps}finished {found['finished'][:10]}, "
        f"jax {versions['jax']}, protocol {found['hash'][:8]}."
    )
