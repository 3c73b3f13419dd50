"""Workers are placed whole: what the nodes hold, not what they hold together."""

from __future__ import annotations

import pytest

from emollm.core.errors import ResourceError
from emollm.core.options import ClusterConfig
from emollm.runtime.placement import lacks, room

TWO_OF_FOUR = [{"CPU": 4.0}, {"CPU": 4.0}]
TWO_MACHINES = [{}, {"CPU": 96.0, "GPU": 8.0}, {"CPU": 96.0, "GPU": 8.0}]


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "light", "fit"),
    [
        (TWO_OF_FOUR, 6, 0, 0, 0),
        (TWO_OF_FOUR, 3, 0, 0, 2),
        (TWO_OF_FOUR, 3, 0, 1, 2),  # each node has one CPU left
        (TWO_OF_FOUR, 4, 0, 1, 1),  # what feeds the workers takes one's place
        (TWO_OF_FOUR, 2, 0, 1, 3),
        ([{"CPU": 0.3}], 0.1, 0, 0, 3),
        ([{"CPU": 0.5}], 0.1, 0, 1, 0),  # no CPU for what feeds them
        (TWO_MACHINES, 8, 1, 1, 16),
        (TWO_MACHINES, 8, 0.5, 0, 24),
        (TWO_MACHINES, 1, 0.4, 0, 32),  # parts of two GPUs do not make one
        (TWO_MACHINES, 1, 3, 0, 4),
        ([], 1, 0, 1, 0),
    ],
)
def test_a_worker_is_not_spread_over_nodes(
    nodes: list[dict[str, float]], cpus: float, gpus: float, light: float, fit: int
) -> None:
    assert room(nodes, cpus=cpus, gpus=gpus, light_cpus=light) == fit


def test_resources_that_do_not_fit_are_reported_with_numbers() -> None:
    one = ClusterConfig(num_workers=1, cpus_per_worker=6)
    said = lacks(TWO_OF_FOUR, one, "scoring actors")
    assert said is not None and "1 scoring actors of 6 CPUs do not fit: the nodes have 4, 4 CPUs" in said
    said = lacks(TWO_OF_FOUR, ClusterConfig(num_workers=3, cpus_per_worker=3), "scoring actors", light_cpus=1)
    assert said is not None and said.startswith("3 scoring actors and what feeds them need 10 CPUs; Ray has 8; lower")
    assert lacks(TWO_OF_FOUR, ClusterConfig(num_workers=2, cpus_per_worker=3), "scoring actors", light_cpus=1) is None


@pytest.mark.ray
def test_a_request_that_cannot_be_placed_is_refused(local_ray: None) -> None:
    from emollm.runtime.placement import check_resources

    check_resources(ClusterConfig(num_workers=1, cpus_per_worker=2), what="workers", reads_data=True)
    with pytest.raises(ResourceError, match=r"1 workers and what feeds them need 4 CPUs; Ray has 3"):
        check_resources(ClusterConfig(num_workers=1, cpus_per_worker=3), what="workers", reads_data=True)
    with pytest.raises(ResourceError, match=r"2 training workers need 2 GPUs; Ray has 1; lower"):
        check_resources(ClusterConfig(num_workers=2, gpus_per_worker=1), what="training workers")
