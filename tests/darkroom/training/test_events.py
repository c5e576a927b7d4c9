"""The trainer's voice: whole lines, cut back on resume, read as it grows."""

from pathlib import Path

from darkroom.training.events import FILE, Events, Tail, read


def test_what_is_said_is_read_and_cut_back_on_resume(tmp_path: Path) -> None:
    events = Events(tmp_path, 0)
    for step in range(1, 6):
        events.say(step, metrics={"loss": float(step)})
    assert [event["step"] for event in read(tmp_path / FILE)] == [1, 2, 3, 4, 5]
    resumed = Events(tmp_path, 3)
    assert not resumed.lacks("loss")
    assert resumed.lacks("grid")
    resumed.say(4, grid="grids/4.png")
    found = list(read(tmp_path / FILE))
    assert [event["step"] for event in found] == [1, 2, 3, 4]
    assert found[-1]["grid"] == "grids/4.png"


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    Events(tmp_path, 0).say(1, metrics={})
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 2, "met')
    assert [event["step"] for event in read(tmp_path / FILE)] == [1]
    assert [event["step"] for event in Tail(tmp_path / FILE).new()] == [1]


def test_the_tail_sees_each_event_once_also_after_a_resume(tmp_path: Path) -> None:
    tail = Tail(tmp_path / FILE)
    assert tail.new() == []
    events = Events(tmp_path, 0)
    events.say(1)
    events.say(2)
    assert [event["step"] for event in tail.new()] == [1, 2]
    assert tail.new() == []
    events.say(3)
    assert [event["step"] for event in tail.new()] == [3]
    Events(tmp_path, 1).say(2)
    assert [event["step"] for event in tail.new()] == [1, 2]
