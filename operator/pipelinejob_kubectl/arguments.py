"""kubectl's own options, wherever they stand on the command line."""

from __future__ import annotations

from collections.abc import Sequence

GLOBAL = {"-n": "--namespace", "--namespace": "--namespace", "--context": "--context", "--kubeconfig": "--kubeconfig"}


def hoist(words: Sequence[str]) -> list[str]:
    """The same words with kubectl's own options before the verb: people write them anywhere."""
    front, rest, left = [], [], list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            rest += [word, *left]
            break
        name, sign, value = word.partition("=")
        if word in GLOBAL:
            front += [GLOBAL[word], *left[:1]]
            left = left[1:]
        elif sign and name in GLOBAL:
            front += [GLOBAL[name], value]
        elif word.startswith("-n") and not word.startswith("--") and len(word) > 2:
            front += ["--namespace", word[2:]]
        else:
            rest.append(word)
    return front + rest
