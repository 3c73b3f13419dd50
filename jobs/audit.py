"""`emollm audit` as a script for `ray job submit`: python jobs/audit.py --help"""

from emollm.commands.audit import main
from emollm.core.options import run_job

if __name__ == "__main__":
    run_job(main)
