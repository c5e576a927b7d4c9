"""Bases of the hub, where the hub cannot be reached."""

import socket

import pytest

from darkroom.errors import ServiceUnavailable
from darkroom.weights import base


def test_a_hub_that_nobody_answers_for_is_a_service_that_is_away() -> None:
    from huggingface_hub import HfApi

    with socket.socket() as taken:  # bound and not listening: whoever calls is refused
        taken.bind(("127.0.0.1", 0))
        api = HfApi(endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ServiceUnavailable, match="owner/name is not whole on this machine"):
            base._ask("owner/name", lambda: api.model_info("owner/name"))
