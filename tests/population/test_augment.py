"""What members are shown, against the definitions; that it differs, repeats, is one program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lth_jax import trees
from lth_jax.population import augment, compile_segment, losses, segment
from lth_jax.population.placement import Plan
from lth_jax.types import Batch
from tests.population.tiny import STEPS, TRAIN, TRAINER, VALIDATION, members_of, records_of

KEY, NOISE = jax.random.key(1), jax.random.key(2)
IMAGES = Batch(
    jax.random.uniform(jax.random.key(0), (6, 8, 10, 2), minval=0.5), jnp.arange(6) % 3
)  # no pixel is 0


def member_with(key=KEY, **hyper):
    """A member of which only the data key and the numbers are looked at."""
    hyper = {"replicate": 0} | hyper
    hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
    hyper["replicate"] = jnp.int32(hyper["replicate"])
    return segment.Member(None, None, None, None, key, key, hyper, jnp.array(True))


@functools.cache
def jitted(*steps):
    return jax.jit(augment.chain(*steps))


SOFT = augment.soft_targets(3)


CONSTANTS = {"noise": NOISE}


def show(steps, *, key=KEY, data=IMAGES, rows=None, member=None, constants=CONSTANTS):
    rows = jnp.arange(len(data.y)) if rows is None else rows
    return jax.device_get(jitted(*steps)(key, data, rows, member, constants))


def keys(n):
    return jax.random.split(jax.random.key(5), n)


def test_smoothing_is_its_formula():
    batch = show((SOFT, augment.smooth), member=member_with(label_smoothing=0.3))
    np.testing.assert_allclose(batch.y, 0.7 * np.eye(3)[IMAGES.y] + 0.1, rtol=1e-6)
    np.testing.assert_array_equal(batch.x, IMAGES.x)


def test_label_noise_meets_the_same_examples_in_every_epoch():
    noisy = (augment.noisy_labels(10),)
    data = Batch(jnp.zeros((4000, 1)), jnp.zeros(4000, jnp.int32))
    member = member_with(label_noise=0.4)
    whole = show(noisy, data=data, member=member).y
    rows = jnp.array([7, 3999, 20])
    later = show(noisy, key=jax.random.key(9), data=data, rows=rows, member=member).y
    np.testing.assert_array_equal(later, whole[rows])
    share = float(jnp.mean(whole != 0))
    assert share == pytest.approx(0.4 * 0.9, abs=0.03)  # a tenth of the drawn labels are right
    assert stats.chisquare(np.bincount(whole)[1:]).pvalue > 1e-3
    other = show(noisy, data=data, member=member_with(replicate=1, label_noise=0.4)).y
    assert (other != whole).any()
    level = show(noisy, data=data, member=member_with(jax.random.key(3), label_noise=0.4)).y
    np.testing.assert_array_equal(level, whole)  # another data order: the same labels
    np.testing.assert_array_equal(show(noisy, data=data, member=member_with(label_noise=0)).y, 0)


def shares(targets):
    """How much of each example's target is its own label's, and whose the rest is."""
    own = np.take_along_axis(np.asarray(targets), np.asarray(IDENTITY.y)[:, None], axis=1)[:, 0]
    return own, np.argmax(targets * (1 - np.eye(6)), axis=1)


IDENTITY = IMAGES._replace(y=jnp.arange(6))
OWN = augment.soft_targets(6)


def test_mixup_mixes_inputs_and_targets_alike():
    """Targets are one-hot of the example's number, so they determine share and partner."""
    for key in keys(5):
        batch = show((OWN, augment.mixup), key=key, data=IDENTITY, member=member_with(mixup=1.0))
        own, partner = shares(batch.y)
        mixed = own < 1  # an example may meet itself
        share = own[mixed][0]
        np.testing.assert_allclose(own[mixed], share, rtol=1e-5)
        wanted = share * IMAGES.x + (1 - share) * IMAGES.x[partner]
        np.testing.assert_allclose(batch.x[mixed], wanted[mixed], rtol=1e-5)
        np.testing.assert_allclose(batch.x[~mixed], IMAGES.x[~mixed], rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha):
    drawn = jax.vmap(augment._share, (0, None))(keys(2000), alpha)
    assert stats.kstest(np.asarray(drawn), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_cutmix_replaces_a_box_and_its_share():
    fractions = []
    for key in keys(8):
        batch = show((OWN, augment.cutmix), key=key, data=IDENTITY, member=member_with(cutmix=1.0))
        own, partner = shares(batch.y)
        for i in np.flatnonzero(own < 1):
            foreign = np.asarray(batch.x[i] != IMAGES.x[i]).all(axis=-1)
            rows, columns = np.flatnonzero(foreign.any(1)), np.flatnonzero(foreign.any(0))
            box = np.zeros((8, 10), bool)
            box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
            np.testing.assert_array_equal(foreign, box)
            np.testing.assert_array_equal(batch.x[i][box], IMAGES.x[partner[i]][box])
            assert own[i] == pytest.approx(1 - box.mean(), abs=1e-6)
            fractions.append(box.mean())
    assert len(set(fractions)) > 3


def test_cutmix_replaces_a_window_of_a_signal():
    for key in keys(8):
        inside = np.asarray(augment._box(key, 0.7, (40,)))
        places = np.flatnonzero(inside)
        assert 0 < len(places) <= 12 and np.all(np.diff(places) == 1)
    signals = Batch(jnp.arange(6.0)[:, None] * jnp.ones(40), jnp.eye(6))
    member = member_with(cutmix=1.0)
    mixed = augment.cutmix(jax.random.key(1), signals, jnp.arange(6), member, {})
    own = np.mean(np.asarray(mixed.x) == np.arange(6)[:, None], axis=1)
    np.testing.assert_allclose(np.diag(mixed.y), own, atol=1e-6)


@pytest.mark.parametrize("step", [augment.mixup, augment.cutmix])
def test_a_beta_parameter_of_0_changes_nothing(step):
    batch = show((SOFT, step), member=member_with(**{step.__name__: 0.0}))
    np.testing.assert_array_equal(batch.x, IMAGES.x)
    np.testing.assert_array_equal(batch.y, np.eye(3)[IMAGES.y])


@pytest.mark.slow
def test_crops_are_windows_of_the_padded_image():
    padding = 2
    padded = np.pad(IMAGES.x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    seen = set()
    for key in keys(30):
        for i, image in enumerate(np.asarray(show((augment.crop(padding),), key=key).x)):
            windows = {
                (top, left): padded[i, top : top + 8, left : left + 10]
                for top in range(5)
                for left in range(5)
            }
            (place,) = (k for k, window in windows.items() if np.array_equal(window, image))
            seen.add(place)
    assert {top for top, _ in seen} == {left for _, left in seen} == set(range(5))


def test_flips_mirror_every_second_image():
    mirrored = 0
    for key in keys(30):
        x = np.asarray(show((augment.flip,), key=key).x)
        for image, before in zip(x, np.asarray(IMAGES.x), strict=True):
            turned = np.array_equal(image, before[:, ::-1])
            assert turned or np.array_equal(image, before)
            mirrored += turned
    assert 0.35 < mirrored / (30 * len(IMAGES.x)) < 0.65


TAUGHT = augment.chain(augment.with_teachers())
ANSWERS = jnp.stack([5 * TRAIN.x[:, :3], -TRAIN.x[:, 3:]])  # of two linear teachers


def test_unlabelled_examples_count_by_the_teachers_alone():
    member = member_with(distillation=0.25, temperature=2.0)
    pool = augment.Unlabelled(10 * TRAIN.x, 10 * ANSWERS)
    steps, constants = (
        (augment.with_teachers(unlabelled=4),),
        {"answers": ANSWERS, "unlabelled": pool},
    )
    batch = show(steps, data=TRAIN, rows=jnp.arange(8), member=member, constants=constants)
    assert batch.x.shape == (12, 6) and batch.y.logits.shape == (2, 12, 3)
    assert batch.y.weight.tolist() == [0.25] * 8 + [1.0] * 4
    pool = {x.tobytes() for x in np.asarray(10 * TRAIN.x)}
    assert all(x.tobytes() in pool for x in np.asarray(batch.x[8:]))
    of_each = [5 * batch.x[:, :3], -batch.x[:, 3:]]  # the teachers' own inputs are asked about
    np.testing.assert_array_equal(batch.y.logits, of_each)
    logits = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    moved = batch.y._replace(labels=np.append(batch.y.labels[:8], [2, 2, 2, 2]))
    np.testing.assert_array_equal(
        losses.distillation(logits, batch.y), losses.distillation(logits, moved)
    )


def test_a_replicate_may_have_a_teacher_of_its_own():
    member, rows = member_with(distillation=0.25, temperature=2.0), jnp.array([3, 1])
    member = member._replace(hyper=member.hyper | {"replicate": jnp.int32(1)})
    steps, constants = (augment.with_teachers(augment.own_teacher),), {"answers": ANSWERS}
    batch = show(steps, data=TRAIN, rows=rows, member=member, constants=constants)
    np.testing.assert_array_equal(batch.y.logits, ANSWERS[1:, rows])


@functools.cache
def segment_of(trainer_show, objective):
    trainer = TRAINER._replace(transform_batch=trainer_show, objective=objective)
    return compile_segment(trainer, Plan(3))


def trained(trainer, **hyper):
    """Three members trained by one program, each with another number in `hyper`."""
    members = members_of(3)
    numbers = {name: jnp.asarray(values, jnp.float32) for name, values in hyper.items()}
    members = jax.tree.map(
        jnp.copy, members._replace(hyper={**members.hyper, **numbers})
    )  # donated: every leaf needs a buffer of its own
    run = segment_of(trainer.transform_batch, trainer.objective)
    data = TRAIN, VALIDATION, trainer.constants
    members, _, info = run(members, records_of(members), *data, 0, STEPS)
    return members.params, info


@functools.cache
def untaught():
    return trained(TRAINER)


@pytest.mark.slow
def test_strengths_of_0_train_as_if_there_were_none():
    """One program: the first member is plain, the others are not."""
    steps = (
        augment.noisy_labels(3),
        augment.soft_targets(3),
        augment.smooth,
        augment.mixup,
    )
    changed = TRAINER._replace(
        transform_batch=augment.chain(*steps),
        objective=losses.soft_cross_entropy,
        constants=CONSTANTS,
    )
    strengths = {k: [0.0, 0.5, 0.5] for k in ("label_noise", "label_smoothing", "mixup")}
    (params, _), (plain, _) = trained(changed, **strengths), untaught()
    params, plain = (np.asarray(tree["Dense_0"]["kernel"]) for tree in (params, plain))
    apart = np.abs(params - plain).max(axis=(1, 2))
    assert apart[0] < 1e-6 and apart[1:].min() > 1e-3


@pytest.mark.slow
def test_a_teacher_without_weight_changes_nothing_and_training_repeats():
    trainer = TRAINER._replace(
        transform_batch=TAUGHT, objective=losses.distillation, constants={"answers": ANSWERS}
    )
    numbers = {"distillation": [0.0, 0.9, 0.9], "temperature": [1.0, 1.0, 8.0]}
    first, again, plain = trained(trainer, **numbers), trained(trainer, **numbers), untaught()
    jax.tree.map(np.testing.assert_array_equal, first, again)
    alone, usual = (trees.index(params, 0) for params, _ in (first, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone, usual)
    kernel = first[0]["Dense_0"]["kernel"]
    assert not np.allclose(kernel[1], plain[0]["Dense_0"]["kernel"][1], atol=1e-3)


@pytest.mark.slow
def test_trainers_that_differ_in_constants_share_one_program():
    """Three networks by one teacher, and by another, are as if each were closed over."""
    numbers = {"distillation": [0.5] * 3, "temperature": [1.0] * 3}
    found = []
    for answers in (ANSWERS, -ANSWERS):
        trainer = TRAINER._replace(
            transform_batch=TAUGHT, objective=losses.distillation, constants={"answers": answers}
        )
        closed = TRAINER._replace(
            transform_batch=lambda *args, said=answers: TAUGHT(*args[:-1], {"answers": said}),
            objective=losses.distillation,
        )
        found.append(trained(trainer, **numbers))
        jax.tree.map(np.testing.assert_array_equal, found[-1], trained(closed, **numbers))
    assert segment_of(TAUGHT, losses.distillation)._cache_size() == 1
    assert (found[0][1]["train_loss"] != found[1][1]["train_loss"]).all()


def test_members_see_images_of_their_own():
    trainer = TRAINER._replace(transform_batch=augment.chain(augment.crop(2), augment.flip))

    def seen(seed, step):
        rows = jnp.arange(6)
        return segment.training_batch(
            trainer, member_with(jax.random.key(seed)), IMAGES, rows, step
        ).x

    np.testing.assert_array_equal(seen(0, 3), seen(0, 3))
    assert (seen(0, 3) != seen(1, 3)).any() and (seen(0, 3) != seen(0, 4)).any()


def test_strict_dtype_promotion_holds():
    steps = (
        augment.noisy_labels(3),
        SOFT,
        augment.smooth,
        augment.mixup,
        augment.cutmix,
        augment.crop(1),
        augment.flip,
    )
    member = member_with(label_noise=0.1, label_smoothing=0.1, mixup=1.0, cutmix=1.0)
    with jax.numpy_dtype_promotion("strict"):
        batch = jax.eval_shape(augment.chain(*steps), KEY, IMAGES, jnp.arange(6), member, CONSTANTS)
    assert batch.x.dtype == batch.y.dtype == jnp.float32
