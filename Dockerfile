# Web and worker in one container on SQLite, kept in the volume /data; DATABASE_URL=postgresql://... for more.
# Your rules: mount them over the example, or give their text in BRIDGE_RULES_TOML.
#   docker run --env-file keys.env -v ci-bridge:/data -v "$PWD/my-rules.toml:/app/rules.toml:ro" -p 127.0.0.1:8000:8000 ci-bridge
FROM python:3.12-slim
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH UV_NO_CACHE=1
# The dependencies first, as locked: a change of the source installs none of them again.
COPY pyproject.toml uv.lock ./
RUN pip install --no-cache-dir uv && uv sync --frozen --no-install-project
COPY README.md LICENSE rules.toml Procfile ./
COPY slack ./slack
COPY docs/prometheus-alerts.yml docs/grafana-dashboard.json ./docs/
COPY bridge ./bridge
RUN uv sync --frozen --no-editable && useradd --create-home bridge && install -d -o bridge /data
USER bridge
VOLUME /data
ENV DATABASE_URL=sqlite:////data/bridge.db PORT=8000 BRIDGE_RULES=/app/rules.toml
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["python", "-c", "import os, urllib.request as r; from bridge.settings import read; r.build_opener(r.ProxyHandler({})).open(f'http://127.0.0.1:{read(os.environ).port}/healthz')"]
CMD ["ci-bridge", "run"]
