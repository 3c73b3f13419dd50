"""`emollm calibrate` as a script for `ray job submit`: python jobs/calibrate.py --help"""

from emollm.commands.calibrate import main
from emollm.core.options import run_job

if __name__ == "__main__":
    run_job(main)
