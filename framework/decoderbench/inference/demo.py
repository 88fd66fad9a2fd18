"""A local page that reads images: drop one, and see what every row reads, how sure it is, and where it looked.

It serves 127.0.0.1 only, answers requests for that host alone, so that no other page can use it through a name of its
own, and loads nothing from elsewhere. Images stay on the machine.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from decoderbench.data.image_decoding import decode_image_file
from decoderbench.errors import ConfigError, DataError
from decoderbench.inference.trained import Explanation, TrainedRecognizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

HOST = "127.0.0.1"
MAX_IMAGE = 20_000_000
"""Bytes of the largest image that is accepted."""

logger = logging.getLogger("decoderbench")


@dataclass(frozen=True)
class DemoRow:
    """A row of the page: its title and the model that reads for it."""

    title: str
    reader: TrainedRecognizer

    def read(self, image: Image.Image) -> dict[str, Any]:
        """Return what it reads, as JSON data."""
        start = time.perf_counter()
        found = self.reader.explain(image)
        took = 1e3 * (time.perf_counter() - start)
        reading = found.reading
        return {
            "row": self.title,
            "text": reading.text,
            "confidence": reading.confidence,
            "problem": reading.problem,
            "note": reading.note,
            "milliseconds": took,
            **_drawing(found),
        }


class DemoServer(ThreadingHTTPServer):
    """Answers the page and its images, one image at a time.

    Args:
        rows: what reads.
        name: of the results, for the page.
        port: 0 for any that is free.

    Raises:
        ConfigError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, rows: Sequence[DemoRow], name: str, port: int) -> None:
        self.rows, self.name, self._reading = tuple(rows), name, Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(
                [f"--port {port}: {error.strerror or error}; give another, or 0 for a free one"]
            ) from None

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_port}/"

    @cached_property
    def page(self) -> bytes:
        """The page."""
        return files(__package__).joinpath("demo.html").read_bytes()

    def warm_up(self) -> None:
        """Read an empty image with every row, so that the first one of a user is not slow."""
        for row in self.rows:
            row.read(Image.new("L", (row.reader.cell.image.width, row.reader.cell.image.height), 128))

    def read(self, content: bytes) -> dict[str, Any]:
        """Return what every row reads in an image file, as JSON data.

        Raises:
            DataError: it is no image that can be read.
        """
        image = decode_image_file(io.BytesIO(content))
        with self._reading:
            return {"rows": [row.read(image) for row in self.rows]}


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    server_version, sys_version = "decoderbench", ""

    def do_GET(self) -> None:
        if not self._is_ours():
            return
        if self.path == "/":
            self._answer(200, self.server.page, "text/html; charset=utf-8")
        elif self.path == "/rows":
            self._answer_json(200, {"name": self.server.name, "rows": [row.title for row in self.server.rows]})
        else:
            self._answer_json(404, {"error": "not found"})

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        length = self.headers.get("Content-Length", "")
        if self.path != "/read" or not length.isdecimal():
            self._answer_json(404, {"error": "not found"})
        elif int(length) > MAX_IMAGE:
            self.close_connection = True
            self._answer_json(413, {"error": f"the file has {int(length):,} bytes, at most {MAX_IMAGE:,} are read"})
        else:
            try:
                self._answer_json(200, self.server.read(self.rfile.read(int(length))))
            except DataError as error:
                self._answer_json(400, {"error": str(error)})

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name is that of http.server
        logger.debug(format, *arguments)

    def _is_ours(self) -> bool:
        """Return whether a request is meant for this host by its address; answer any other."""
        ours = {f"{HOST}:{self.server.server_port}", f"localhost:{self.server.server_port}"}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in ours and (origin is None or origin.removeprefix("http://") in ours):
            return True
        self.close_connection = True
        self._answer_json(403, {"error": f"open {self.server.address}"})
        return False

    def _answer_json(self, status: int, data: dict[str, Any]) -> None:
        self._answer(status, json.dumps(data).encode(), "application/json")

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header(
            "Content-Security-Policy",
            "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
        self.end_headers()
        self.wfile.write(content)


def _drawing(found: Explanation) -> dict[str, Any]:
    """Return the image as the recognizer sees it, and the weights of its frames for each character."""
    if found.pixels is None:
        return {}
    weights = None if found.weights is None else np.round(found.weights, 3).tolist()
    return {"image": _as_address(found.pixels), "weights": weights}


def _as_address(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    content = io.BytesIO()
    image.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
