# One image for every service of docker-compose.yml that is ours: API, MLflow server, Ray head and workers.
FROM python:3.11-slim-bookworm

# `train.compile` has PyTorch write C++, and for GPUs Triton C, and compile it where the trial runs. The compiler takes
# 230 MB, beside several gigabytes of torch and Ray; without it such trials would fail here and nowhere else.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
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
# Not into a virtual environment: the head runs drivers by the `python` on its PATH, and KubeRay may start it by a login
# shell, whose PATH is the system's.
RUN if [ -n "$TORCH" ]; then sed -i "s/^torch==.*/torch==$TORCH/" constraints.txt; fi \
 && pip install --no-cache-dir --disable-pip-version-check -c constraints.txt ".[postgres,s3,serve]"

USER sweepserve
WORKDIR /home/sweepserve
ENV PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 SWEEPSERVE_HOME=/data
CMD ["sweepserve", "api"]
