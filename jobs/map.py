"""`emollm map` as a script for `ray job submit`: python jobs/map.py --help"""

from emollm.commands.map_labels import main
from emollm.core.options import run_job

if __name__ == "__main__":
    run_job(main)
