"""What the server refuses, and the headers of every response: pages are for a browser on this machine, at this server's own address."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
METHODS = ("GET", "HEAD")
HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Guard:
    """Answers what comes from elsewhere with 403, and what would change something with 405, before the application sees it."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        self.hosts = {f"{host}:{port}" for host in HOSTS} | (set(HOSTS) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**HEADERS, "Content-Security-Policy": NOTHING}.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] != "http":
            return
        refused = self.refusal(scope["method"], Headers(scope=scope))
        await (refused or self.app)(scope, receive, send_guarded)

    def refusal(self, method: str, headers: Headers) -> Response | None:
        """The response to a request that is refused; None where it may pass."""
        if headers.getlist("host") not in [[host] for host in self.hosts]:
            # A name that someone else lets point to 127.0.0.1 would make this server part of their site (DNS rebinding).
            return PlainTextResponse("this server answers only at its own address, as it printed it\n", 403)
        if any(origin.removeprefix("http://") not in self.hosts for origin in headers.getlist("origin")):
            return PlainTextResponse("this server does not answer other sites\n", 403)
        is_opened_by_user = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_opened_by_user:
            return PlainTextResponse("this server does not answer other sites\n", 403)
        if method not in METHODS:
            return PlainTextResponse("this server only shows, and changes nothing\n", 405, {"Allow": ", ".join(METHODS)})
        return None


def page_policy(nonce: str) -> str:
    """The Content-Security-Policy of this server's own pages: their own styles and scripts, pictures within them, forms to this server."""
    return (
        f"default-src 'none'; img-src data:; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def report_policy(html: str, nonce: str) -> str:
    """The policy of a report: the one that the page itself states, but for its scripts, which need the nonce, in a sandbox.

    In the sandbox a report is of an origin of its own: should a record ever bring a script to run, it reaches none of the other pages.
    """
    stated = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    if stated is None:
        raise ValueError("the report states no Content-Security-Policy")
    name, *sources = re.search(r"script-src[^;]*", stated[1])[0].split()
    scripts = " ".join([name, f"'nonce-{nonce}'", *(source for source in sources if source != "'unsafe-inline'")])
    others = [part for part in map(str.strip, stated[1].split(";")) if not part.startswith("script-src")]
    return "; ".join(
        [*others, scripts, "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "sandbox allow-scripts allow-downloads"]
    )
