"""Downloading an export from Roboflow, by its REST protocol.

The API is asked for a version in a format until the export is ready; its answer holds a link to a
.zip, which is loaded aside, read through, and published. The key travels in the query of the API's
address, and the link is as good as a key: so no message here ever holds an address, only the host.
"""

import json
import math
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

from cardamage.data.coco.source import ImageSource
from cardamage.errors import ConfigError, DataError, MachineFault
from cardamage.system.console import Progress, log
from cardamage.system.files import publish

API_URL = "https://api.roboflow.com"
KEY_VARIABLE = "ROBOFLOW_API_KEY"

_NAME = re.compile(r"([A-Za-z0-9_-]+)/([A-Za-z0-9_-]+)/([0-9]+)")
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_FORMAT = re.compile(r"[a-z0-9-]+")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MAX_ANSWER_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 5  # in which a download may break off before it is given up
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Patience:
    """How long is waited, in seconds: for a silent server, for an export, between two attempts."""

    silence_s: float = 60
    export_s: float = 900
    pause_s: float = 2


def download(
    dataset: str,
    out: Path,
    *,
    key: str,
    export_format: str = "coco-segmentation",
    api_url: str = API_URL,
    patience: Patience | None = None,
) -> Path:
    """Download a version of a dataset as ``<out>/<project>-v<version>.zip``.

    The file appears whole, with every member's checksum right, or not at all. One that is there
    already is kept.

    Args:
        dataset: ``workspace/project/version``, as in the dataset's address.
        key: Roboflow's API key; it is sent to ``api_url``, and stored or shown nowhere.
        api_url: where the API is: https, or http on this machine.

    Returns:
        The .zip, which serves as a source as it is.

    Raises:
        ConfigError: ``dataset``, ``key``, ``export_format`` or ``api_url`` is malformed; the key is
            refused; there is no such version or format; or the file cannot be written.
        DataError: what came is no COCO export.
        MachineFault: the server cannot be reached, fails, or takes too long.
    """
    if not (parts := _NAME.fullmatch(dataset)):
        raise ConfigError(f'"{dataset}" is no dataset; give workspace/project/version, as in a/b/1')
    if not _KEY.fullmatch(key):
        raise ConfigError(
            f"{KEY_VARIABLE} holds no API key; set that environment variable to the private key "
            f"of your Roboflow workspace's settings"
        )
    if not _FORMAT.fullmatch(export_format):
        raise ConfigError(f'"{export_format}" is no format; give one as in coco-segmentation')
    if not _is_safe(api_url):
        raise ConfigError(f"the API's address {api_url} is not https, and the key would be open")
    target = out / f"{parts[2]}-v{parts[3]}.zip"
    if target.exists():
        log.info("%s is there already; delete it to download it again", target)
        return target
    server = _Server(dataset, key, export_format, api_url.rstrip("/"), patience or Patience())
    try:
        out.mkdir(parents=True, exist_ok=True)
        with publish(target) as aside:
            server.load(server.link(), aside)
            _check_export(aside, dataset, export_format)
    except OSError as error:
        raise ConfigError(
            f"{target} cannot be written ({error.strerror}); choose another folder"
        ) from None
    return target


def _is_safe(url: str) -> bool:
    """Whether nobody reads along: https, or plain http to this machine itself."""
    try:
        address = urlsplit(url)
        host = address.hostname
    except ValueError:
        return False
    return bool(host) and (
        address.scheme == "https" or (address.scheme == "http" and host in _LOOPBACK)
    )


def _check_export(path: Path, dataset: str, export_format: str) -> None:
    """Read the whole archive, so that each member's checksum is compared."""
    try:
        with closing(ImageSource(path)) as files:
            splits = files.splits()
            for split in splits:
                files.annotations(split)
                for name in sorted(files.names(split)):
                    files.read(split, name)
    except DataError:
        splits = set()
    if not splits:
        raise DataError(
            f'what came of {dataset} in the format "{export_format}" is no whole .zip with '
            f"COCO annotations and their images; run the same command again, or choose a COCO "
            f"format"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server's hints as long as nobody can read along."""

    def redirect_request(  # noqa: PLR0917 - the signature is urllib's
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not _is_safe(newurl):
            fp.close()
            raise DataError("the server points to an address that is not https; nothing was loaded")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True)
class _Server:
    dataset: str
    key: str
    export_format: str
    api_url: str
    patience: Patience

    def link(self) -> str:
        """The address of the .zip, once Roboflow has made it."""
        query = urlencode({"api_key": self.key, "nocache": "true"})
        url = f"{self.api_url}/{self.dataset}/{self.export_format}?{query}"
        deadline = time.monotonic() + self.patience.export_s
        while True:
            with self._open(url) as response:
                answer = _answer(response)
                ready = response.status != 202 and answer.get("ready") is not False
            if ready:
                break
            if time.monotonic() > deadline:
                raise MachineFault(
                    f"Roboflow has not made the export in {self.patience.export_s:g} s; "
                    f"run the same command again later"
                )
            log.info("Roboflow is making the export")
            time.sleep(self.patience.pause_s)
        export = answer.get("export")
        link = export.get("link") if isinstance(export, dict) else None
        if not isinstance(link, str) or not _is_safe(link):
            raise DataError(
                f'Roboflow\'s answer for {self.dataset} in the format "{self.export_format}" has '
                f"no link to a .zip; check that this version can be exported so"
            )
        return link

    def load(self, link: str, path: Path) -> None:
        """Load a file; where it breaks off it is resumed, if the server can."""
        with path.open("wb") as file:
            for attempt in range(_ATTEMPTS):
                if attempt:
                    log.warning("the download broke off after %s; going on", _megabytes(file))
                    time.sleep(self.patience.pause_s)
                if self._load_some(link, file):
                    return
            raise MachineFault(
                f"the download broke off {_ATTEMPTS} times, the last after {_megabytes(file)}; "
                f"run the same command again"
            )

    def _load_some(self, link: str, file: IO[bytes]) -> bool:
        """Append what is missing of a file; whether it is whole now."""
        start = file.tell()
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._open(link, headers, is_file=True) as response:
            resumed_at = response.headers.get("Content-Range", "")
            if response.status != 206 or not resumed_at.startswith(f"bytes {start}-"):
                start = 0
                file.seek(0)
                file.truncate()
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdecimal() else None
            megabytes = math.ceil((total or 0) / _MEGABYTE)
            with Progress("download", megabytes, "MB", done=start // _MEGABYTE) as progress:
                while True:
                    try:
                        block = response.read(_BLOCK_BYTES)
                    except (HTTPException, OSError):
                        return False
                    if not block:
                        break
                    before = file.tell() // _MEGABYTE
                    file.write(block)
                    progress.advance(file.tell() // _MEGABYTE - before)
        return total is None or file.tell() == total

    @contextmanager
    def _open(
        self, url: str, headers: Mapping[str, str] | None = None, *, is_file: bool = False
    ) -> Iterator[HTTPResponse]:
        sent = {"User-Agent": "cardamage", **(headers or {})}
        request = urllib.request.Request(url, headers=sent)  # noqa: S310 - see _is_safe
        opener = urllib.request.build_opener(_Redirects)
        host = urlsplit(url).hostname
        try:
            response = opener.open(request, timeout=self.patience.silence_s)
        except urllib.error.HTTPError as error:
            error.close()
            if is_file:  # the key has no part in it, and a link is good for a while only
                raise MachineFault(
                    f"{host} does not hand out the .zip ({error.code}); run the same command "
                    f"again, which asks for a new link"
                ) from None
            raise self._refused(error.code) from None
        except (HTTPException, OSError, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            known = isinstance(reason, OSError) and reason.strerror
            silent = isinstance(reason, TimeoutError)
            why = "it does not answer" if silent else known or type(reason).__name__
            raise MachineFault(
                f"{host} cannot be reached ({why}); check the network and run it again"
            ) from None
        with closing(response):
            yield response

    def _refused(self, status: int) -> ConfigError | MachineFault:
        if status in (401, 403):
            return ConfigError(
                f"Roboflow refuses the key in {KEY_VARIABLE} for {self.dataset} ({status}); "
                f"check the key and that it may read this workspace"
            )
        if status == 404:
            return ConfigError(
                f'Roboflow has no {self.dataset} in the format "{self.export_format}" (404); '
                f"give workspace/project/version as in the dataset's address"
            )
        if status == 429 or status >= 500:
            return MachineFault(f"Roboflow cannot serve it now ({status}); try again later")
        return ConfigError(
            f'Roboflow refuses {self.dataset} in the format "{self.export_format}" ({status}); '
            f"check both"
        )


def _answer(response: HTTPResponse) -> dict[str, Any]:
    try:
        answer = json.loads(response.read(_MAX_ANSWER_BYTES))
    except (HTTPException, OSError):
        raise MachineFault("Roboflow's answer broke off; run the same command again") from None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise MachineFault("Roboflow's answer is not as expected; is the API's address right?")
    return answer


def _megabytes(file: IO[bytes]) -> str:
    return f"{file.tell() / _MEGABYTE:.1f} MB"
