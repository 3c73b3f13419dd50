"""`emollm build-data` as a script for `ray job submit`: python jobs/build_data.py --help"""

from emollm.commands.build_data import main
from emollm.core.options import run_job

if __name__ == "__main__":
    run_job(main)
