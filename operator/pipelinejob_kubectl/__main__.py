"""The entry of `kubectl pipelinejob`, also as `python -m pipelinejob_kubectl`: what is not installed is told in a line, too."""

import sys


def main() -> None:
    """Runs the command."""
    try:
        from pipelinejob_kubectl.cli import main as run  # noqa: PLC0415 - or there would be a traceback
    except ModuleNotFoundError as error:
        sys.stderr.write(f"NotInstalled: the package {error.name!r} is not installed: pip install 'pipelinejob[kubectl]'\n")
        sys.exit(1)
    run()


if __name__ == "__main__":
    main()
