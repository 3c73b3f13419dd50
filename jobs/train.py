"""`emollm train` as a script for `ray job submit`: python jobs/train.py --help"""

from emollm.commands.train import main
from emollm.core.options import run_job

if __name__ == "__main__":
    run_job(main)
