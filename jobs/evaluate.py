"""`emollm evaluate` as a script for `ray job submit`: python jobs/evaluate.py --help"""

from emollm.commands.evaluate import main
from emollm.core.options import run_job

if __name__ == "__main__":
    run_job(main)
