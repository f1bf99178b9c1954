"""`python -m cluster up|down|status`: what `make cluster-up` and `make cluster-down` run."""

from __future__ import annotations

import sys

from cluster import control
from cluster.binaries import cache


def main() -> int:
    """Does what the first argument says; the three lines for scripts go to standard output, all else to standard error."""
    verb = sys.argv[1] if len(sys.argv) == 2 else ""
    try:
        if verb == "up":
            made = control.up("make")
            print(f"KUBECONFIG={made.kubeconfig}\nDATA={made.data}\nBIN={made.bin}")
        elif verb == "down":
            control.down()
            print("cluster: down", file=sys.stderr)
        elif verb == "status":
            print(control.owner(cache() / "run") or "no cluster")
        else:
            print("usage: python -m cluster up|down|status", file=sys.stderr)
            return 2
    except control.FAILURES as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
