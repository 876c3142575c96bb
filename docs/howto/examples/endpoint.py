"""Survey a model behind an OpenAI-compatible endpoint: here a small local server that always answers A."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class AlwaysA(BaseHTTPRequestHandler):
    """The smallest chat endpoint: it answers every request with the letter A. Use your own server instead."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "A"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = json.dumps(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "always-a", "choices": [choice]}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No line for each request."""


server = ThreadingHTTPServer(("127.0.0.1", 0), AlwaysA)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_address[1]}/v1"

target = "--world shapes --ask shape,row --prompt letters --scenes 60"
command = f"-m theodolite survey always-a --endpoint {url} {target} --out survey"
# With --dry-run it prints what it would cost and sends nothing.
subprocess.run([sys.executable, *command.split()], check=True)
server.shutdown()

record = json.loads(Path("survey/survey.json").read_text())
print(record["shadows"]["verdicts"]["shape"])
