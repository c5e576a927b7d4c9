"""Pictures and curves as Prefect artifacts: small ones travel inside the artifact, so that no server need be up."""

import base64
import io
from pathlib import Path

from PIL import Image
from prefect.artifacts import create_image_artifact

from darkroom.settings import Settings

LIMIT_BYTES = 150_000  # Prefect's page shows data: addresses up to about 200 KB; base64 adds a third


def show_picture(path: Path, key: str, description: str, settings: Settings) -> None:
    """A PNG on the run's page; one that is too large to travel is linked to where `darkroom up` serves it."""
    content = path.read_bytes()
    small = len(content) <= LIMIT_BYTES
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}" if small else settings.link(path)
    create_image_artifact(image_url=url, key=key, description=description)


def show_small(content: bytes, key: str, description: str) -> None:
    """A picture on the run's page that always travels inside the artifact, if need be as a smaller JPEG."""
    kind = "png"
    side = 1024
    while len(content) > LIMIT_BYTES:
        with Image.open(io.BytesIO(content)) as picture:
            smaller = picture.convert("RGB")
        smaller.thumbnail((side, side))
        file = io.BytesIO()
        smaller.save(file, "JPEG", quality=85)
        content, kind, side = file.getvalue(), "jpeg", side * 3 // 4
    url = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    create_image_artifact(image_url=url, key=key, description=description)
