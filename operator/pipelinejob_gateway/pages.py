"""The pages for people: what runs here, and the reference of the API. Plain HTML without scripts, from this server alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid #8884; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
pre { padding: .7rem; background: #8882; overflow-x: auto; border-radius: 4px }
summary { cursor: pointer; padding: .3rem 0 }
.m { display: inline-block; min-width: 4.2rem; font-weight: 600 }
"""
_METHODS = ("get", "post", "patch", "delete")


def start(jobs: Iterable[Mapping[str, Any]] | None) -> str:
    """The page at /: the newest jobs, unless nobody knows who asks, and where to go from here."""
    if jobs is None:
        told = "<p>Jobs are shown to who sends <code>Authorization: Bearer TOKEN</code> with a token that Kubernetes knows.</p>"
        return _start(told)
    lines = "".join(_job(job) for job in jobs)
    table = (
        f"<table><tr><th>Job<th>Phase<th>Progress<th>Failed<th>Created</tr>{lines}</table>"
        if lines
        else "<p>No jobs yet: <code>POST /api/v1/pipelinejobs</code>, or <code>pipelinejob run FILE</code>.</p>"
    )
    return _start(table)


def _start(jobs: str) -> str:
    return _page(
        "PipelineJob",
        f"<h1>PipelineJob</h1><p>Function pipelines over the rows of a CSV, with every row accounted for.</p>"
        f"<h2>Jobs</h2>{jobs}"
        '<h2>API</h2><p><a href="/api/v1/docs">Reference</a> · <a href="/api/v1/openapi.json">OpenAPI</a> · '
        '<a href="/api/v1/svc_ml/docs">svc_ml</a></p>',
    )


def reference(document: Mapping[str, Any], prefix: str) -> str:
    """The reference of the routes below a path, from the OpenAPI document."""
    parts = [
        _route(method.upper(), path, route, document)
        for path, methods in document["paths"].items()
        if path.startswith(prefix)
        for method, route in methods.items()
        if method in _METHODS
    ]
    return _page(
        "PipelineJob API",
        f'<h1>PipelineJob API</h1><p><a href="/">Jobs</a> · <a href="/api/v1/openapi.json">OpenAPI</a></p>{"".join(parts)}'
        "<p>Errors are <code>application/problem+json</code>: <code>status</code>, <code>detail</code> and, for programs, "
        "<code>reason</code>.</p>",
    )


def _job(job: Mapping[str, Any]) -> str:
    meta, status = job["metadata"], job.get("status") or {}
    name, namespace = escape(meta["name"]), escape(meta["namespace"])
    link = f"/api/v1/pipelinejobs/{name}?namespace={namespace}"
    shown = name if namespace == "default" else f"{namespace}/{name}"
    rows = status.get("rows", {})
    return (
        f'<tr><td><a href="{link}">{shown}</a><td>{escape(status.get("phase", ""))}<td class="n">{escape(status.get("progress", ""))}'
        f'<td class="n">{rows.get("failed", 0)}<td>{escape(meta["creationTimestamp"][:16].replace("T", " "))}</tr>'
    )


def _route(method: str, path: str, route: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code><td>{escape(one['in'])}<td>{escape(one.get('description', ''))}</tr>"
        for one in route.get("parameters", [])
    )
    table = f"<table><tr><th>Parameter<th>In<th></tr>{parameters}</table>" if parameters else ""
    body = route.get("requestBody", {}).get("content", {}).get("application/json")
    example = _example(body["schema"], body, document) if body else None
    shown = f"<p>Body:</p><pre>{escape(json.dumps(example, indent=2))}</pre>" if example is not None else ""
    answers = ", ".join(escape(status) for status in route.get("responses", {}))
    return (
        f'<details><summary><span class="m">{method}</span><code>{escape(path)}</code> {escape(route.get("summary", ""))}</summary>'
        f"<p>{escape(route.get('description', ''))}</p>{table}{shown}<p>Answers: {answers}</p></details>"
    )


def _example(schema: Mapping[str, Any], body: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "example" in schema:
        return schema["example"]
    if examples := schema.get("examples") or body.get("examples"):
        return examples[0]
    return {name: field.get("default") for name, field in schema.get("properties", {}).items()}


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><body>{body}</body></html>"
    )
