"""`emollm quickstart` as a script for `ray job submit`: python jobs/quickstart.py --help"""

from emollm.commands.quickstart import main
from emollm.core.options import run_job

if __name__ == "__main__":
    run_job(main)
