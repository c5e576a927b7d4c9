"""The built-in source."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from darkroom.collect import digits
from darkroom.collect.digits import WORDINGS, WORDS, caption, items


def test_pictures_are_the_scans_with_their_sense_kept() -> None:
    found = list(items())
    scans = load_digits()
    assert len(found) == 1797
    for index in (0, 7, 1796):
        pixels = np.asarray(Image.open(io.BytesIO(found[index].read())))
        assert pixels.shape == (8, 8)
        assert np.abs(pixels / 255 * 16 - scans.images[index]).max() <= 16 / 255
        assert found[index].label == WORDS[scans.target[index]]
    # Bright ink on black: the corners of scans are empty.
    assert np.asarray(Image.open(io.BytesIO(found[0].read())))[0, 0] == 0


def test_bytes_are_the_same_everywhere() -> None:
    # Identities, and with them the split, follow from these bytes: they may not depend on the version of a library.
    first = next(iter(items()))
    assert (
        hashlib.sha256(first.read()).hexdigest() == "d79b74a84660260fea78c0b6384a0ffa2d88bef62d035c7a70a4a233c4ae194a"
    )


def test_every_wording_is_used_and_names_the_digit() -> None:
    captions = {(item.caption, item.label) for item in items()}
    assert len(captions) == len(WORDINGS) * 10
    assert (caption(7, 0), "seven") in captions
    assert ("手寫數字七", "seven") in captions


def test_the_scans_are_those_of_scikit_learn_also_where_its_file_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    images, target = digits._scans()
    scans = load_digits()
    assert np.array_equal(images, scans.images)
    assert np.array_equal(target, scans.target)
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    again, _ = digits._scans()
    assert np.array_equal(again, images)
