"""Deploy the endpoint to the running Ray."""

from __future__ import annotations

from emollm.core.errors import EmollmError, ResourceError
from emollm.runtime.errors import own_error
from emollm.serve.config import ServeConfig


def deploy(config: ServeConfig, *, name: str = "emollm", route_prefix: str = "/") -> None:
    """Return when the endpoint answers. Raises the error that kept the model from loading, as its replica raised it."""
    from ray import serve

    from emollm.serve.app import build

    try:
        serve.run(build(config.model_dump()), name=name, route_prefix=route_prefix)
    except RuntimeError as error:
        raise _cause(name, error) from None


def _cause(name: str, error: RuntimeError) -> EmollmError:
    # Serve raises only the names of deployments; the reason is in their state.
    from ray import serve

    application = serve.status().applications.get(name)
    messages = [state.message for state in application.deployments.values() if state.message] if application else []
    for message in messages:
        if ours := own_error(message):
            return ours
    lines = [line for line in "\n".join([str(error), *messages]).splitlines() if line.strip()]
    return ResourceError(f"the endpoint did not start: {lines[-1]}")
