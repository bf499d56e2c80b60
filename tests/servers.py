"""A real HTTP server in a thread, whose answers a test scripts."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """What a client sent."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Answer:
    """What the server does: waits, sends a status and a body, perhaps a byte at a time."""

    body: Any = b""
    status: int = 200
    wait_s: float = 0.0
    drip_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """The server's address and what it was asked."""

    url: str
    requests: list[Request]


@contextmanager
def serve(*answers: Answer | Callable[[Request], Answer], port: int = 0) -> Iterator[Server]:
    """Give the answers in order, the last one for ever. `port` 0: a free one."""
    requests: list[Request] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            with lock:
                requests.append(request)
                answer = answers[min(len(requests), len(answers)) - 1]
            if callable(answer):
                answer = answer(request)
            time.sleep(answer.wait_s)
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body)
            self._send(answer, body if isinstance(body, bytes) else body.encode())

        def _send(self, answer: Answer, body: bytes):
            try:
                self.send_response(answer.status)
                self.send_header("content-length", str(len(body)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if not answer.drip_s:
                    self.wfile.write(body)
                    return
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(answer.drip_s)
            except OSError:  # the client gave up, as it should
                pass

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_address[1]}", requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(content: Any, **message: Any) -> Answer:
    """A chat completion; `content` is sent as JSON unless it is text."""
    finish = message.pop("finish_reason", "stop")
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    return Answer(
        {
            "model": "judge-2026",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish,
                    "message": {"role": "assistant", "content": text, **message},
                }
            ],
            "usage": {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37},
        }
    )
