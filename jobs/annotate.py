"""`emollm annotate` as a script for `ray job submit`: python jobs/annotate.py --help"""

from emollm.commands.annotate import main
from emollm.core.options import run_job

if __name__ == "__main__":
    run_job(main)
