"""Pictures and curves as Prefect artifacts: small ones travel inside the artifact, so that no server need be up."""

import base64
from pathlib import Path

from prefect.artifacts import create_image_artifact

from darkroom.settings import Settings

LIMIT_BYTES = 150_000  # Prefect's page shows data: addresses up to about 200 KB; base64 adds a third


def show_picture(path: Path, key: str, description: str, settings: Settings) -> None:
    """A PNG on the run's page; one that is too large to travel is linked to where `darkroom up` serves it."""
    content = path.read_bytes()
    small = len(content) <= LIMIT_BYTES
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}" if small else settings.link(path)
    create_image_artifact(image_url=url, key=key, description=description)
