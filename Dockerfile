# One image for every service of docker-compose.yml that is ours: API, MLflow server, Ray head and workers.
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 10001 sweepserve \
 && install --directory --owner=sweepserve /data
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY search_spaces search_spaces
COPY trainables trainables
COPY service service
# Another torch, as 2.13.0+cu130, from an index that has it. No password belongs in these: the image's history shows them.
ARG TORCH=
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
RUN if [ -n "$TORCH" ]; then sed -i "s/^torch==.*/torch==$TORCH/" constraints.txt; fi \
 && pip install --no-cache-dir --disable-pip-version-check -c constraints.txt ".[postgres,s3,serve]"

USER sweepserve
WORKDIR /home/sweepserve
ENV PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 SWEEPSERVE_HOME=/data
CMD ["sweepserve", "api"]
