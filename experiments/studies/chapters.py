"""The finished studies as chapters of the atlas, and its page."""

import tomllib
from pathlib import Path

from ml_collections import ConfigDict

from experiments.studies import pipeline, registration
from experiments.studies.protocol import STUDIES
from experiments.studies.study_runner import StudyRunner
from lth_jax.measures.judge import wrong_controls
from lth_jax.report import answers
from lth_jax.report.atlas import write_atlas
from lth_jax.report.chapters import Chapter

OUTCOMES = Path(__file__).parent / "outcomes.toml"
"""By study and verdict: how the results compare with the expectation."""
SOURCE = (
    "The claims are those of “Applications and Interdisciplinary Connections”, the part of an "
    "overview article on the Lottery Ticket Hypothesis that lists what follows from it; “In the "
    "article” names the section and the paragraph. ORIGINAL is the hypothesis of Frankle and "
    "Carbin (2019, arXiv:1803.03635). C18, CRITERIA, N1, N2 and N3 are questions of this project "
    "on the article’s second paragraph; N4 is a question about pruning language models. There is "
    "no study C2, because N1 covers that claim."
)


def draw(size: str, runner: StudyRunner, seed: int = 0) -> Path:
    """Writes the atlas of all finished studies of a size."""
    chapters = chapters_of(size, runner, seed)
    return write_atlas(folder_of(runner, size, seed=seed), size, chapters, SOURCE)


def chapters_of(size: str, runner: StudyRunner, seed: int = 0) -> list[Chapter]:
    """The finished studies of a size, after the controls of the pipeline."""
    whole = answers.read_rounds(folder_of(runner, size, pipeline.NAME, seed), size)
    failed = {name: wrong_controls(one) for name, one in whole.items()}
    command = f"python -m experiments.atlas --size={size}" + (f" --seed={seed}" if seed else "")
    chapters = [Chapter(pipeline.PROTOCOL._asdict(), whole, None, command)] if whole else []
    outcomes = {} if seed else tomllib.loads(OUTCOMES.read_text())  # of the published rounds
    for claim in STUDIES:
        folder = folder_of(runner, size, claim, seed)
        if one := _chapter(size, claim, folder, f"{command} --only={claim}"):
            one = one._replace(failed=failed)
            outcome = outcomes.get(claim, {}).get(one.judgement["verdict"], "")
            chapters.append(one._replace(protocol=one.protocol | {"outcome": outcome}))
    return chapters


def _chapter(size: str, claim: str, folder: Path, command: str) -> Chapter | None:
    one, done = STUDIES[claim], answers.read_rounds(folder, size)
    if not done:
        return None
    rows = [
        row | ({"replicate": row["replicate"] + 10**6 * i} if "replicate" in row else {})
        for i, (name, answer) in enumerate(done.items())
        for row in answers.read_rows(folder / name, answer)
    ]
    changes = [
        f"Version {v['version']}, {v['date']}"
        f"{', after data had been seen' if v['data_seen'] else ''}: {v['reason']}"
        for v in registration.versions(claim)
    ]
    return Chapter(
        protocol=one.protocol._asdict() | _own_setup(one.get_config(size)),
        rounds=done,
        figure=one.draw(rows) if rows else None,
        command=command,
        changes=changes,
    )


def _own_setup(config: ConfigDict) -> dict[str, str]:
    """The set-up of this size, if it differs from the protocol's."""
    return {"setup": config.study.setup} if "setup" in config.study else {}


def folder_of(runner: StudyRunner, size: str, claim: str = "", seed: int = 0) -> Path:
    """The folder of the atlas of a size and a seed, or of one study in it."""
    name = f"{size}-seed-{seed}" if seed else size
    return Path(runner.machine.workdir) / "atlas" / name / claim
