"""A stand-in for the Hugging Face Hub that speaks as much of its protocol as models need.

Repositories are made, files committed (small ones in the commit, large ones by LFS's batch API) and
resolved: https://huggingface.co/docs/hub/api
"""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN, READER, COMMIT = "hf_writer", "hf_reader", "0" * 40


def mode(file):
    """How a file is to be sent: weights by LFS, others within the commit."""
    kind = "lfs" if file["path"].endswith(".safetensors") else "regular"
    return {"path": file["path"], "uploadMode": kind, "shouldIgnore": False, "oid": None}


class Hub(BaseHTTPRequestHandler):
    """One request; what is stored hangs on the server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        files, path = self.server.files, self.path.partition("?")[0]
        if token not in (TOKEN, READER):
            return self.answer(401, {"error": "Invalid credentials"})
        if path == "/api/repos/create":
            return self.create(json.loads(body), token)
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        name = "/".join(path.removeprefix("/api/models/").lstrip("/").split("/")[:2])
        name = name.removesuffix(".git")
        if name not in files:
            return self.answer(404, {"error": "Repository not found"}, code="RepoNotFound")
        if path.endswith("/preupload/main"):
            return self.answer(200, {"files": [mode(each) for each in json.loads(body)["files"]]})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [self.upload(each) for each in json.loads(body)["objects"]]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        assert "/commit/main" in path, path
        for item in map(json.loads, body.splitlines()):
            value = item["value"]
            if item["key"] == "file":
                files[name][value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[name][value["path"]] = self.server.objects[value["oid"]]
        commit = {"commitUrl": f"{self.origin}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
        return self.answer(200, commit)

    def create(self, asked, token):
        name = f"{asked.get('organization') or 'jane'}/{asked['name']}"
        if token == READER:
            return self.answer(403, {"error": "read only"})
        if name in self.server.files:
            return self.answer(409, {"error": "You already created this model repo"})
        self.server.files[name] = {}
        return self.answer(200, {"url": f"{self.origin}/{name}"})

    def upload(self, wanted):
        href = f"{self.origin}/lfs/{wanted['oid']}"
        return {**wanted, "actions": {"upload": {"href": href}}}

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["content-length"]))
        assert hashlib.sha256(content).hexdigest() == self.path.removeprefix("/lfs/")
        self.server.objects[self.path.removeprefix("/lfs/")] = content
        self.answer(200, {})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if "/resolve/" not in path:
            return self.answer(404, {"error": f"GET {path}"})
        name, _, rest = path.lstrip("/").partition("/resolve/")
        file = rest.partition("/")[2]
        if name not in self.server.files:
            return self.answer(404, {"error": "Repository not found"}, code="RepoNotFound")
        if file not in self.server.files[name]:
            return self.answer(404, {"error": "Entry not found"}, code="EntryNotFound")
        return self.send(200, self.server.files[name][file], "application/octet-stream")

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, status, value, code=""):
        headers = {"X-Error-Code": code} if code else {}
        self.send(status, json.dumps(value).encode(), "application/json", headers)

    def send(self, status, content, kind, headers=None):
        self.send_response(status)
        etag = hashlib.sha256(content).hexdigest()
        for key, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "ETag": f'"{etag}"',
            "X-Repo-Commit": COMMIT,
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def served():
    """A Hub on this machine; its ``files`` are bytes by repository and path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.objects = {}, {}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
