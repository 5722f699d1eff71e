"""A small order service over HTTP that a component can ask: what a company's own service would be."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class OrderServer:
    """Answers `GET /orders/{id}` with `{"id": …, "status": …}`, 404 for an unknown order, and can be made
    to fail (`status_code`), to hang (`hang`) or to be down (`stop`)."""

    def __init__(self):
        self.orders = {}
        self.requests = []
        self.status_code = None
        self.location = None
        self.released = threading.Event()
        self.released.set()
        self.server = None
        self.port = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """Again on the same port after `stop`, like a service that was restarted."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                service.requests.append(self.path)
                service.released.wait(30)
                order = service.orders.get(self.path.removeprefix("/orders/"))
                code = service.status_code or (404 if order is None else 200)
                body = json.dumps({"id": self.path, "status": order}).encode()
                try:
                    self.send_response(code)
                    if service.location:
                        self.send_header("location", service.location)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the broker gave up waiting

            def log_message(self, *arguments):
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        ThreadingHTTPServer.daemon_threads = True
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self):
        """Nobody listens any more: connections are refused."""
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def hang(self):
        self.released.clear()

    def unhang(self):
        self.released.set()
