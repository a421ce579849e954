"""A server that speaks enough of S3 for obstore and deltalake; a process of its own, for deltalake holds the GIL.

python fake_s3.py conditional|overwriting      prints its port; puts honour If-None-Match, or do not
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Bucket(ThreadingHTTPServer):
    """A server that speaks enough of S3: put with If-None-Match, get, delete, list. No signatures are checked."""

    daemon_threads = True

    def __init__(self, *, conditional: bool) -> None:
        super().__init__(("127.0.0.1", 0), BucketHandler)
        self.conditional, self.content, self.lock = conditional, {}, threading.Lock()
        self.requests: list[str] = []


class BucketHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Bucket  # pyright: ignore[reportIncompatibleVariableOverride]  # typeshed names the base class only

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/bucket/")

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        fixed = {"ETag": '"1"', "Last-Modified": "Mon, 06 Jan 2025 00:00:00 GMT", "Content-Length": str(len(body))}
        for name, value in (fixed | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        must_be_new = self.server.conditional and self.headers.get("If-None-Match") == "*"
        with self.server.lock:
            taken = must_be_new and self.key in self.server.content
            if not taken:
                self.server.content[self.key] = body
        self.answer(412 if taken else 200)

    def do_GET(self) -> None:
        if self.path == "/requests":  # no part of S3: what it was asked so far, a line each
            self.answer(200, "\n".join(self.server.requests).encode())
            return
        self.server.requests.append(f"{self.command} {self.path}")
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        body = self.server.content.get(self.key)
        if "list-type" in query:
            self.answer(200, self.listing(query))
        elif body is None:
            self.answer(404)
        elif wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            start = int(first) if first else len(body) - int(last)
            part = body[start : int(last) + 1] if first and last else body[start:]
            self.answer(206, part, Content_Range=f"bytes {start}-{start + len(part) - 1}/{len(body)}")
        else:
            self.answer(200, body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.server.content.pop(self.key, None)
        self.answer(204)

    def do_POST(self) -> None:  # obstore deletes with a bulk request
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.content.pop(body.split("<Key>")[1].split("</Key>")[0], None)
        self.answer(200, b"<DeleteResult><Deleted><Key>gone</Key></Deleted></DeleteResult>")

    def listing(self, query: dict[str, str]) -> bytes:
        prefix, after = query.get("prefix", ""), query.get("start-after", "")
        keys = sorted(key for key in self.server.content if key.startswith(prefix) and key > after)
        deeper = [key for key in keys if "delimiter" in query and "/" in key.removeprefix(prefix)]
        folders = {prefix + key.removeprefix(prefix).split("/")[0] + "/" for key in deeper}
        parts = [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders]
        stamp = "<LastModified>2025-01-06T00:00:00.000Z</LastModified><ETag>1</ETag>"
        for key in [key for key in keys if key not in deeper]:
            size = len(self.server.content[key])
            parts.append(f"<Contents><Key>{escape(key)}</Key>{stamp}<Size>{size}</Size></Contents>")
        return f"<ListBucketResult>{''.join(parts)}</ListBucketResult>".encode()


if __name__ == "__main__":
    bucket = Bucket(conditional=sys.argv[1] == "conditional")
    sys.stdout.write(f"{bucket.server_port}\n")
    sys.stdout.flush()
    bucket.serve_forever()
