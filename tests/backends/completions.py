"""A completions server over HTTP for tests, friendly or, on demand, hostile."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from qwen_eval.backends.base import Backend, BackendOptions, open_backend
from qwen_eval.types import Decoding, GenerateRequest, Message, PerplexityRequest, Prompt
from tests.backends.asking import ask

QUESTION = GenerateRequest(Prompt("some question"), Decoding(max_tokens=12))


class Server:
    """Completions of a model over HTTP. `faults`: one per coming POST, None for none.

    A fault gets the handler and may answer, stay silent or hang up; it returns True if it did.
    """

    def __init__(self, model: Backend, port: int = 0) -> None:
        self.model = model
        self.lock = threading.Lock()
        self.faults: list[Callable[[Any], bool] | None] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.names = ["toy"]
        self.lists_models = self.offers_logprobs = self.allows_no_tokens = True
        self.start_mark = ""
        self.http = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.keys.append(self.headers.get("Authorization"))
                models = [{"id": name} for name in server.names]
                self.reply(200 if server.lists_models else 404, {"data": models})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append(body)
                server.keys.append(self.headers.get("Authorization"))
                fault = server.faults.pop(0) if server.faults else None
                if fault is not None and fault(self):
                    return
                with server.lock:
                    self.reply(*server.complete(self.path, body))

            def reply(self, status: int, body: Any, **headers: str) -> None:
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def stop(self) -> None:
        """Free the port: who comes now finds nobody."""
        self.http.shutdown()
        self.http.server_close()

    def complete(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body.get("echo"):
            return self._echo(body)
        decoding = Decoding(
            body["max_tokens"],
            tuple(body.get("stop", ())),
            body["temperature"],
            body.get("top_p", 1.0),
            seed=body.get("seed", 0),
        )
        if path.endswith("chat/completions"):
            turns = tuple(Message(m["role"], m["content"]) for m in body["messages"])
            answer = ask(self.model, GenerateRequest(Prompt(messages=turns), decoding))[0]
            choice: dict[str, Any] = {"message": {"content": answer.text}}
        else:
            answer = ask(self.model, GenerateRequest(Prompt(body["prompt"]), decoding))[0]
            choice = {"text": answer.text}
        usage = {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.output_tokens,
        }
        return 200, {"choices": [choice | {"finish_reason": answer.finish_reason}], "usage": usage}

    def _echo(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["max_tokens"] == 0 and not self.allows_no_tokens:
            return 400, {"error": {"message": "max_tokens must be at least 1"}}
        if not self.offers_logprobs:
            return 200, {"choices": [{"text": body["prompt"], "logprobs": None}]}
        # The toy's tokens are bytes, and the prompts here are ASCII: one token per letter.
        letters = list(body["prompt"])
        values: list[float | None] = list(
            ask(self.model, PerplexityRequest(body["prompt"]))[0].logprobs
        )
        if self.start_mark:
            letters.insert(0, self.start_mark)
            values.insert(0, None)
        if body["max_tokens"]:
            letters.append("?")
            values.append(-0.1)
        offsets = [sum(map(len, letters[:i])) for i in range(len(letters))]
        found = {"tokens": letters, "token_logprobs": values, "text_offset": offsets}
        best = [{"x": -0.001}] * len(letters)
        return 200, {"choices": [{"text": "", "logprobs": found | {"top_logprobs": best}}]}


def opened(server: Server) -> Backend:
    return open_backend("openai", f"{server.url}#toy", BackendOptions(batch=4))


def replied(status: int, body: Any, **headers: str) -> Callable[[Any], bool]:
    def fault(handler: Any) -> bool:
        handler.reply(status, body, **headers)
        return True

    return fault


def hang_up(handler: Any) -> bool:
    handler.connection.close()
    return True


def hang_up_in_the_middle(handler: Any) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.close()
    return True
