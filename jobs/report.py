"""`emollm report` as a script for `ray job submit`: python jobs/report.py --help"""

from emollm.commands.report import main
from emollm.core.options import run_job

if __name__ == "__main__":
    run_job(main)
