"""Intervals as pictures: every number is inside, and in words for those who cannot see it."""

import re
from xml.etree import ElementTree

import pytest

from darkroom.evaluation.gate import Look
from darkroom.report.charts import interval, looks


@pytest.mark.parametrize(("gain", "low", "high", "wanted"), [(1, 0.5, 2, 0.1), (-3, -4, -2, 0.5), (0, 0, 0, -0.2)])
def test_an_interval_lies_where_it_says(gain: float, low: float, high: float, wanted: float) -> None:
    drawn = ElementTree.fromstring(interval(gain, low, high, wanted))  # our own
    reach = next(one for one in drawn if one.get("class") == "reach")
    axis = next(one for one in drawn if one.get("class") == "axis")
    ends, zero = sorted((float(reach.get("x1", "")), float(reach.get("x2", "")))), float(axis.get("x1", ""))
    assert all(0 <= x <= 200 for x in (*ends, zero))
    assert (ends[0] > zero) == (low > 0)
    assert (ends[1] < zero) == (high < 0)
    assert f"between {low:.3g} and {high:.3g}" in drawn.get("aria-label", "")


def test_every_look_is_drawn_and_said() -> None:
    found = [Look(256, 0.1, -0.4, 0.6), Look(512, 0.2, 0.05, 0.35)]
    markup = looks(found, 0.02)
    drawn = ElementTree.fromstring(markup)  # our own
    assert len([one for one in drawn if one.get("class") == "reach"]) == 2
    assert re.findall(r"(\d+) pictures: ", drawn.get("aria-label", "")) == ["256", "512"]
