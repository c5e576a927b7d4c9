"""The recipe's ``[monitor]``: when a champion has drifted, and when it is time to train again."""

from typing import Literal

from pydantic import Field

from .section import Section


class Monitor(Section):
    """What the monitor of a champion looks at, and its limits; nothing here changes a model or a verdict."""

    pictures: int = Field(
        16, ge=1, le=256, description="Pictures drawn again each time, to see that they are the same."
    )
    tolerance: float = Field(
        2.0,
        ge=0,
        lt=128,
        description="How much a picture's pixels may differ in the mean where device, processor or libraries are "
        "others than the first time, as last bits then differ. Levels of 255.",
    )
    worse: float = Field(
        0.25,
        gt=0,
        description="How much worse a measure may be on the newest data than at registration, as a share of it.",
    )
    new_rows: float | None = Field(
        0.1,
        gt=0,
        description="Train again when so many accepted pictures are new, as a share of those it was trained on.",
    )
    drift: Literal["some", "much"] | None = Field(
        "much",
        description="Train again when the new pictures have drifted at least so much from those it was trained on.",
    )
    max_age_days: float | None = Field(
        None, gt=0, description="Train again when the champion is older; None: age alone is no reason. Days."
    )
