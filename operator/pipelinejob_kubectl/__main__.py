"""`python -m pipelinejob_kubectl`, where the command is not on the PATH."""

from pipelinejob_kubectl.cli import main

if __name__ == "__main__":
    main()
