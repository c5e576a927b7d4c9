"""What the trainer reads is what it was told."""

from dataclasses import replace


def test_a_job_is_read_as_it_was_written(job, folder) -> None:
    work = folder("work")
    told = job(objective={"kind": "v"}, distributed={"processes": 2})
    told.write(work)
    read = type(told).read(work)
    assert read == replace(told, work=work)
    # What a recipe says itself replaces what a base brings along: it must not seem to say more than it does.
    for section in ("train", "model", "sampler"):
        assert getattr(read, section).model_fields_set == getattr(told, section).model_fields_set
    assert read.train.objective.model_fields_set == {"kind"}
