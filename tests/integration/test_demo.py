"""The demo page: what every row reads in an image, over HTTP and in headless Chromium, for this machine alone."""

from __future__ import annotations

import base64
import http.client
import io
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.running import TINY_PLUGIN
from helpers.training import train
from helpers.untrained import untrained
from PIL import Image

from decoderbench import ConfigError, Registry, build_plugin_manager
from decoderbench.inference.choice import best_of_each_row
from decoderbench.inference.demo import MAX_IMAGE, DemoRow, DemoServer
from decoderbench.inference.loading import StoredModel


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[DemoRow]:
    import torch

    registry = Registry(build_plugin_manager([str(TINY_PLUGIN)]))
    results = tmp_path_factory.mktemp("run") / "results"
    experiment = {
        "name": "tiny",
        "dataset": {"use": "synthetic_captcha", "charset": "01", "min_length": 1, "max_length": 2, "train": 64,
                    "val": 16, "test": 20, "width": 80, "height": 40},
        "image": {"height": 16, "width": 32},
        "training": {"steps": 6, "batch_size": 8, "precision": "float32"},
        "grid": {
            "seeds": [0, 1],
            "encoder": {"tiny": {"use": "tiny_cnn"}},
            "bridge": {"columns": {"use": "mean_height"}},
            "decoder": {"ctc": {"use": "ctc"}, "attention": {"use": "attention_lstm", "hidden_dim": 8}},
        },
    }  # fmt: skip
    train(experiment, registry, results)
    chosen = [StoredModel.of_results(each) for each in best_of_each_row(results)]
    return [DemoRow(each.cell.variant_title, each.build(registry, torch.device("cpu"))) for each in chosen]


@pytest.fixture
def server(rows: list[DemoRow]) -> Iterator[DemoServer]:
    with DemoServer(rows, "tiny", 0) as server:
        server.warm_up()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def picture() -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def request(
    server: DemoServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, dict(answer.getheaders())


def test_every_row_reads_an_image_as_predict_does(server: DemoServer, rows: list[DemoRow], picture: bytes) -> None:
    status, content, _ = request(server, "POST", "/read", picture)
    found = json.loads(content)["rows"]
    assert status == 200
    assert [row["row"] for row in found] == ["tiny / columns / ctc", "tiny / columns / attention"]
    for row, of in zip(found, rows, strict=True):
        with Image.open(io.BytesIO(picture)) as image:
            (expected,) = of.reader.transcribe([image])
        assert (row["text"], row["confidence"]) == (expected.text, expected.confidence)
        seen = Image.open(io.BytesIO(base64.b64decode(row["image"].partition(",")[2])))
        assert seen.size == (32, 16)
        weights = np.array(row["weights"])
        assert weights.shape[0] == len(row["text"])
        assert weights.size == 0 or weights.shape[1] == 8  # frames of 4 columns each


def test_page_loads_nothing_from_elsewhere(server: DemoServer) -> None:
    status, content, headers = request(server, "GET", "/")
    assert status == 200
    assert "http" not in content.decode().replace("http-equiv", "")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert json.loads(request(server, "GET", "/rows")[1]) == {
        "name": "tiny", "rows": ["tiny / columns / ctc", "tiny / columns / attention"],
    }  # fmt: skip


def test_what_is_no_image_is_an_error_and_the_server_goes_on(server: DemoServer, picture: bytes) -> None:
    status, content, _ = request(server, "POST", "/read", b"no image")
    assert status == 400
    assert "cannot identify image" in json.loads(content)["error"]
    assert request(server, "GET", "/secret")[0] == 404
    assert request(server, "GET", "/../../etc/passwd")[0] == 404
    assert request(server, "POST", "/read", b"", **{"Content-Length": str(MAX_IMAGE + 1)})[0] == 413
    assert request(server, "POST", "/read", b"", **{"Content-Length": "-1"})[0] == 404
    assert request(server, "POST", "/read", picture)[0] == 200


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}])
def test_pages_of_other_hosts_cannot_use_it(server: DemoServer, picture: bytes, headers: dict[str, str]) -> None:
    for method, path, body in (("GET", "/rows", None), ("POST", "/read", picture)):
        status, content, _ = request(server, method, path, body, **headers)
        assert status == 403
        assert b"tiny" not in content


def test_taken_port_is_one_line(server: DemoServer, rows: list[DemoRow]) -> None:
    with pytest.raises(ConfigError, match=f"--port {server.server_port}: .*; give another, or 0 for a free one"):
        DemoServer(rows, "tiny", server.server_port)


def test_feature_map_is_shown_by_columns() -> None:
    import torch

    reader = untrained("sar", {"hidden_dim": 8})
    with torch.no_grad():
        reader.recognizer.decoder.get_parameter("head.bias")[-1] = -1000.0  # the end, so that a text has characters
    found = reader.explain(np.random.default_rng(0).integers(0, 256, (32, 60), dtype=np.uint8))
    assert isinstance(found.pixels, np.ndarray)
    assert found.pixels.shape == (1, 32, 64)
    assert len(found.reading.text or "") == 5
    assert isinstance(found.weights, np.ndarray)
    assert found.weights.shape == (5, 16)  # of a map of 4 rows
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-5)


def test_empty_text_has_no_weights_and_is_no_error() -> None:
    import torch

    reader = untrained("ctc", {})
    with torch.no_grad():
        reader.recognizer.decoder.get_parameter("head.bias")[0] = 1000.0  # the blank
    found = reader.explain(np.zeros((32, 60), dtype=np.uint8))
    assert found.reading.text == ""
    assert isinstance(found.weights, np.ndarray)
    assert found.weights.shape == (0, 16)


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs chromium and chromedriver: apt-get install chromium chromium-driver",
)
def test_page_in_a_browser_shows_text_confidence_and_alignment(
    server: DemoServer, rows: list[DemoRow], picture: bytes, tmp_path: Path
) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver: Any = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    good, bad = tmp_path / "<b>good.png", tmp_path / "bad.png"
    good.write_bytes(picture)
    bad.write_bytes(b"x")
    try:
        driver.get(server.address)
        WebDriverWait(driver, 20).until(lambda _: "Ready: 2 rows" in driver.find_element(By.ID, "status").text)
        driver.find_element(By.ID, "file").send_keys(str(good))
        WebDriverWait(driver, 20).until(lambda _: "was read by 2 rows" in driver.find_element(By.ID, "status").text)
        articles = driver.find_elements(By.TAG_NAME, "article")
        with Image.open(good) as image:
            expected = [of.reader.transcribe([image])[0].text for of in rows]
        shown = [article.find_element(By.CLASS_NAME, "text").text for article in articles]
        assert shown == [text or "(empty text)" for text in expected]
        for article, text in zip(articles, expected, strict=True):
            assert "confidence" in article.find_element(By.CLASS_NAME, "sure").text
            assert len(article.find_elements(By.TAG_NAME, "canvas")) == bool(text)
            assert driver.execute_script("return arguments[0].naturalWidth", article.find_element(By.TAG_NAME, "img"))
        driver.find_element(By.ID, "file").send_keys(str(bad))
        WebDriverWait(driver, 20).until(lambda _: "cannot identify" in driver.find_element(By.ID, "status").text)
        assert driver.find_elements(By.TAG_NAME, "article") == []
        assert [line for line in driver.get_log("browser") if "400" not in line["message"]] == []
    finally:
        driver.quit()
