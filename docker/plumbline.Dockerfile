# syntax=docker/dockerfile:1.7
# One image for worker, flows and MLflow: the project with its hash-pinned environment.
FROM python:3.11.11-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock .
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock

FROM python:3.11.11-slim-bookworm
# Git is how DVC and the flows know versions. Debian's security updates replace exact package versions within days.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 plumbline \
    && mkdir /workspace /registry && chown plumbline /workspace /registry
COPY --from=build /opt/venv /opt/venv
COPY --chown=plumbline docker/worker.sh /usr/local/bin/worker
ENV PATH=/opt/venv/bin:$PATH \
    DO_NOT_TRACK=1 \
    DVC_NO_ANALYTICS=1 \
    GX_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30 \
    PLUMBLINE_WORKSPACE=/workspace/plumbline \
    GIT_AUTHOR_NAME=Plumbline GIT_AUTHOR_EMAIL=plumbline@localhost \
    GIT_COMMITTER_NAME=Plumbline GIT_COMMITTER_EMAIL=plumbline@localhost
USER 10001
WORKDIR /workspace
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health', timeout=5)"]
ENTRYPOINT ["tini", "--", "worker"]
CMD ["plumbline"]
