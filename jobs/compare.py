"""`emollm compare` as a script for `ray job submit`: python jobs/compare.py --help"""

from emollm.commands.compare import main
from emollm.core.options import run_job

if __name__ == "__main__":
    run_job(main)
