"""Buckets: near the area, far apart, and no picture without one."""

import math

import numpy as np
import pytest

from darkroom.errors import RecipeError
from darkroom.preprocess.buckets import assign, cropped, shapes


@pytest.mark.parametrize(("size", "count", "step", "aspect"), [(512, 9, 64, 2.0), (1024, 64, 64, 4.0), (64, 5, 8, 3.0)])
def test_shapes_are_of_about_the_area_and_allowed(size: int, count: int, step: int, aspect: float) -> None:
    found = shapes(size, count, step, aspect)
    assert len(set(found)) == len(found) <= count
    assert (size, size) in found
    assert list(found) == sorted(found, key=lambda shape: shape[1] / shape[0])
    for height, width in found:
        assert height % step == width % step == 0
        assert max(height, width) / min(height, width) <= aspect
        assert abs(math.log(height * width / size**2)) < 0.35


def test_one_bucket_is_the_square_and_two_are_as_far_apart_as_allowed() -> None:
    assert shapes(40, 1, 64, 2.0) == ((40, 40),)
    assert shapes(512, 2, 64, 2.0) == ((512, 512), (384, 704))
    assert len(shapes(512, 64, 64, 1.0)) == 1  # nothing but the square is allowed


def test_sides_that_cannot_be_multiples_are_named() -> None:
    with pytest.raises(RecipeError, match=r"preprocess\.size = 40 is no multiple of preprocess\.bucket_step = 64"):
        shapes(40, 2, 64, 2.0)


def test_each_picture_goes_to_the_nearest_shape_which_crops_it_least() -> None:
    among = shapes(512, 7, 64, 2.5)
    random = np.random.default_rng(0)
    widths, heights = random.integers(20, 4000, 500), random.integers(20, 4000, 500)
    lost = np.stack([cropped(widths, heights, shape) for shape in among])
    assert ((lost >= 0) & (lost < 1)).all()
    found = assign(widths, heights, among)
    np.testing.assert_allclose(lost[found, np.arange(500)], lost.min(axis=0), atol=1e-9)
    assert cropped(np.array([1024]), np.array([512]), (512, 512))[0] == pytest.approx(0.5)
    # Turned pictures go to turned shapes.
    mirrored = [among.index((width, height)) for height, width in among]
    assert [mirrored[one] for one in assign(heights, widths, among)] == found.tolist()
