"""The atlas: the results of the studies, as one page.

It is drawn from the files of the studies; nothing is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_jax.measures.judge import HOLD, MEASURED, VOID, shown
from lth_jax.report import effects
from lth_jax.report.chapters import (
    MARGINS,
    WORDS,
    Chapter,
    cells,
    clock,
    corrected,
    headlines,
    history,
    markdown,
    markdown_table,
    result,
    sentence,
    state,
    verdict_sentence,
)
from lth_jax.report.effects import COLOURS
from lth_jax.report.plotting import SIZE, images
from lth_jax.report.rendering import Caption, Picture, glossary, render, terms_of
from lth_jax.store import files
from lth_jax.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_atlas(folder: Path, size: str, chapters: Sequence[Chapter], source: str = "") -> Path:
    """Writes the page, the pictures, and everything as JSON for machines.

    Args:
      folder: `index.html`, `atlas.json`, `table.md`, `effects.svg`, `effects.png`, and per claim
        `result.json`, `figure.svg` and `figure.png` go here.
      size: size of the studies.
      chapters: the studies that are finished, in order.
      source: sentences on the source of the claims.

    Returns:
      The page.
    """
    sections, written = [], dict[str, bytes]()
    for chapter in chapters:
        claim, picture = chapter.protocol["claim"], None
        if chapter.figure is not None:
            caption = Caption(chapter.protocol["title"], _caption(chapter))
            picture = _picture(claim, caption, chapter.figure)
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
        summary=_summary(verdicts),
        time=clock(sum(chapter.seconds for chapter in chapters)),
        only_controls=set(verdicts) <= {HOLD, VOID},
        state=list(state(chapters)),
        source=source,
        margins=MARGINS.replace("`", ""),
        terms=terms_of("atlas"),
        pictures=overview,
        chapters=sections,
    )
    files.write(folder / "index.html", page)
    return folder / "index.html"


def _summary(verdicts: Counter[str]) -> str:
    """How many studies have which verdict.

    >>> _summary(Counter({"supported": 2, "controls hold": 1}))
    '3 studies: 2 supported, controls hold in 1'
    >>> _summary(Counter({"controls hold": 1}))
    '1 study: all controls hold'
    """
    studies = counted(verdicts.total(), "study")
    if set(verdicts) == {HOLD}:
        return f"{studies}: all {HOLD}"
    words = (f"{HOLD} in {n}" if name == HOLD else f"{n} {name}" for name, n in verdicts.items())
    return f"{studies}: {', '.join(words)}"


def _caption(chapter: Chapter) -> str:
    """The text below the figure of a study."""
    rounds = " of both rounds" if len(chapter.rounds) > 1 else ""
    statistic = sentence(chapter.protocol["statistic"])
    return f"{statistic} Means and 95 % intervals over the seeds{rounds}."


def _effects(chapters: Sequence[Chapter]) -> list[effects.Effect]:
    decided = ((one, headlines(one)) for one in chapters)
    return [
        effects.Effect(
            one.protocol["claim"],
            one.protocol["title"],
            one.judgement["verdict"],
            list(parts.values()),
        )
        for one, parts in decided
        if parts and one.judgement["verdict"] != MEASURED  # a curve decides nothing
    ]


def _picture(name: str, caption: Caption, figure: Figure) -> Picture:
    return Picture(name, caption, images(figure), figure.get_figwidth() > SIZE[0])


def document(folder: Path, size: str, chapters: Sequence[Chapter], source: str = "") -> Path:
    """Writes the atlas as a page of a documentation site: state, effects, table, sections.

    Args:
      folder: `atlas.md` goes here, and the pictures into `atlas/`.
      size: size of the studies.
      chapters: the finished studies, in order.
      source: sentences on the source of the claims.

    Returns:
      The page.
    """
    decisive = _effects(chapters)
    pictures = {"effects": effects.draw(decisive)} if decisive else {}
    pictures |= {c.protocol["claim"]: c.figure for c in chapters if c.figure is not None}
    for name, figure in pictures.items():
        files.write(folder / "atlas" / f"{name}.svg", images(figure)["svg"])
    terms = [f"- **{term}**: {text}" for term, text in glossary("atlas").items()]
    summary = [f"- {sentence}" for sentence in state(chapters)]
    lines = ["# The atlas", "", *summary, ""]
    lines += ["![All deciding effects](atlas/effects.svg)", ""] if decisive else []
    lines += [effects.caption(decisive).text, ""] if decisive else []
    lines += [MARGINS, "", markdown(size, chapters), "", "## How to read it", ""]
    lines += [source, ""] if source else []
    lines += ["[The studies](studies.md) define the verdicts.", "", *terms]
    for chapter in chapters:
        words, claim = chapter.protocol, chapter.protocol["claim"]
        lines += [
            "",
            f"## {claim} {words['title']}",
            "",
            words["says"],
            "",
            verdict_sentence(chapter),
        ]
        for name, key in WORDS:
            lines += ["", f"*{name}.* {sentence(words[key])}"] if words.get(key) else []
        lines += ["", f"*Protocol.* {history(chapter)}"] if chapter.changes else []
        if claim in pictures:
            lines += ["", f"![{words['title']}](atlas/{claim}.svg)", "", _caption(chapter)]
        rows = _numbers(chapter, ("primaries",))
        lines += ["", markdown_table(rows)] if len(rows) > 1 else []
        notes = [f"- {note}" for note in _notes(chapter)]
        lines += ["", *notes] if notes else []
        lines += ["", *(_spent(name, one) for name, one in chapter.rounds.items())]
    files.write(folder / "atlas.md", ("\n".join(lines) + "\n").encode())
    return folder / "atlas.md"


def _section(chapter: Chapter, picture: Picture | None) -> dict[str, Any]:
    """The parts of a study that the template shows."""
    protocol, found = chapter.protocol, chapter.found
    _, verdict, part, first, second, ends, delta, seeds = cells(chapter)
    flops = [f"{value / 1e9:.3g}" for value in found["flops"].values()]
    return {
        **{name: protocol[name] for name in ("claim", "title", "says")},
        "verdict": verdict,
        "colour": COLOURS[chapter.judgement["verdict"]],
        "part": part,
        "effects": [first, second],
        "corrected": ends,
        "delta": delta,
        "seeds": seeds,
        "time": clock(chapter.seconds),
        "sentence": verdict_sentence(chapter),
        "picture": picture,
        "terms": [(name, sentence(protocol[key])) for name, key in WORDS if protocol.get(key)],
        "premise": _premise(found["gate"]) if found["gate"] else "",
        "numbers": _numbers(chapter),
        "controls": _controls(found),
        "notes": _notes(chapter),
        "changes": chapter.changes,
        "flops": [["per network", *found["flops"]], ["GFLOP, search included", *flops]]
        if flops
        else [],
        "spent": [_spent(name, one) for name, one in chapter.rounds.items()],
        "command": chapter.command,
    }


def _notes(chapter: Chapter) -> list[str]:
    """The notes of all rounds, each once."""
    return list(dict.fromkeys(note for one in chapter.rounds.values() for note in one["notes"]))


def _premise(gate: dict[str, Any]) -> str:
    part = {**gate, "unit": "points of test accuracy"}
    is_met = "met" if gate["met"] else "not met"
    return f"Premise, that tickets beat masks drawn at random here: {shown(part)}, {is_met}."


def _numbers(
    chapter: Chapter, kinds: Sequence[str] = ("primaries", "secondary")
) -> list[list[str]]:
    """Primaries with corrected intervals and secondary effects, a column for each round."""
    header = (f"{name} [95 %]" for name in chapter.rounds)
    rows = [["", *header, "corrected", "method, coverage", "δ", "seeds"]]
    rounds = list(chapter.rounds.values())
    for kind in kinds:
        for part in rounds[-1][kind]:
            same: list[dict[str, Any]] = [
                next((p for p in one[kind] if p["name"] == part["name"]), {}) for one in rounds
            ]
            name = part["name"] if kind == "secondary" else f"primary: {part['name']}"
            ends = corrected(each for each in same if "corrected" in each)
            cells = [shown(each) if each else "–" for each in same]
            last = [_method(part), f"{part['delta']:g}", str(part["seeds"])]
            rows.append([name, *cells, ends or "–", *last])
    return rows


def _method(part: dict[str, Any]) -> str:
    """The method of an interval, and its coverage as simulated on the values."""
    covered = "" if part["coverage"] is None else f", {100 * part['coverage']:.1f} %"
    return f"{part['method']}{covered}"


def _controls(found: dict[str, Any]) -> list[list[str]]:
    return [["control", "known answer", "verdict", "effect [99.9 %]"]] + [
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
