"""`emollm release` as a script for `ray job submit`: python jobs/release.py --help"""

from emollm.commands.release import main
from emollm.core.options import run_job

if __name__ == "__main__":
    run_job(main)
