from html.parser import HTMLParser
from pathlib import Path

import pytest

from lth_jax import store
from lth_jax.report import figures, plotting
from lth_jax.report.levels import read_run
from lth_jax.report.page import page, write_report
from tests.report import synthetic


class Seen(HTMLParser):
    """Every tag and attribute of a page, and whether all tags were closed in order."""

    VOID = ("meta", "link", "br", "img", "hr")

    def __init__(self, page):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def values(self, *names):
        return [value for name, value in self.attributes if name in names]


@pytest.fixture(scope="module")
def path(shelf, written):
    return write_report(shelf, written)


@pytest.fixture(scope="module")
def seen(path):
    return Seen(path.read_text())


def test_the_page_lies_in_the_runs_folder(path, written):
    assert path == Path(written.path, "report", "index.html")


def test_the_page_needs_nothing_from_elsewhere(seen, path):
    assert not {"script", "img", "iframe", "object", "embed"} & set(seen.tags)
    assert seen.values("src", "srcset") == []
    for link in seen.values("href", "xlink:href"):
        assert link.startswith("#") or (path.parent / link).is_file()
    style = path.read_text().split("</style>")[0]
    assert "@import" not in style and "url(" not in style


def test_every_picture_is_inside_and_no_two_things_share_an_id(seen, run):
    pictures = seen.values("aria-label")
    assert pictures == ["diagram", *figures.draw(run)]
    ids = seen.values("id")
    assert len(ids) == len(set(ids))
    used = {link[1:] for link in seen.values("href", "xlink:href") if link.startswith("#")}
    assert used <= set(ids)


def test_everything_lies_beside_the_page(path):
    names = {p.relative_to(path.parent).as_posix() for p in path.parent.rglob("*.*")}
    for data in ("seeds", "differences", "leaves", "overlaps", "curves"):
        assert {f"data/{data}.parquet", f"data/{data}.csv"} <= names
    assert {"figures/test_accuracy_final.png", "figures/test_accuracy_final.svg"} <= names
    assert not [name for name in names if name.endswith(".tmp")]


def test_the_page_says_what_was_run_and_what_came_out(seen, run):
    text = " ".join(seen.text)
    assert run.info.run in text
    assert "3 levels, 5 replicates, 65 networks · 1 diverged" in text
    assert "mnist1d" in text and "plan.chunk" in text and "versions.jax" in text
    assert "ticket minus control" in text and "5 paired replicates" in text
    assert f"lth report {run.info.run}" in text
    assert "(4/5)" in text and "(n/m): the mean over n of m replicates" in text


@pytest.mark.slow
def test_replicates_that_are_left_out_are_explained_only_where_some_are(tmp_path):
    info = synthetic.write(tmp_path, nodes=synthetic.ladder(levels=2, replicates=2, evaluations=2))
    text = write_report(store.Store(tmp_path), info).read_text()
    assert "half the 95&nbsp;% interval over replicates. Kept" in text and "(n/m)" not in text


@pytest.mark.slow
def test_the_same_run_gives_the_same_files(path, shelf, written):
    files = [p for p in path.parent.rglob("*.*") if p.suffix != ".parquet"]
    before = {p: p.read_bytes() for p in files}
    write_report(shelf, written)
    assert {p: p.read_bytes() for p in files} == before


def test_what_a_config_says_is_escaped(tmp_path):
    config = {"note": "<script>alert('$x')</script> & more"}
    info = synthetic.write(tmp_path, nodes=[], config=config)
    page = write_report(store.Store(tmp_path), info).read_text()
    assert "script" not in Seen(page).tags
    assert "&lt;script&gt;alert(&#39;$x&#39;)&lt;/script&gt; &amp; more" in page


def test_the_command_that_made_the_run_is_repeated(tmp_path):
    env = {"command": ["python", "a b"]}
    with store.open_run(tmp_path, name="x", config={"x": 1}, env=env) as run:
        page = write_report(store.Store(tmp_path), run).read_text()
    assert "python &#39;a b&#39;" in page and "Fields that later versions added" in page


def test_an_own_control_is_described_by_its_docstring(tmp_path):
    nodes = synthetic.ladder(levels=2, replicates=2, evaluations=2)
    for i, node in enumerate(nodes):
        own = tuple(m._replace(arm=m.arm.replace("random", "halved")) for m in node.facts.members)
        nodes[i] = node._replace(facts=node.facts._replace(members=own))
    env = {"controls": {"halved": "Half of the ticket's weights."}}
    info = synthetic.write(tmp_path, nodes=nodes, env=env)
    record = read_run(store.Store(tmp_path), info.path)
    text = " ".join(Seen(page(record, [], []).decode()).text)
    assert "Half of the ticket's weights." in text and "initial weights matter?" in text
    assert "random from the whole network" not in text  # that control was not trained


def test_a_figure_that_would_show_nothing_is_named_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(plotting, "image", lambda figure, kind: b"<svg/>")
    nodes = synthetic.ladder(levels=1, replicates=2, evaluations=1)
    for node in nodes:
        node.results["early_stop_step"][:] = 100
    info = synthetic.write(tmp_path, nodes=nodes)
    text = write_report(store.Store(tmp_path), info).read_text()
    assert "Not drawn, since each line would have one point: <em>Test accuracy at the end" in text
    assert "<em>Speed of learning</em>" in text and "<em>Validation loss in training</em>" in text
    assert "figures/leaf_density.svg" in text and "early_stop_step.svg" not in text


def test_an_unfinished_run_shows_what_is_there(tmp_path):
    nodes = synthetic.ladder(levels=0, evaluations=2)
    info = synthetic.write(tmp_path, nodes=nodes, finish=False)
    text = " ".join(Seen(write_report(store.Store(tmp_path), info).read_text()).text)
    assert "interrupted" in text and "5 replicates" in text


def test_a_run_without_levels_has_a_page_that_says_so(tmp_path):
    info = synthetic.write(tmp_path, nodes=[], finish=False)
    page = write_report(store.Store(tmp_path), info).read_text()
    assert "No level with tickets and controls is finished yet." in page
    assert "svg" not in Seen(page).tags


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    info = synthetic.write(tmp_path, nodes=[])
    Path(info.path, "report").write_text("in the way")
    with pytest.raises(store.StoreError, match="cannot be written"):
        write_report(store.Store(tmp_path), info)
