"""The embedded registry as a process: the Confluent API over HTTP, on the standard library's server.

    streamforge registry --port 8081 --file var/schemas.sqlite

One request is handled at a time (the store is one SQLite file); a registry is asked once for each schema, so that is enough.
"""

import json
import re
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import click

from cdc.registry.api import RegistryApi
from cdc.registry.store import SchemaStore

CONTENT_TYPES = ("application/vnd.schemaregistry.v1+json", "application/vnd.schemaregistry+json", "application/json")
_TAKEN = (*CONTENT_TYPES, "application/octet-stream")
BODY_BYTES_MAX = 4 << 20


class RegistryServer:
    """Serves a store over HTTP until it is closed.

    Args:
        path: The store's file, ":memory:" for none.
        port: 0 for any free one; see `url`.
    """

    def __init__(self, path: str = ":memory:", *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._store = SchemaStore(path)
        self._server = ThreadingHTTPServer((host, port), _handler(RegistryApi(self._store)))
        self._server.daemon_threads = True
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address of the registry."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> "RegistryServer":
        """Serve in a thread."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="registry", daemon=True)
        self._thread.start()
        return self

    def serve(self) -> None:
        """Serve until interrupted."""
        self._server.serve_forever()

    def close(self) -> None:
        """Stop serving and close the store."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join(timeout=5)
        self._server.server_close()
        self._store.close()


def content_type(accept: str | None) -> str | None:
    """Return the type of an answer by what a client takes, None if it takes none of them.

    Of those with the highest weight it is the first of CONTENT_TYPES.
    """
    weights: dict[str, float] = {}
    for part in (accept or "*/*").split(","):
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        weights[name] = float(weight) if re.fullmatch(r"[01](\.\d*)?", weight) else 1.0
    found = [(weights.get(name, weights.get("application/*", weights.get("*/*", 0.0))), name) for name in CONTENT_TYPES]
    best = max(weight for weight, _ in found)
    return next(name for weight, name in found if weight == best) if best > 0 else None


def _handler(api: RegistryApi) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"api": api, "lock": threading.Lock()})


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of a connection. One request is handled at a time."""

    protocol_version = "HTTP/1.1"
    api: RegistryApi
    lock: threading.Lock

    def _answer(self) -> None:
        raw = self._body()
        if raw is None:
            return
        if content_type(self.headers.get("Accept")) is None:
            self._refuse(406, f"HTTP 406 Not Acceptable: answers are {', '.join(CONTENT_TYPES)}")
            return
        sent = (self.headers.get("Content-Type") or _TAKEN[-1]).partition(";")[0].strip().lower()
        if raw and sent not in _TAKEN:
            self._refuse(415, f"HTTP 415 Unsupported Media Type {sent}; send {CONTENT_TYPES[0]}")
            return
        try:
            body = json.loads(raw) if raw else None
        except (ValueError, RecursionError) as error:
            self._refuse(400, f"the request is not JSON: {error}")
            return
        parts = urlsplit(self.path)
        method = "GET" if self.command == "HEAD" else self.command
        try:
            with self.lock:
                status, answer = self.api.handle(method, parts.path, dict(parse_qsl(parts.query)), body)
        except sqlite3.Error as error:
            self.close_connection = True  # the store may be closed, and another server listen at this address
            self._refuse(500, f"Error in the backend data store: {error}", 50001)
            return
        self._send(status, answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _answer  # noqa: N815  # names of the standard library's

    def _body(self) -> bytes | None:
        """Return the body of the request, None where it has been refused; then the connection is closed, since it is not read."""
        said = self.headers.get("Content-Length") or "0"
        status, words = 0, ""
        if self.headers.get("Transfer-Encoding"):
            status, words = 411, "HTTP 411 Length Required: send the body at once, with a Content-Length"
        elif not re.fullmatch(r"[0-9]+", said):
            status, words = 400, f"Content-Length {said!r} is not a number"
        elif int(said) > BODY_BYTES_MAX:
            status, words = 413, f"a request has at most {BODY_BYTES_MAX} bytes"
        if not status:
            return self.rfile.read(int(said))
        self.close_connection = True
        self._refuse(status, words)
        return None

    def _refuse(self, status: int, message: str, code: int | None = None) -> None:
        self._send(status, {"error_code": code or status, "message": message})

    def _send(self, status: int, answer: Any) -> None:
        content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type(self.headers.get("Accept")) or CONTENT_TYPES[0])
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing for each request."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8081, show_default=True, help="Port to listen at; 0 for any free one.")
@click.option("--file", "path", default="var/schemas.sqlite", show_default=True, help="Where schemas are kept; ':memory:' keeps none.")
def registry(host: str, port: int, path: str) -> None:
    """Serve a schema registry: the Confluent API on one file."""
    try:
        if path != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"--file {path}: {error}") from error
    try:
        server = RegistryServer(path, host=host, port=port)
    except OSError as error:
        raise click.ClickException(f"{host}:{port}: {error}") from error
    except sqlite3.Error as error:
        raise click.ClickException(f"{path} cannot hold the schemas: {error}") from error
    click.echo(f"schema registry at {server.url}, kept in {path}; stop it with Ctrl-C")
    try:
        server.serve()
    except KeyboardInterrupt:
        click.echo("stopped")
    finally:
        server.close()
