"""The atlas: a table of claims with their verdicts, then a section for each; one page.

Drawn from what the studies wrote down, it trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lth_jax.report.figures import images
from lth_jax.report.page import escaped, filled, inlined, table_of
from lth_jax.store import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "supported": "good",
    "real but below δ": "fair",
    "not supported": "bad",
    "reversed": "bad",
    "inconclusive": "open",
    "premise not met": "open",
    "controls hold": "good",
    "void": "void",
}


class Chapter(NamedTuple):
    """One study as it is shown.

    Attributes:
      protocol: `claim`, `title`, `says`, `question`, `setup`, `arms`, `statistic`, `rule`,
        `expects` and `limits`.
      found: its numbers: `primaries`, `secondary`, `gate`, `controls`, `notes`, `flops`,
        `member_steps`, `seconds`, `finished`, `hash` and `environment`.
      judgement: `verdict`, `why`, `adjusted_p`, and `decided_by`, the name of a primary or None.
      figure: the picture that decides it; None where there is none.
      command: how to repeat it.
    """

    protocol: dict[str, Any]
    found: dict[str, Any]
    judgement: dict[str, Any]
    figure: Figure | None
    command: str


def write_atlas(folder: Path, size: str, chapters: Sequence[Chapter]) -> Path:
    """Writes the page, the pictures, and everything as JSON for machines.

    Args:
      folder: `index.html`, `atlas.json`, `table.md`, and per claim `result.json`, `figure.svg` and
        `figure.png` go here.
      size: of the studies.
      chapters: the studies that are finished, in order.

    Returns:
      The page.
    """
    sections = []
    for chapter in chapters:
        place = folder / chapter.protocol["claim"]
        drawing = ""
        if chapter.figure is not None:
            pictures = images(chapter.figure)
            for kind, picture in pictures.items():
                files.write(place / f"figure.{kind}", picture)
            drawing = inlined(pictures["svg"].decode(), chapter.protocol["claim"])
        files.write_json(place / "result.json", result(chapter))
        sections.append(_section(chapter, drawing))
    studies = [result(chapter) for chapter in chapters]
    files.write_json(folder / "atlas.json", {"size": size, "studies": studies})
    files.write(folder / "table.md", (markdown(size, chapters) + "\n").encode())
    text = filled(
        "atlas.html",
        title=f"The atlas of the lottery ticket hypothesis ({escaped(size)})",
        facts=escaped(_facts(chapters)),
        table=_table(chapters),
        sections="\n".join(sections),
    )
    files.write(folder / "index.html", text.encode())
    return folder / "index.html"


def result(chapter: Chapter) -> dict[str, Any]:
    """A study for machines: its verdict and headline, its controls, and all its numbers."""
    head = _headline(chapter)
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
        **{
            name: chapter.found.get(name)
            for name in ("seconds", "member_steps", "flops", "hash", "finished", "notes", "gate")
        },
        "primaries": chapter.found["primaries"],
        "secondary": chapter.found["secondary"],
    }


def markdown(size: str, chapters: Sequence[Chapter]) -> str:
    """The table of verdicts for a README, and when and with what they were made."""
    head = ["claim", "verdict", "deciding effect", "[95 %]", "δ", "seeds"]
    lines = [head, ["---"] * len(head), *map(_cells, chapters)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    made = [chapter.found for chapter in chapters]
    dates = sorted({found["finished"][:10] for found in made})
    libraries = {
        f"{name} {found['environment']['versions'][name]}"
        for found in made
        for name in ("jax", "flax", "optax")
    }
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    facts = f"{when}, {', '.join(sorted(libraries))}, {_minutes(chapters)}"
    return f"{table}\n\n`python -m experiments.atlas --size={size}`, {facts}."


def _minutes(chapters: Sequence[Chapter]) -> str:
    return f"{sum(chapter.found['seconds'] for chapter in chapters) / 60:.0f} min"


def _headline(chapter: Chapter) -> dict[str, Any]:
    """The primary that the verdict rests on."""
    primaries, name = chapter.found["primaries"], chapter.judgement["decided_by"]
    chosen = [part for part in primaries if part["name"] == name] or primaries
    return chosen[0] if chosen else {}


def _cells(chapter: Chapter) -> list[str]:
    head = _headline(chapter)
    who = f"{chapter.protocol['claim']} {chapter.protocol['title']}"
    if not head:
        return [who, chapter.judgement["verdict"], "–", "–", "–", "–"]
    delta = f"{head['delta']:g}"
    cells = [who, chapter.judgement["verdict"], head["name"], effect(head), delta]
    return [*cells, str(head["seeds"])]


def effect(part: dict[str, Any]) -> str:
    """An effect with its interval as text.

    >>> effect({"name": "Δ", "estimate": 2.04, "low": 1.0, "high": None, "unit": "points"})
    '+2.04 [+1, –] points'
    """
    ends = (
        "–" if part[end] is None else f"{part[end]:+.3g}".replace("-", "−")
        for end in ("estimate", "low", "high")
    )
    return "{} [{}, {}] {}".format(*ends, part["unit"]).strip()


def _table(chapters: Sequence[Chapter]) -> str:
    rows = []
    for chapter in chapters:
        claim, name = chapter.protocol["claim"], chapter.judgement["verdict"]
        who, _, what, size, delta, seeds = map(escaped, _cells(chapter))
        says = escaped(chapter.protocol["says"])
        rows.append(
            f'<tr><td class="says"><a href="#{claim}">{who}</a><br><span class="soft">{says}</span>'
            f'</td><td>{_badge(name)}</td><td>{size}<br><span class="soft">{what}</span></td>'
            f"<td>{delta}</td><td>{seeds}</td></tr>"
        )
    head = "".join(
        f"<th>{name}</th>" for name in ("Claim", "Verdict", "Deciding effect", "δ", "Seeds")
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _badge(name: str) -> str:
    return f'<span class="badge {COLOURS[name]}">{escaped(name)}</span>'


def _section(chapter: Chapter, drawing: str) -> str:
    protocol, found, judgement = chapter.protocol, chapter.found, chapter.judgement
    figure = f"<figure>{drawing}</figure>" if drawing else ""
    gate = found["gate"]
    premise = "" if gate is None else f"<p>{escaped(_premise(gate))}</p>"
    notes = "".join(f"<li>{escaped(note)}</li>" for note in found["notes"])
    words = [("Question", "question"), ("Set-up", "setup"), ("Statistic", "statistic")]
    words += [("Rule", "rule"), ("Expected", "expects"), ("Limits", "limits")]
    terms = "".join(f"<dt>{name}</dt><dd>{escaped(protocol[key])}</dd>" for name, key in words)
    return f"""<section id="{escaped(protocol["claim"])}">
<h2>{escaped(protocol["claim"])} {escaped(protocol["title"])} {_badge(judgement["verdict"])}</h2>
<p>{escaped(protocol["says"])}</p>
<p class="verdict">{escaped(_sentence(judgement))}</p>
<div class="pair">{figure}<dl>{terms}</dl></div>
{premise}
<div class="wide">{table_of(_numbers(found))}</div>
<h3>Controls with a known answer</h3>
<div class="wide">{table_of(_controls(found))}</div>
{f"<ul>{notes}</ul>" if notes else ""}
{_ledger(found["flops"])}
<p class="soft">{escaped(_spent(found))}</p>
<pre>{escaped(chapter.command)}</pre>
</section>"""


def _sentence(judgement: dict[str, Any]) -> str:
    p = judgement["adjusted_p"]
    corrected = "" if p is None else f" (Holm-adjusted p = {p:.2g})"
    return f"{judgement['verdict'].capitalize()}: {judgement['why']}{corrected}."


def _premise(gate: dict[str, Any]) -> str:
    part = {**gate, "unit": "points of test accuracy"}
    is_met = "met" if gate["met"] else "not met"
    return f"Premise, that tickets beat masks drawn at random here: {effect(part)}, {is_met}."


def _numbers(found: dict[str, Any]) -> list[list[str]]:
    cells = [["", "effect [95 %]", "δ", "p", "seeds"]]
    for kind in ("primaries", "secondary"):
        for part in found[kind]:
            name = part["name"] if kind == "secondary" else f"primary: {part['name']}"
            p = f"{part['p']:.2g}" if kind == "primaries" else "–"
            cells.append([name, effect(part), f"{part['delta']:g}", p, str(part["seeds"])])
    return cells


def _controls(found: dict[str, Any]) -> list[list[str]]:
    return [["control", "known answer", "got", "effect [99.9 %]"]] + [
        [c["name"], c["expected"], c["got"], "; ".join(effect(part) for part in c["primaries"])]
        for c in found["controls"]
    ]


def _ledger(flops: dict[str, float]) -> str:
    if not flops:
        return ""
    cells = [["per network", *flops]]
    cells.append(["GFLOP, the search counted", *(f"{value / 1e9:.3g}" for value in flops.values())])
    return f'<div class="wide">{table_of(cells)}</div>'


def _spent(found: dict[str, Any]) -> str:
    versions = found["environment"]["versions"]
    steps = f"{found['member_steps']:,} member-steps, " if found["member_steps"] else ""
    return (
        f"{found['seconds']:.0f} s, {steps}finished {found['finished'][:10]}, jax "
        f"{versions['jax']}, protocol {found['hash'][:8]}."
    )


def _facts(chapters: Sequence[Chapter]) -> str:
    counts: dict[str, int] = {}
    for chapter in chapters:
        name = chapter.judgement["verdict"]
        counts[name] = counts.get(name, 0) + 1
    listed = ", ".join(f"{n} {name}" for name, n in counts.items())
    return f"{len(chapters)} studies: {listed} · {_minutes(chapters)}"
