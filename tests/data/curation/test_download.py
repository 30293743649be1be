"""Downloading from Roboflow, against a local server that speaks its protocol."""

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from cardamage.data.curation import download as roboflow
from cardamage.data.curation.audit import audit
from cardamage.data.curation.download import Patience, download
from cardamage.errors import CardamageError, ConfigError, DataError, MachineFault
from tests.helpers.spoilable_export import SpoilableExport

KEY = "SECRETkey_123"
TOKEN = "SIGNEDtoken"
QUICK = Patience(silence_s=5, export_s=5, pause_s=0.01)


@dataclass
class Roboflow:
    """What the server has and does, and what it was asked."""

    content: bytes
    url: str = ""
    preparing: int = 0
    """Answers of 202 before the export is ready."""
    break_off_after: list[int] = field(default_factory=list)
    """For each request of the file in turn: the bytes after which the connection ends."""
    ranges: bool = True
    status: int = 200
    answer: bytes | None = None
    link: str | None = None
    silent: bool = False
    asked: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    """``/shop/cars/3/coco-segmentation`` answers with a link to ``/file``, over a redirect."""

    def log_message(self, *args: object) -> None:
        pass

    @property
    def state(self) -> Roboflow:
        return self.server.roboflow

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        self.state.asked.append(address.path)
        if self.state.silent:
            self.state.ended.wait(20)
        elif address.path == "/moved":
            self.reply(302, b"", Location=f"/file?token={TOKEN}")
        elif address.path == "/file":
            self.send_file()
        elif query.get("api_key") != [KEY]:
            self.reply(401, json.dumps({"error": f"no such key: {query}"}).encode())
        elif address.path != "/shop/cars/3/coco-segmentation":
            self.reply(404, json.dumps({"error": self.path}).encode())
        elif self.state.status != 200:
            self.reply(self.state.status, self.path.encode())
        elif self.state.preparing:
            self.state.preparing -= 1
            self.reply(202, b'{"progress": 0.5}')
        else:
            link = self.state.link or f"{self.state.url}/moved?token={TOKEN}"
            made = json.dumps({"export": {"format": "coco-segmentation", "link": link}}).encode()
            self.reply(200, made if self.state.answer is None else self.state.answer)

    def send_file(self) -> None:
        start = 0
        if self.state.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        rest = self.state.content[start:]
        sent = rest[: self.state.break_off_after.pop(0)] if self.state.break_off_after else rest
        headers = {"Content-Length": str(len(rest))}
        if start:
            size = len(self.state.content)
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self.state.asked[-1] += f" from {start}"
        self.reply(206 if start else 200, sent, **headers)

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Roboflow]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    archive = SpoilableExport(tmp_path / "cars").zipped(tmp_path / "cars.zip")
    state = Roboflow(archive.read_bytes())
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.roboflow = state
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    state.ended.set()
    http.shutdown()
    thread.join()
    http.server_close()


def load(server: Roboflow, out: Path, **options: object) -> Path:
    return download(
        **{
            "dataset": "shop/cars/3",
            "out": out,
            "key": KEY,
            "api_url": server.url,
            "patience": QUICK,
            **options,
        }
    )


def refusal(server: Roboflow, out: Path, **options: object) -> CardamageError:
    """The error, which is one line without key or token, and leaves nothing behind."""
    with pytest.raises(CardamageError) as caught:
        load(server, out, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert KEY not in message
    assert TOKEN not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert not out.exists() or list(out.iterdir()) == []
    return caught.value


def test_the_archive_arrives_whole_and_serves_as_a_source(server, tmp_path, caplog):
    server.preparing = 2
    path = load(server, tmp_path / "data" / "out")
    assert path == tmp_path / "data" / "out" / "cars-v3.zip"
    assert path.read_bytes() == server.content
    assert [p.name for p in path.parent.iterdir()] == ["cars-v3.zip"]
    assert server.asked[:3] == ["/shop/cars/3/coco-segmentation"] * 3
    assert server.asked[3:] == ["/moved", "/file from 0"]
    assert audit(path).errors == []
    assert KEY not in caplog.text
    assert TOKEN not in caplog.text


def test_what_is_there_is_kept(server, tmp_path):
    load(server, tmp_path / "out")
    server.asked.clear()
    assert load(server, tmp_path / "out").is_file()
    assert server.asked == []


@pytest.mark.parametrize(
    ("ranges", "asked"),
    [
        (True, ["/file from 0", "/file from 1000", "/file from 1500"]),
        (False, ["/file from 0", "/file from 0", "/file from 0"]),
    ],
)
def test_a_download_that_breaks_off_is_gone_on_with(server, tmp_path, ranges, asked):
    server.break_off_after, server.ranges = [1000, 500], ranges
    assert load(server, tmp_path / "out").read_bytes() == server.content
    assert [path for path in server.asked if path.startswith("/file")] == asked


def test_a_download_that_always_breaks_off(server, tmp_path):
    server.break_off_after = [10] * 5
    error = refusal(server, tmp_path / "out")
    assert isinstance(error, MachineFault)
    assert "broke off 5 times, the last after 0.0 MB; run the same command again" in str(error)


def test_a_refused_key(server, tmp_path):
    error = refusal(server, tmp_path / "out", key="another-key")
    assert isinstance(error, ConfigError)
    assert "refuses the key in ROBOFLOW_API_KEY for shop/cars/3 (401)" in str(error)
    assert "another-key" not in str(error)


@pytest.mark.parametrize("key", ["", "a b", "x&y=1", "line\nbreak"])
def test_no_key(server, tmp_path, key):
    error = refusal(server, tmp_path / "out", key=key)
    assert "ROBOFLOW_API_KEY holds no API key; set" in str(error)
    assert server.asked == []


def test_no_such_version_or_format(server, tmp_path):
    for wrong in ({"dataset": "shop/cars/4"}, {"export_format": "yolo"}):
        error = refusal(server, tmp_path / "out", **wrong)
        assert isinstance(error, ConfigError)
        assert "(404); give workspace/project/version" in str(error)


@pytest.mark.parametrize("dataset", ["cars", "shop/cars", "shop/cars/v3", "a/b/1?x=y", "../../1"])
def test_no_dataset(server, tmp_path, dataset):
    assert "is no dataset; give workspace/project/version" in str(
        refusal(server, tmp_path / "out", dataset=dataset)
    )


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (403, ConfigError, "refuses the key"),
        (400, ConfigError, "(400); check both"),
        (429, MachineFault, "cannot serve it now (429)"),
        (500, MachineFault, "cannot serve it now (500)"),
    ],
)
def test_other_refusals(server, tmp_path, status, kind, said):
    server.status = status
    error = refusal(server, tmp_path / "out")
    assert type(error) is kind
    assert said in str(error)


def test_a_link_that_is_good_no_more(server, tmp_path):
    server.link = f"{server.url}/expired?token={TOKEN}"  # which is answered with 401
    error = refusal(server, tmp_path / "out")
    assert isinstance(error, MachineFault)
    assert "127.0.0.1 does not hand out the .zip (401); run the same command again" in str(error)


def test_a_server_that_says_nothing(server, tmp_path):
    server.silent = True
    error = refusal(server, tmp_path / "out", patience=Patience(silence_s=0.2))
    assert isinstance(error, MachineFault)
    assert "127.0.0.1 cannot be reached (it does not answer)" in str(error)


def test_no_server(server, tmp_path):
    error = refusal(server, tmp_path / "out", api_url="http://127.0.0.1:9")
    assert isinstance(error, MachineFault)
    assert "127.0.0.1 cannot be reached (Connection refused)" in str(error)


def test_an_export_that_never_gets_ready(server, tmp_path):
    server.preparing = 10**6
    error = refusal(server, tmp_path / "out", patience=Patience(export_s=0.05, pause_s=0.01))
    assert isinstance(error, MachineFault)
    assert "has not made the export in 0.05 s" in str(error)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"<html>", "answer is not as expected"),
        (b"[1]", "answer is not as expected"),
        (b"{}", "has no link to a .zip"),
        (b'{"export": {"link": "file:///etc/passwd"}}', "has no link to a .zip"),
        (b'{"export": {"link": "http://example.org/a.zip"}}', "has no link to a .zip"),
    ],
)
def test_answers_that_do_not_help(server, tmp_path, answer, said):
    server.answer = answer
    assert said in str(refusal(server, tmp_path / "out"))


def test_what_is_no_export(server, tmp_path):
    whole = server.content
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        place = archive.getinfo("valid/b.jpg").header_offset + 300  # amid its content
    damaged = whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
    for content in (b"<html>Sign in</html>", whole[:-30], damaged):
        server.content = content
        error = refusal(server, tmp_path / "out")
        assert isinstance(error, DataError)
        assert "is no whole .zip" in str(error)


def test_no_key_over_an_open_line(server, tmp_path):
    for url in ("http://api.roboflow.com", "ftp://x", "nonsense", "http://[broken"):
        assert "is not https" in str(refusal(server, tmp_path / "out", api_url=url))


def test_no_redirect_to_an_open_line(server, tmp_path, monkeypatch):
    class Elsewhere(Handler):
        def do_GET(self) -> None:
            self.reply(302, b"", Location=f"http://example.org/x?token={TOKEN}")

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as http:
        thread = threading.Thread(target=http.handle_request)
        thread.start()
        server.link = f"http://127.0.0.1:{http.server_address[1]}/a.zip"
        error = refusal(server, tmp_path / "out")
        thread.join()
    assert "points to an address that is not https" in str(error)


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written"):
        load(server, tmp_path / "out")


def test_as_a_person_runs_it(server, program, monkeypatch):
    options = ("jobs/download.py", "shop/cars/3", "--out", "data", "--api-url", server.url)
    monkeypatch.delenv(roboflow.KEY_VARIABLE, raising=False)
    assert "ROBOFLOW_API_KEY holds no API key" in program.refuses(*options)
    monkeypatch.setenv(roboflow.KEY_VARIABLE, KEY)
    result = program.inside(*options)
    assert result.stdout == "data/cars-v3.zip\n"
    assert KEY not in result.stderr
    stored = [path for path in program.folder.rglob("*") if path.is_file()]
    assert [path.name for path in stored] == ["cars-v3.zip"]
    assert "scratch" in program.succeeds("jobs/audit.py", "data/cars-v3.zip")
