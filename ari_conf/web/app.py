"""`ari-conf web`: the process of the REST API and the dashboard."""

from fastapi import FastAPI

app = FastAPI(title="ari_conf", docs_url=None, redoc_url=None, openapi_url=None)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process answers. What it needs (Redis, the application) is `ari-conf doctor`'s to tell."""
    return {"status": "ok"}
