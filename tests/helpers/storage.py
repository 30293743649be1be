"""A local S3 server, moto's, with one bucket."""

import logging
import urllib.request
from typing import Self

import fsspec
from moto.server import ThreadedMotoServer

BUCKET = "cars"


class ObjectStore:
    """Runs in a thread of this process; ``environment`` is what a program needs to find it."""

    def __enter__(self) -> Self:
        self._log = _Counted()
        log = logging.getLogger("werkzeug")
        log.addHandler(self._log)
        log.setLevel(logging.INFO)
        log.propagate = False
        self._server = ThreadedMotoServer(port=0, verbose=True)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self._running = True
        self.environment = {
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
        }
        # What it holds belongs to the process, and outlives a server.
        request = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        urllib.request.urlopen(request).close()
        self._files = fsspec.filesystem(
            "s3",
            key="me",
            secret="secret",
            client_kwargs={"endpoint_url": self.environment["AWS_ENDPOINT_URL_S3"]},
            skip_instance_cache=True,
            use_listings_cache=False,
        )
        self._files.mkdir(BUCKET)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        logging.getLogger("werkzeug").removeHandler(self._log)
        fsspec.get_filesystem_class("s3").clear_instance_cache()

    def stop(self) -> None:
        """End the server; asking it fails from now on."""
        if self._running:
            self._server.stop()
            self._running = False

    def requests(self) -> int:
        """How often it was asked for an object so far."""
        return self._log.gets

    def names(self, prefix: str) -> set[str]:
        """What lies under a prefix, without it."""
        found = self._files.find(f"{BUCKET}/{prefix}")
        return {name.removeprefix(f"{BUCKET}/{prefix}") for name in found}

    def get(self, name: str) -> bytes:
        return self._files.cat_file(f"{BUCKET}/{name}")

    def put(self, name: str, content: bytes) -> None:
        self._files.pipe_file(f"{BUCKET}/{name}", content)

    def delete(self, name: str) -> None:
        self._files.rm_file(f"{BUCKET}/{name}")


class _Counted(logging.Handler):
    gets = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.gets += "GET" in record.getMessage()
