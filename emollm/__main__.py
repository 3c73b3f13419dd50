"""python -m emollm: the command `emollm` where its script is not on the path."""

from emollm.commands.cli import run

if __name__ == "__main__":
    run()
