"""Without a network: weights that are not on this machine are one error that names them and the ways out."""

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.support import REGISTRY

from decoderbench import ConfigError, ImageSpec


@pytest.mark.slow
def test_pretrained_weights_without_a_network_are_one_error_with_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the attempts of huggingface_hub
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    encoder = REGISTRY["encoder"]["timm_cnn"].component
    with pytest.raises(ConfigError) as caught:
        encoder(encoder.Config(model="resnet10t", pretrained=True), ImageSpec(channels=1, height=32, width=96))
    message = str(caught.value)
    assert message.startswith("weights of timm model 'resnet10t' cannot be loaded: ")
    assert message.endswith("; connect to the internet once, so they are cached, or set pretrained = false")
    assert "\n" not in message
    assert not any(path.is_file() and path.stat().st_size > 1000 for path in tmp_path.rglob("*"))
