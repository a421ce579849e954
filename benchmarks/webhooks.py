"""A receiver of alerts, as real as a chat's: an HTTP server that can be down, slow, or answer with an error."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Webhook:
    """On a free port of its own, which it keeps when it goes down and comes back.

    `posts` are what it accepted, `pings` the paths of GETs.
    """

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.pings: list[str] = []
        self.refusals: list[int] = []  # the statuses of the next answers, before it accepts again
        self.answer_seconds = 0.0
        self.port = 0
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the port that it had before."""
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = webhook.refusals.pop(0) if webhook.refusals else 200
                if status == 200:
                    webhook.posts.append(content)
                    time.sleep(webhook.answer_seconds)
                self.send_response(status)
                self.end_headers()

            def do_GET(self) -> None:
                webhook.pings.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Listen no longer: connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def host(self) -> str:
        """The address without a path, as a ping needs it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """As VOLCAST_ALERT_WEBHOOK has it."""
        return f"{self.host}/hook"

    @property
    def apprise_url(self) -> str:
        """As VOLCAST_ALERT_URLS has it."""
        return f"json://127.0.0.1:{self.port}/hook"

    @property
    def texts(self) -> list[str]:
        """The words of the posts, of either kind."""
        return [post["text"] if "text" in post else f"{post['title']}\n{post['message']}" for post in list(self.posts)]

    def codes(self) -> list[str]:
        """The codes of the alerts, in order."""
        return [text.partition("volcast alert ")[2].partition(":")[0] for text in self.texts]
