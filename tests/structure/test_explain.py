"""Why indices cannot be removed, or with which leaves; tables and figures of all groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.structure_networks import Decoder
from lth_jax import structure as st
from lth_jax.models import ResNet, from_linen
from lth_jax.report.unit_map import unit_map
from lth_jax.structure import overview


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def decoder(**options):
    sizes = Decoder(width=16, layers=2, heads=2, hidden=24, vocabulary=11, **options)
    return st.find_groups(sizes.apply, sizes.shapes(), jax.ShapeDtypeStruct((1, 8), jnp.int32))


def resnet():
    model = from_linen(ResNet(width=4))
    x = shape(1, 8, 8, 3)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    return st.find_groups(lambda p, s, x: model.apply(p, s, x, train=False)[0], params, state, x)


def primitives(equations):
    return [equation.primitive for equation in equations]


@pytest.mark.parametrize("network", [decoder, lambda: decoder(scanned=True), resnet])
def test_every_index_of_every_axis_is_explained(network):
    found = network()
    for leaf, sizes in found.shapes.items():
        for axis, size in enumerate(sizes):
            why = found.why(leaf, axis)
            explained = [part.indices for part in (*why.pinned, *why.members)]
            assert np.unique(np.concatenate(explained)).tolist() == list(range(size))
            assert {part.reason for part in why.pinned} == set(found.pinned[leaf][axis])
            for member in why.members:
                slots = {(slot.leaf, slot.axis) for slot in found[member.group].slots}
                assert {(tied.leaf, tied.axis) for tied in member.ties} | {(leaf, axis)} == slots


def test_a_product_by_elements_ties_the_gate_to_the_other_branch():
    [member] = decoder().why("blocks/1/gate", 1).members
    ways = {f"{tied.leaf}:{tied.axis}": tied.equations for tied in member.ties}
    assert primitives(ways["blocks/1/up:1"]) == ["mul"]
    assert primitives(ways["blocks/1/down:0"]) == ["dot_general"]
    [product] = ways["blocks/1/up:1"]
    assert product.operands == ("bfloat16[1,8,24]", "bfloat16[1,8,24]")
    assert product.source.startswith("experiments/benchmarks/structure_networks.py:")
    assert product.source.endswith("(Decoder.block)")


def test_the_path_leads_through_the_constraints_up_to_the_pin():
    def apply(p, x):
        return jnp.cumsum(jnp.exp(x @ p["w"]) + x @ p["v"], axis=1).sum(1)

    found = st.find_groups(apply, {"v": shape(5, 12), "w": shape(5, 12)}, shape(2, 5))
    for leaf, path in (("v", ["add", "cumsum"]), ("w", ["exp", "cumsum"])):
        [pinned] = found.why(leaf, -1).pinned
        assert pinned.reason == "`cumsum` runs along it" and primitives(pinned.equations) == path


def test_the_parts_of_an_axis_have_their_own_answers():
    def apply(p, x):
        h = x @ p["w"]
        return h[:, :3], jnp.tanh(h[:, 3:]) @ p["v"]

    params = {"w": shape(4, 8), "v": shape(5, 2)}
    why = st.find_groups(apply, params, shape(1, 4)).why("w", 1)
    assert why.pinned[0].indices.tolist() == [0, 1, 2]
    assert why.members[0].indices.tolist() == [3, 4, 5, 6, 7]
    assert "3 of 8 cannot be removed: an axis of result 0" in str(why)
    assert "5 of 8 belong to units of 'v:0'" in str(why)
    assert "with v:0 by dot_general (test_explain.py:" in repr(why)


def test_indices_that_can_only_go_together_are_led_to_each_other():
    def apply(p, x):
        h = jnp.tanh(x @ p["w"])
        return (h + h[:, ::-1]).sum(1)

    why = st.find_groups(apply, {"w": shape(3, 2)}, shape(1, 3)).why("w", 1)
    [pinned] = why.pinned
    assert "only be removed together" in pinned.reason
    assert primitives(pinned.equations) == ["add"]


def test_flax_modules_and_their_lines_are_named():
    [pinned] = resnet().why("Dense_0/kernel", 1).pinned
    assert pinned.equations[-1].module == "ResNet/Dense_0"


@pytest.mark.parametrize(
    ("place", "message"),
    [(("head", 2), "`axis` is 2, but 'head' has shape"), (("heat", 0), "did you mean 'head'")],
)
def test_a_place_that_is_not_there_is_refused(place, message):
    with pytest.raises(ValueError, match=message):
        decoder().why(*place)


def test_the_analysis_is_only_repeated_when_somebody_asks():
    found = decoder()
    assert "constraints" not in vars(found)
    found.why("head", 0)
    assert "constraints" in vars(found)


def test_the_table_is_short_in_a_notebook_and_whole_on_request():
    sizes = Decoder(width=8, layers=30, heads=2, hidden=12, vocabulary=5)
    found = st.find_groups(sizes.apply, sizes.shapes(), jax.ShapeDtypeStruct((1, 4), jnp.int32))
    assert (
        repr(found).splitlines()[-1] == "… and 46 more: see `table()`" and len(repr(found)) < 2000
    )
    assert len(found.table().rows) == len(found.groups) == 61
    rows = {row[0]: row for row in found.table().rows}
    assert rows["blocks/3/down:0"][1:4] == ("12", "3", str(3 * 8))
    assert rows["blocks/3/key:1"][-1].split(", ")[0] == "blocks/3/key:1×4"


def test_a_weight_in_two_slices_of_a_unit_counts_once():
    def apply(p, x):
        return jnp.tanh(jnp.tanh(x @ p["in"]) @ p["square"] + x @ p["in"]) @ p["out"]

    params = {"in": shape(2, 5), "square": shape(5, 5), "out": shape(5, 3)}
    found = st.find_groups(apply, params, shape(1, 2))
    [group] = found.groups
    assert overview.touched(found.shapes, [group], 1) == 2 + 3 + 2 * 5 - 1


def test_the_figure_has_a_row_for_each_kind_of_group():
    found = decoder()
    kept = {"blocks/1/down:0": np.arange(24) < 6}
    rows = overview.rows(found.groups, found.shapes, kept)
    assert [row.label for row in rows] == [
        "blocks/*/down:1  (1 group of 16)",
        "blocks/*/down:0  (2 groups of 24)",
        "blocks/*/key:1  (2 groups of 2)",
        "in no unit",
    ]
    assert rows[1].shares == (1.0, 0.25) and rows[-1].weights == 0
    assert rows[0].weights == sum(np.prod(s) for s in found.shapes.values())
    strips = [image.get_array() for image in found.figure(kept).axes[0].images]
    assert [strip.tolist() for strip in strips] == [[[1.0]], [[1.0, 0.25]], [[1.0, 1.0]]]


def test_a_figure_of_many_kinds_joins_them():
    params = {f"{a}{b}": {c: shape(4, 4) for c in "xyz"} for a in "abcde" for b in "stuvw"}

    def apply(p, x):
        for part in p.values():
            for w in part.values():
                x = jnp.tanh(x @ w)
        return x

    found = st.find_groups(apply, params, shape(1, 4))
    rows = overview.rows(found.groups, found.shapes, {})
    assert len(rows) <= 25 and sum(len(row.shares) for row in rows) == 74
    assert [row.label for row in rows][-2:] == ["others  (5 groups of 4)", "in no unit"]


def test_the_figure_refuses_unknown_groups_and_marks_inexact_ones():
    found = decoder()
    with pytest.raises(ValueError, match="`units`"):
        found.figure({"nothing": np.ones(2, bool)})
    [row, _] = overview.rows([found["blocks/1/key:1"]], found.shapes, {})
    figure = unit_map([row._replace(exact=(False,))], 100, pruned=False)
    [legend] = figure.legends
    assert [entry.get_text() for entry in legend.get_texts()] == [
        "removal equals masking",
        "it does not",
    ]
