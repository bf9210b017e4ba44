# OneLLM's web app: docker build -t onellm . && docker run -p 7860:7860 -v onellm-cache:/cache onellm
FROM python:3.11-slim-bookworm

WORKDIR /app
COPY packages.txt requirements.txt requirements.lock ./
# hadolint ignore=DL3008
RUN apt-get update \
    && xargs -a packages.txt apt-get install -y --no-install-recommends \
    && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir --require-hashes -r requirements.txt -c requirements.lock \
    && useradd --create-home --uid 1000 onellm \
    && install -d -o onellm /cache

COPY app.py LICENSE ./
COPY onellm onellm
COPY examples examples

USER 1000
# base models and published weights are fetched into the volume once; uploads live in the container for an hour
ENV ONELLM_HOST=0.0.0.0 \
    ONELLM_PORT=7860 \
    ONELLM_CACHE=/cache \
    HF_HOME=/cache/huggingface \
    PYTHONUNBUFFERED=1
VOLUME /cache
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
CMD ["python", "app.py"]
