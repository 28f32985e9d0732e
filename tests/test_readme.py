"""Every Python block of the README and of docs/ runs, and so does the README's command."""

import re
import shlex
from pathlib import Path

import pytest

from experiments import run

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    """The code of each block, in the order of the page."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def test_the_readme_is_short_and_says_what_has_run():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 600
    assert re.search(
        r"^- \*\*CPUs\*\*.*^- \*\*GPUs, TPUs\*\*.*^- \*\*Clusters\*\*", text, re.S | re.M
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), names)
    if page.name == "README.md":
        printed = capsys.readouterr().out
        assert all(word in printed for word in ("reinit", "kernel", "0.36"))
        assert {"accuracy.png", "one.ticket"} <= {path.name for path in tmp_path.iterdir()}
        assert len(names["rates"]) == names["history"]["train_loss"].shape[1] == 16


@pytest.mark.slow
def test_the_command_with_own_parts_runs(tmp_path, monkeypatch, capsys):
    page = ROOT / "docs" / "own_parts.md"
    (code,) = blocks(page, "python")
    module = tmp_path / code.partition("\n")[0].removeprefix("# ")
    module.parent.mkdir()
    module.write_text(code)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (command,) = blocks(page, "sh")
    words = shlex.split(command.replace("\\\n", ""))
    assert words[:3] == ["python", "-m", "experiments.run"]
    monkeypatch.setattr("sys.argv", ["run.py", *words[3:]])
    run.main()
    assert "Test loss at the end" in capsys.readouterr().out


def test_links_lead_to_files():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), (page.name, link)
