"""`kubectl_complete-pipelinejob`, which kubectl asks for the words that may follow; it loads nothing that is slow.

kubectl calls it with the words behind `pipelinejob`, the last of them unfinished; it prints a candidate a line, and at last
`:` with a directive of the shell: 0 for files where there is nothing else, 4 for no files.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence

from pipelinejob.reasons import RowReason
from pipelinejob_kubectl.arguments import GLOBAL, hoist

FILES, NO_FILES = 0, 4
PATIENCE = 3  # seconds for the cluster

# verb: (what its first argument is, its options); a test compares them with the commands.
VERBS: dict[str, tuple[str, tuple[str, ...]]] = {
    "list": ("", ("--all-namespaces", "--json")),
    "status": ("job", ("--watch", "--json")),
    "run": ("file", ("--no-wait", "--json")),
    "plan": ("file", ("--json",)),
    "logs": ("job", ("--shard", "--stage", "--follow", "--tail")),
    "failures": ("job", ("--reason", "--csv", "--json")),
    "results": ("job", ("--to", "--images", "--no-images", "--json")),
    "upload": ("file", ("--claim", "--to", "--image", "--json")),
    "redrive": ("job", ("--reason", "--pending", "--no-wait", "--json")),
    "suspend": ("job", ("--json",)),
    "resume": ("job", ("--watch", "--json")),
    "cancel": ("job", ("--json",)),
    "scale": ("job", ("--json",)),
    "delete": ("job", ("--output", "--json")),
    "functions": ("", ("--json",)),
    "doctor": ("", ("--json",)),
    "version": ("", ("--client", "--json")),
}
VALUES = {"--reason": [reason.value for reason in RowReason], "--stage": ["plan", "shard", "finalize"]}
NO_WORD = ("--shard", "--tail", "--image", "--claim")  # no file; but for the claim, their values cannot be guessed
PATHS = ("--to", "--kubeconfig")
LISTS = {"job": "pipelinejobs.pipelinejob.dev", "--namespace": "namespaces", "--claim": "persistentvolumeclaims"}

Ask = Callable[[Sequence[str]], list[str]]


def complete(words: Sequence[str], ask: Ask) -> tuple[list[str], int]:
    """(candidates, directive) for the last of these words.

    Args:
        words: those behind `kubectl pipelinejob`.
        ask: the lines that kubectl prints when it is called with these words.
    """
    *before, last = words or [""]
    known, place = hoist(before), []
    option = before[-1] if before else ""
    option = GLOBAL.get(option, option)
    if option in (*GLOBAL.values(), *VALUES, *NO_WORD, *PATHS):
        known = hoist(before[:-1])
    while known and known[0] in GLOBAL.values():
        place += known[:2]
        known = known[2:]
    if option in LISTS:
        return _starting(last, _names(ask, LISTS[option], place)), NO_FILES
    if option == "--context":
        return _starting(last, ask(["config", "get-contexts", "-o", "name", *_only(place, "--kubeconfig")])), NO_FILES
    if option in PATHS:
        return [], FILES
    if option in VALUES:
        return _starting(last, VALUES[option]), NO_FILES
    if option in NO_WORD:
        return [], NO_FILES
    verb = next((word for word in known if not word.startswith("-")), "")
    kind, options = VERBS.get(verb, ("", ()))
    if last.startswith("-"):
        return _starting(last, [*options, *dict.fromkeys(GLOBAL.values()), "--help"]), NO_FILES
    if not verb:
        return _starting(last, list(VERBS)), NO_FILES
    if len(_arguments(known)) > 1 or not kind:
        return [], NO_FILES
    return ([], FILES) if kind == "file" else (_starting(last, _names(ask, LISTS[kind], place)), NO_FILES)


def _arguments(words: Sequence[str]) -> list[str]:
    """The verb and its arguments, without options and their values."""
    found, skip = [], False
    for word in words:
        if not skip and not word.startswith("-"):
            found.append(word)
        skip = word in (*VALUES, *NO_WORD, *PATHS)
    return found


def _only(place: Sequence[str], option: str) -> list[str]:
    return [word for name, value in zip(place[::2], place[1::2], strict=False) if name == option for word in (name, value)]


def _names(ask: Ask, kind: str, place: Sequence[str]) -> list[str]:
    return [line.rpartition("/")[2] for line in ask(["get", kind, "-o", "name", *place])]


def _starting(prefix: str, words: Sequence[str]) -> list[str]:
    return [word for word in words if word.startswith(prefix)]


def kubectl(words: Sequence[str]) -> list[str]:
    """What kubectl prints; nothing where it fails, for a shell cannot show why."""
    command = ["kubectl", *words, f"--request-timeout={PATIENCE}s"]
    try:
        ran = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE + 1)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ran.stdout.split() if ran.returncode == 0 else []


def main() -> None:
    """The entry of `kubectl_complete-pipelinejob`."""
    candidates, directive = complete(sys.argv[1:], kubectl)
    print("\n".join([*candidates, f":{directive}"]))


if __name__ == "__main__":
    main()
