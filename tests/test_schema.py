"""The record of a node: what is written is read, and other content is refused."""

import ast
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from lth_jax import schema, store
from lth_jax.store import CorruptError, Node, StoreError, content_key
from lth_jax.types import TrainState

ROOT = Path(__file__).resolve().parents[1]
KEY = content_key("a node")


def population(names, level=1):
    """A record whose members are named by letters, which are their keys and arms."""
    n = len(names)
    lost = schema.Unscored("snip", ["w"], "scores are all equal")
    members = [schema.MemberRecord(name, name, i, 1 / (i + 1)) for i, name in enumerate(names)]
    members[0] = members[0]._replace(diverged_at=0, unscored=lost)
    params = {"w": np.arange(2.0 * n).reshape(n, 2)}
    return schema.NodeRecord(
        facts=schema.NodeFacts(
            level=level,
            members=tuple(members),
            leaves=(schema.LeafRecord("w", (2,), True), schema.LeafRecord("b", (), False)),
            steps=15,
            seconds=3.0,
        ),
        results={"loss": np.arange(n) / 10},
        eval_steps=np.array([5, 10, 15], np.int32),
        curves={"train_loss": np.arange(3 * n).reshape(3, n)},
        mask={"w": np.arange(2 * n).reshape(n, 2) % 3 == 0},
        points={"end": TrainState(params, {}, {"mu": np.zeros((n, 2))})},
    )


def assert_same(one, other):
    assert one.facts == other.facts
    parts = [record._replace(facts=()) for record in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *parts)


@pytest.fixture
def shelf(tmp_path):
    shelf = store.Store(tmp_path)
    shelf.node(KEY, lambda partial: schema.to_node(population("abc")))
    return shelf


def test_what_is_written_is_read(shelf):
    assert_same(schema.read_record(shelf, KEY), population("abc"))
    assert schema.read_facts(shelf, KEY) == population("abc").facts


def test_members_can_be_taken_and_joined(shelf):
    whole = population("abc")
    some = whole.take([2, 0])
    assert [member.key for member in some.facts.members] == ["c", "a"]
    assert some.facts.seconds == 2.0 and some.eval_steps is whole.eval_steps
    np.testing.assert_array_equal(some.curves["train_loss"], whole.curves["train_loss"][:, [2, 0]])
    np.testing.assert_array_equal(some.points["end"].params["w"], [[4, 5], [0, 1]])
    assert_same(schema.joined([whole.take([0]), whole.take([1, 2])]), whole)
    entry = schema.LevelEntry(KEY, 1, ["b"], [1], 15, 0)
    assert_same(schema.read_entry(shelf, entry), whole.take([1]))


def test_another_version_is_refused_by_both_names(tmp_path):
    shelf = store.Store(tmp_path)
    arrays, meta = schema.to_node(population("a"))
    shelf.node(KEY, lambda partial: Node(arrays, {**meta, "version": 0}))
    for read in (schema.read_record, schema.read_facts):
        with pytest.raises(StoreError, match=f"node {KEY[:8]} has version 0 .* reads version 1"):
            read(shelf, KEY)
    with pytest.raises(StoreError, match="is of kind 'rates'"):
        schema.facts_of({"kind": "rates"})


@pytest.mark.parametrize("broken", [{"rows": ["1"]}, {"arms": None}, {"place": 0.5}])
def test_a_line_of_the_manifest_has_all_fields(tmp_path, broken):
    line = schema.LevelEntry(KEY, 1, ["a"], [0], 15, 0)._asdict()
    with store.open_run(tmp_path, name="a", config={}, env={}) as run:
        run.add(**{**line, "key": "1" * 64, "level": 2})
        run.add(**line)
        assert [entry.level for entry in schema.read_entries(run.path)] == [1, 2]
        run.add(**line | broken)
        name = next(iter(broken))
        with pytest.raises(CorruptError, match=rf"manifest\.json is damaged: `{name}"):
            schema.read_entries(run.path)


WORDS = re.compile(r"\b(arm|arms|ticket|tickets|lottery|replicate|replicates|levels?|prun\w+)\b")
FIELDS = {"member_keys", "diverged_at", "unscored"}
PARTS = {"results", "history", "mask", "points", "end", "rewound"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "lth_jax/store").glob("*.py")), ids=lambda p: p.stem
)
def test_the_store_knows_no_lottery(path):
    code = ast.unparse(_without_docstrings(ast.parse(path.read_text())))
    assert not WORDS.findall(code)


def _without_docstrings(tree):
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            rest = [part for part in body if not _is_text(part)]
            node.body = rest or [ast.Pass()]
    return tree


def _is_text(part):
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)


SOURCES = [
    path
    for folder in ("lth_jax", "experiments")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != ROOT / "lth_jax/schema.py"
]


def test_no_other_module_reads_a_node_by_strings():
    """Fields of a node's record, and the parts of its arrays, are strings in the schema alone."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                of_arrays = getattr(node.value, "attr", None) == "arrays"
                if node.slice.value in FIELDS or (of_arrays and node.slice.value in PARTS):
                    found.append(f"{path.name}:{node.lineno}")
    assert found == []
