"""What BLAS's threads cost where heads are fitted: python benchmarks/blas_threads.py [--busy 4]

Cholesky factors of the sizes of one, two and three readings of SmolLM2, with one thread and with two, beside so many
processes that do nothing but keep the cores busy: medians of CPU and of clock seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time

import numpy as np
from scipy.linalg import cho_factor
from threadpoolctl import threadpool_limits

SIZES = (576, 1152, 1728)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--busy", type=int, default=0)
    args = parser.parse_args()
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(args.busy)]
    for other in others:
        other.start()
    print("  size  threads   CPU s  clock s")
    for size in SIZES:
        for threads in (1, 2):
            cpu, clock = factor(size, threads)
            print(f"{size:6} {threads:8} {cpu:7.3f} {clock:8.3f}", flush=True)
    for other in others:
        other.terminate()


def factor(size: int, threads: int) -> tuple[float, float]:
    """Medians of nine factors."""
    rows = np.random.default_rng(0).standard_normal((size + 50, size))
    matrix = rows.T @ rows
    times = []
    with threadpool_limits(limits=threads, user_api="blas"):
        for _ in range(9):
            cpu, clock = time.process_time(), time.perf_counter()
            cho_factor(matrix, lower=True)
            times.append((time.process_time() - cpu, time.perf_counter() - clock))
    return statistics.median(cpu for cpu, _ in times), statistics.median(clock for _, clock in times)


def spin() -> None:
    give_up = time.monotonic() + 600
    while time.monotonic() < give_up:
        pass


if __name__ == "__main__":
    main()
