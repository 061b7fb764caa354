# syntax=docker/dockerfile:1.7
# The image that serves the champion: no TensorFlow, no DVC, no Prefect; the code that serves is in it.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
COPY requirements-serving.lock .
RUN python -m venv --without-pip /opt/venv \
    && pip install --no-cache-dir --no-deps --no-compile --require-hashes --prefix /opt/venv -r requirements-serving.lock

FROM python:3.11.14-slim-bookworm
RUN useradd --create-home --uid 10001 plumbline && mkdir /served /registry && chown plumbline /served /registry
COPY --from=build /opt/venv /opt/venv
COPY plumbline /app/plumbline
COPY serving /app/serving
COPY docker/serving.yaml /app/params.yaml
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PLUMBLINE_CACHE=/served/cache
USER 10001
WORKDIR /app
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=5)"]
ENTRYPOINT ["python", "-m", "serving.supervisor"]
CMD ["--host", "0.0.0.0"]
