# syntax=docker/dockerfile:1.7
# One image for server, MLflow, workers and runs: the project's hash-pinned environment. The code is cloned at start.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock .
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
# What a DVC remote elsewhere needs, such as dvc-s3==3.3.0; the lock knows files and folders only.
ARG DVC_PLUGIN=""
RUN if [ -n "$DVC_PLUGIN" ]; then /opt/venv/bin/pip install --no-cache-dir "$DVC_PLUGIN"; fi

FROM python:3.11.14-slim-bookworm
# Git is how DVC and the flows know versions. Debian's security updates replace exact package versions within days.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 plumbline \
    && mkdir /workspace /registry /prefect && chown plumbline /workspace /registry /prefect
COPY --from=build /opt/venv /opt/venv
COPY --chmod=755 docker/workspace.sh /usr/local/bin/workspace
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
ENTRYPOINT ["tini", "--", "workspace"]
CMD ["coordinate"]
