"""Pages for people, made from templates: no page takes anything from another server, and no text of a job's is taken for markup."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader

from pipelinejob import __version__
from pipelinejob.progress import duration

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
OUTCOMES = ("succeeded", "filtered", "skipped", "failed", "pending")
_HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
_METHODS = ("get", "post", "patch", "delete")


def render(page: str, code: int = 200, **values: Any) -> HTMLResponse:
    """A page.

    Args:
        page: the name of a file in templates/.
        code: the HTTP status.
        values: what the template asks for.
    """
    return HTMLResponse(_ENVIRONMENT.get_template(page).render(values), code, {**_HEADERS, "Cache-Control": "no-store"})


def reference(document: Mapping[str, Any], prefix: str) -> HTMLResponse:
    """The reference of the routes below a path, from the OpenAPI document."""
    routes = [
        {"method": method.upper(), "path": path, "example": _example(route, document), **route}
        for path, methods in document["paths"].items()
        if path.startswith(prefix)
        for method, route in methods.items()
        if method in _METHODS
    ]
    return render("reference.html", routes=routes)


def _example(route: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    """A body that the route takes; None where it takes none."""
    body = route.get("requestBody", {}).get("content", {}).get("application/json")
    if body is None:
        return None
    schema = body["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "example" in schema:
        return schema["example"]
    if examples := schema.get("examples") or body.get("examples"):
        return examples[0]
    return {name: field.get("default") for name, field in schema.get("properties", {}).items()}


def _when(value: str | None) -> str:
    """A moment as a person reads it."""
    return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M:%S}" if value else ""


def _age(value: str, now: datetime) -> str:
    """How long ago a moment was, in its largest unit, as kubectl says it."""
    seconds = max(0, int((now - datetime.fromisoformat(value)).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _number(value: float | None) -> str:
    return f"{value or 0:,.0f}"


def _indented(value: object) -> str:
    return json.dumps(value, indent=2)


_ENVIRONMENT = Environment(loader=PackageLoader("pipelinejob_gateway"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.filters |= {
    "when": _when,
    "age": _age,
    "number": _number,
    "duration": duration,
    "json": _indented,
}
_ENVIRONMENT.globals |= {"outcomes": OUTCOMES, "version": __version__}
