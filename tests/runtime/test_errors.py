"""An error of a worker arrives whole, whatever way Ray carries it."""

from __future__ import annotations

import traceback

import pyarrow as pa
import pytest

from emollm.core.errors import DataError, ResourceError
from emollm.core.options import ClusterConfig

MESSAGE = "2 bad rows:\nposts.csv:1: x\n\nposts.csv:2: y"


class Refuses:
    """Fails where an actor does: while it is made, or at work."""

    def __init__(self, *, at_work: bool, **_told: object) -> None:
        if not at_work:
            raise DataError(MESSAGE)

    def __call__(self, _table: pa.Table) -> pa.Table:
        raise DataError(MESSAGE)


def refuse() -> None:
    raise DataError(MESSAGE)


@pytest.mark.ray
@pytest.mark.parametrize("at_work", [False, True])
def test_an_error_of_an_actor_keeps_all_its_lines(local_ray: None, at_work: bool) -> None:
    import ray

    from emollm.runtime.errors import worker_error
    from emollm.runtime.pools import map_on_actors, quiet_ray_data

    quiet_ray_data()
    rows = ray.data.from_arrow(pa.table({"x": [1]}))
    cluster = ClusterConfig(num_workers=1, gpus_per_worker=0)
    with pytest.raises(ray.exceptions.RayError) as raised:
        map_on_actors(rows, Refuses, {"at_work": at_work}, cluster, batch_size=None).materialize()
    error = worker_error(raised.value, doing="annotation")
    assert (type(error), str(error)) == (DataError, MESSAGE)


@pytest.mark.ray
def test_an_error_of_a_task_keeps_all_its_lines(local_ray: None) -> None:
    import ray

    from emollm.runtime.errors import worker_error

    with pytest.raises(ray.exceptions.RayError) as raised:
        ray.get(ray.remote(refuse).remote())
    error = worker_error(raised.value, doing="staging")
    assert (type(error), str(error)) == (DataError, MESSAGE)


def test_in_the_text_of_a_chain_the_last_error_of_ours_counts() -> None:
    from emollm.runtime.errors import own_error

    try:
        try:
            raise DataError(MESSAGE)
        except DataError as error:
            raise RuntimeError("UDF failed") from error
    except RuntimeError:
        text = traceback.format_exc()
    found = own_error(text)
    assert (type(found), str(found)) == (DataError, MESSAGE)
    assert own_error("RuntimeError: nothing of ours") is None


def test_an_error_of_a_library_is_reported_by_its_last_line() -> None:
    from emollm.runtime.errors import worker_error

    error = worker_error(RuntimeError("Traceback ...\nValueError: no such column"), doing="scoring")
    assert (type(error), str(error)) == (ResourceError, "scoring failed: ValueError: no such column")
