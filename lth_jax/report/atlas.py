"""The atlas: the results of the studies, as one page.

It is drawn from the files of the studies; nothing is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lth_jax.report import effects
from lth_jax.report.effects import COLOURS
from lth_jax.report.plotting import SIZE, images
from lth_jax.report.rendering import Caption, Picture, render
from lth_jax.store import files
from lth_jax.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ONLY_CONTROLS = "controls hold"


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
      folder: `index.html`, `atlas.json`, `table.md`, `effects.svg`, `effects.png`, and per claim
        `result.json`, `figure.svg` and `figure.png` go here.
      size: of the studies.
      chapters: the studies that are finished, in order.

    Returns:
      The page.
    """
    shown, written = [], dict[str, bytes]()
    for chapter in chapters:
        claim, picture = chapter.protocol["claim"], None
        if chapter.figure is not None:
            text = f"{sentence(chapter.protocol['statistic'])} Means and 95 % intervals over seeds."
            picture = _picture(claim, Caption(chapter.protocol["title"], text), chapter.figure)
            written |= {f"{claim}/figure.{kind}": one for kind, one in picture.files.items()}
        files.write_json(folder / claim / "result.json", result(chapter))
        shown.append(_section(chapter, picture))
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
    verdicts = Counter(chapter.judgement["verdict"] for chapter in chapters)
    page = render(
        "atlas.html",
        title=f"The atlas of the lottery ticket hypothesis ({size})",
        verdicts=verdicts,
        time=_time(sum(chapter.found["seconds"] for chapter in chapters)),
        only_controls=set(verdicts) <= {ONLY_CONTROLS, "void"},
        state=list(state(chapters)),
        pictures=overview,
        chapters=shown,
    )
    files.write(folder / "index.html", page)
    return folder / "index.html"


def _effects(chapters: Sequence[Chapter]) -> list[effects.Effect]:
    return [
        effects.Effect(one.protocol["claim"], one.protocol["title"], one.judgement["verdict"], part)
        for one in chapters
        if (part := _headline(one))
    ]


def _picture(name: str, caption: Caption, figure: Figure) -> Picture:
    return Picture(name, caption, images(figure), figure.get_figwidth() > SIZE[0])


def state(chapters: Sequence[Chapter]) -> Iterator[str]:
    """The state of the hypothesis in a few sentences: how many claims have which verdict."""
    groups: dict[str, list[str]] = {}
    for chapter in chapters:
        title = f"{chapter.protocol['title']} ({chapter.protocol['claim']})"
        groups.setdefault(chapter.judgement["verdict"], []).append(title)
    judged = sum(len(titles) for name, titles in groups.items() if name != ONLY_CONTROLS)
    yield f"{counted(judged, 'claim')} of the hypothesis {'was' if judged == 1 else 'were'} tested."
    words = {
        "supported": "The evidence supports",
        "real but below δ": "An effect exists but is smaller than δ in",
        "not supported": "The effect that the claim requires is excluded in",
        "reversed": "The effect has the opposite sign in",
        "inconclusive": "The evidence does not decide",
        "premise not met": "Tickets beat no random mask, so that nothing can be concluded, in",
        "void": "A control with a known answer failed in",
    }
    for name, start in words.items():
        if name in groups:
            yield f"{start}: {', '.join(groups[name])}."
    yield "All studies are small, so a null result here does not refute a finding at scale."


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
    facts = (
        f"{when}, {', '.join(sorted(libraries))}, {_time(sum(found['seconds'] for found in made))}"
    )
    return f"{table}\n\n`python -m experiments.atlas --size={size}`, {facts}."


def sentence(text: str) -> str:
    """A text with a capital at its start and a full stop at its end.

    >>> sentence("log of the share, per seed")
    'Log of the share, per seed.'
    """
    return text[:1].upper() + text[1:] + "." * (text[-1:] not in ".?!")


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"


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


def _section(chapter: Chapter, picture: Picture | None) -> dict[str, Any]:
    """What the template shows of a study."""
    protocol, found, judgement = chapter.protocol, chapter.found, chapter.judgement
    words = [("Question", "question"), ("Set-up", "setup"), ("Statistic", "statistic")]
    words += [("Rule", "rule"), ("Expected", "expects"), ("Limits", "limits")]
    _, verdict, part, size, delta, seeds = _cells(chapter)
    flops = [f"{value / 1e9:.3g}" for value in found["flops"].values()]
    return {
        **{name: protocol[name] for name in ("claim", "title", "says")},
        "verdict": verdict,
        "colour": COLOURS[verdict],
        "part": part,
        "effect": size,
        "delta": delta,
        "seeds": seeds,
        "time": _time(found["seconds"]),
        "sentence": _sentence(judgement),
        "picture": picture,
        "terms": [(name, sentence(protocol[key])) for name, key in words],
        "premise": _premise(found["gate"]) if found["gate"] else "",
        "numbers": _numbers(found),
        "controls": _controls(found),
        "notes": found["notes"],
        "flops": [["per network", *found["flops"]], ["GFLOP, search included", *flops]]
        if flops
        else [],
        "spent": _spent(found),
        "command": chapter.command,
    }


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


def _spent(found: dict[str, Any]) -> str:
    versions = found["environment"]["versions"]
    steps = f"{found['member_steps']:,} member-steps, " if found["member_steps"] else ""
    return (
        f"{found['seconds']:.0f} s, {steps}finished {found['finished'][:10]}, jax "
        f"{versions['jax']}, protocol {found['hash'][:8]}."
    )
