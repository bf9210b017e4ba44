"""For whoever watches the process: does it live, does the model answer, what did it do."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from onellm.serving import metrics
from onellm.serving.engine import Engine


def router(engine: Engine) -> APIRouter:
    """Make the routes /health, /ready and /metrics.

    Args:
        engine: the app's model.
    """
    routes = APIRouter(tags=["health"])

    # Both are coroutines: they answer also where every thread is taken.

    @routes.get("/health")
    async def health() -> dict:
        """Tell that the process lives."""
        return {"status": "ok"}

    @routes.get("/ready")
    async def ready() -> JSONResponse:
        """Tell whether the model answers; 503 and why where it does not, and it is loaded again."""
        if engine.failed:
            engine.start()
        if engine.ready:
            return JSONResponse({"status": "ready", "model": engine.name, "waiting": len(engine.queue)})
        state = "failed" if engine.error else "loading"
        message = engine.error or f"{engine.name} is being loaded; ask again in a few seconds."
        return JSONResponse({"status": state, "model": engine.name, "message": message}, status_code=503)

    @routes.get("/metrics")
    def figures() -> Response:
        """Return the figures in Prometheus's text format."""
        return Response(metrics.render(engine), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
