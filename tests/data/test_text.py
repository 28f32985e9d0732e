import numpy as np
import pytest

from lth_jax.data import text

WORDS = "señor Ωmega, a tale of añejo; " * 20


def test_windows_are_the_text_and_targets_what_follows():
    made = text.windows(WORDS.encode(), window=7)
    x, y = (np.concatenate([getattr(p, name) for p in made[:2]]).ravel() for name in ("x", "y"))
    alphabet = sorted(set(WORDS))
    assert "".join(alphabet[i] for i in x) == WORDS[: len(x)]
    assert "".join(alphabet[i] for i in y) == WORDS[1 : len(x) + 1]
    assert made.classes == len(alphabet) and made.train.x.dtype == np.int32
    assert len(x) // 7 == (len(WORDS) - 1) // 7 and len(made.test.x) == round(len(x) / 70)


def test_bytes_are_their_own_numbers():
    made = text.windows(WORDS.encode(), window=5, unit="bytes", limit=101)
    assert made.classes == 256
    assert bytes(made.train.x.ravel().tolist()) == WORDS.encode()[: 5 * 18]


def test_the_standard_library_is_english():
    assert text.standard_library().count(b" the ") > 1000


@pytest.mark.parametrize(
    ("raw", "asked", "message"),
    [
        (b"short", {}, "must have symbols for 10 windows of 64 and one more, it has 5"),
        (b"\xff" * 999, {"window": 3}, "must be UTF-8 for `unit='characters'`"),
        (b"a" * 999, {"unit": "words"}, "`unit` is 'words';.* must be one of: .*bytes"),
        (b"a" * 999, {"limit": 0}, "`limit` must lie in 1"),
    ],
)
def test_bad_texts_are_refused(raw, asked, message):
    with pytest.raises(ValueError, match=message):
        text.windows(raw, **asked)
