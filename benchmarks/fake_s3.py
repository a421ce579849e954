"""A server that speaks enough of S3 for obstore and deltalake, and fails when told to.

Where the client runs in the same process, the server needs one of its own, for deltalake holds the GIL:

python -m benchmarks.fake_s3 conditional|overwriting      prints its port; puts honour If-None-Match, or do not

It fails as networks and servers do, by settings that may be changed while it runs (`set_faults`): a request is matched
by "METHOD /path?query", does its work or not, and then meets its fault.
"""

import json
import os
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen
from xml.sax.saxutils import escape, unescape

PAGE = 1000  # keys of a listing, as S3 has it


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to requests; faults are tried in order, and the first that matches is the one."""

    kind: Literal["lost", "reset", "refused", "slow"]
    # lost: the work is done and the connection ends without an answer; reset: it ends before the work;
    # refused: `status` is the answer, and nothing is done; slow: the answer comes after `seconds`
    requests: str = ""  # a regular expression that is searched for in "PUT /bucket/prices/_delta_log/…"
    times: int | None = 1  # of the requests that match, so many; None: all of them, until the faults are set anew
    after: int = 0  # that match are let through before the first
    once_each: bool = False  # a request meets it the first time only, and succeeds when it is sent again
    share: float = 1.0  # of the matching requests that meet it, by chance
    seed: int = 0  # of that chance
    status: int = 503
    seconds: float = 0.0


def set_faults(*faults: Fault) -> None:
    """From now on these, in place of those that were set before; on the server that AWS_ENDPOINT_URL names."""
    body = json.dumps([asdict(fault) for fault in faults]).encode()
    with urlopen(Request(f"{os.environ['AWS_ENDPOINT_URL']}/faults", body, method="POST")) as answer:
        assert answer.status == 200


def requests_so_far() -> list[str]:
    """What the server was asked, "METHOD /path?query" each, failed requests too."""
    with urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/requests") as answer:
        return answer.read().decode().splitlines()


class Trouble:
    """A fault, and which requests have met it."""

    def __init__(self, fault: Fault) -> None:
        self._fault, self._left, self._passed, self._met = fault, fault.times, 0, set[str]()
        self._chance = random.Random(fault.seed)

    def meets(self, request: str) -> Fault | None:
        """The fault, if this request is one to meet it."""
        if self._left == 0 or not re.search(self._fault.requests, request):
            return None
        self._passed += 1
        if self._passed <= self._fault.after or self._chance.random() >= self._fault.share:
            return None
        if self._fault.once_each and request in self._met:
            return None
        self._met.add(request)
        self._left = None if self._left is None else self._left - 1
        return self._fault


class Bucket(ThreadingHTTPServer):
    """A server that speaks enough of S3: put with If-None-Match, get, delete, list. No signatures are checked."""

    daemon_threads = True

    def __init__(self, *, conditional: bool) -> None:
        super().__init__(("127.0.0.1", 0), BucketHandler)
        self.conditional, self.content, self.lock = conditional, dict[str, bytes](), threading.Lock()
        self.requests: list[str] = []
        self.troubles: list[Trouble] = []

    def fault_of(self, request: str) -> Fault | None:
        """What a request meets."""
        with self.lock:
            self.requests.append(request)
            return next((fault for trouble in self.troubles if (fault := trouble.meets(request))), None)


class BucketHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for the client's system
    server: Bucket  # pyright: ignore[reportIncompatibleVariableOverride]  # typeshed names the base class only

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/bucket/")

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):  # the client gave up
            self.close_connection = True

    def serve(self) -> None:
        """Answer, or meet a fault."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path in ("/requests", "/faults"):  # no part of S3
            self.control(body)
            return
        fault = self.server.fault_of(f"{self.command} {self.path}")
        kind = fault.kind if fault else ""
        if fault and kind == "slow":
            time.sleep(fault.seconds)
        if kind == "reset":
            self.hang_up()
        elif fault and kind == "refused":
            self.answer(fault.status, b"<Error><Code>SlowDown</Code><Message>Please reduce your rate</Message></Error>")
        else:
            answer = self.work(body)
            if kind == "lost":
                self.hang_up()
            else:
                self.answer(*answer)

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = serve  # the names that the base class looks for

    def control(self, body: bytes) -> None:
        if self.path == "/faults":
            with self.server.lock:
                self.server.troubles = [Trouble(Fault(**each)) for each in json.loads(body)]
        self.answer(200, "\n".join(self.server.requests).encode())

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        fixed = {"ETag": '"1"', "Last-Modified": "Mon, 06 Jan 2025 00:00:00 GMT", "Content-Length": str(len(body))}
        for name, value in (fixed | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def work(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """Do what is asked; status, body and headers of the answer."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        with self.server.lock:
            if self.command == "PUT":
                return self.put(body), b"", {}
            if self.command == "DELETE":
                self.server.content.pop(self.key, None)
                return 204, b"", {}
            if self.command == "POST":  # obstore deletes with a bulk request
                for key in re.findall("<Key>(.*?)</Key>", body.decode()):
                    self.server.content.pop(unescape(key, {"&quot;": '"', "&apos;": "'"}), None)
                return 200, b"<DeleteResult><Deleted><Key>gone</Key></Deleted></DeleteResult>", {}
            return (200, self.listing(query), {}) if "list-type" in query else self.get()

    def put(self, body: bytes) -> int:
        if source := self.headers.get("x-amz-copy-source"):
            copied = self.server.content.get(unquote(source).removeprefix("/").removeprefix("bucket/"))
            if copied is None:
                return 404
            body = copied
        if self.server.conditional and self.headers.get("If-None-Match") == "*" and self.key in self.server.content:
            return 412
        self.server.content[self.key] = body
        return 200

    def get(self) -> tuple[int, bytes, dict[str, str]]:
        body = self.server.content.get(self.key)
        if body is None:
            return 404, b"", {}
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            start = int(first) if first else len(body) - int(last)
            part = body[start : int(last) + 1] if first and last else body[start:]
            return 206, part, {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(body)}"}
        return 200, body, {}

    def listing(self, query: dict[str, str]) -> bytes:
        prefix, after = query.get("prefix", ""), query.get("continuation-token") or query.get("start-after", "")
        keys = sorted(key for key in self.server.content if key.startswith(prefix) and key > after)
        deeper = [key for key in keys if "delimiter" in query and "/" in key.removeprefix(prefix)]
        folders = sorted({prefix + key.removeprefix(prefix).split("/")[0] + "/" for key in deeper})
        parts = [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders]
        stamp = "<LastModified>2025-01-06T00:00:00.000Z</LastModified><ETag>1</ETag>"
        files = sorted(set(keys) - set(deeper))
        for key in files[:PAGE]:
            size = len(self.server.content[key])
            parts.append(f"<Contents><Key>{escape(key)}</Key>{stamp}<Size>{size}</Size></Contents>")
        if len(files) > PAGE:
            parts.append(f"<IsTruncated>true</IsTruncated><NextContinuationToken>{escape(files[PAGE - 1])}")
            parts.append("</NextContinuationToken>")
        return f"<ListBucketResult>{''.join(parts)}</ListBucketResult>".encode()


def access(port: int) -> dict[str, str]:
    """The environment of a client."""
    endpoint = f"http://127.0.0.1:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    return keys | {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}


@contextmanager
def bucket_of(folder: Path, faults: Sequence[Fault]) -> Iterator[dict[str, str]]:
    """The files of a folder as s3://bucket/NAME, NAME being the folder's, and written back when the block ends.

    Gives the environment of a client, which has to be another process.
    """
    bucket = Bucket(conditional=True)
    files = [path for path in folder.rglob("*") if path.is_file()]
    bucket.content = {path.relative_to(folder.parent).as_posix(): path.read_bytes() for path in files}
    bucket.troubles = [Trouble(fault) for fault in faults]
    thread = threading.Thread(target=bucket.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield access(bucket.server_port)
    finally:
        bucket.shutdown()
        thread.join()
        bucket.server_close()
    for path in files:
        path.unlink()
    for key, content in bucket.content.items():
        path = folder.parent / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    bucket = Bucket(conditional=sys.argv[1] == "conditional")
    sys.stdout.write(f"{bucket.server_port}\n")
    sys.stdout.flush()
    bucket.serve_forever()
