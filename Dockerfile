# The images of PipelineJob: `make image`, or docker, podman or buildah with --target worker, --target operator and --target gateway.
# BASE_IMAGE is any Debian-like image with Python 3.11 to 3.14 and its venv module.
ARG BASE_IMAGE=python:3.13-slim

# What makes the others; nothing of it is shipped. The build tools have an environment of their own beside the one that they fill.
FROM ${BASE_IMAGE} AS tools
# Where pip finds packages, for who needs it: scripts/image.sh hands on what is set on the host.
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ARG PIP_TRUSTED_HOST=
ENV PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_QUIET=1
# Our own code lies in a folder beside site-packages, so that a change of it is a layer of its own, a few hundred kilobytes.
RUN python3 -m venv /tools \
    && python3 -m venv --without-pip /opt/pipelinejob \
    && echo /opt/pipelinejob/app >"$(/opt/pipelinejob/bin/python -c 'import site; print(site.getsitepackages()[0])')/pipelinejob.pth"
COPY requirements/build.txt /build/requirements/
RUN /tools/bin/pip install --require-hashes -r /build/requirements/build.txt

FROM tools AS worker-dependencies
COPY requirements/worker.txt /build/requirements/
RUN /tools/bin/pip --python /opt/pipelinejob/bin/python install --require-hashes --only-binary :all: -r /build/requirements/worker.txt \
    && find /opt/pipelinejob -type d -name tests -prune -exec rm -rf {} +

FROM tools AS operator-dependencies
COPY requirements/operator.txt /build/requirements/
RUN /tools/bin/pip --python /opt/pipelinejob/bin/python install --no-compile --require-hashes --only-binary :all: -r /build/requirements/operator.txt \
    && find /opt/pipelinejob -type d -name tests -prune -exec rm -rf {} +

# Of pyarrow without its headers and what speaks to servers of others: a quarter of what it weighs, and nothing here imports it.
FROM tools AS gateway-dependencies
COPY requirements/gateway.txt /build/requirements/
RUN /tools/bin/pip --python /opt/pipelinejob/bin/python install --no-compile --require-hashes --only-binary :all: -r /build/requirements/gateway.txt \
    && find /opt/pipelinejob -type d \( -name tests -o -path "*/pyarrow/include" -o -path "*/pyarrow/src" -o -path "*/pyarrow/*flight*" -o -path "*/pyarrow/*s3*" \) -prune -exec rm -rf {} +

FROM tools AS package
COPY pyproject.toml README.md LICENSE /build/
COPY worker /build/worker
COPY operator /build/operator
RUN /tools/bin/pip install --no-build-isolation --no-deps --target /app /build

# What the images have in common. The root file system may be read-only: at run time nothing is written outside /tmp, not even byte code.
# The user needs no line in /etc/passwd, and then has no home of its own.
FROM ${BASE_IMAGE} AS runtime
ENV PATH=/opt/pipelinejob/bin:$PATH HOME=/tmp PYTHONUTF8=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
LABEL org.opencontainers.image.title="PipelineJob" \
      org.opencontainers.image.description="Serverless-style function pipelines over the rows of a CSV" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM runtime AS operator
COPY --from=operator-dependencies /opt/pipelinejob /opt/pipelinejob
COPY --from=package /app /opt/pipelinejob/app
# Compiles what the base image's own library lacks, and fails here rather than in a pod if a dependency is missing.
RUN PYTHONDONTWRITEBYTECODE= python -c "import pipelinejob_operator.__main__"
USER 10001:10001
ENTRYPOINT ["python", "-m", "pipelinejob_operator"]

# The gateway, and the readers that it asks for what is on claims of other namespaces.
FROM runtime AS gateway
COPY --from=gateway-dependencies /opt/pipelinejob /opt/pipelinejob
COPY --from=package /app /opt/pipelinejob/app
RUN PYTHONDONTWRITEBYTECODE= python -c "import pipelinejob_gateway.__main__, pipelinejob.dry_run, pyarrow.parquet"
USER 10001:10001
ENTRYPOINT ["python", "-m", "pipelinejob_gateway"]

# The last one is what is built where no target is named.
FROM runtime AS worker
COPY --from=worker-dependencies /opt/pipelinejob /opt/pipelinejob
COPY --from=package /app /opt/pipelinejob/app
RUN PYTHONDONTWRITEBYTECODE= python -c "import pipelinejob.__main__, pipelinejob.child, pipelinejob.planes, pipelinejob.planning, pipelinejob.preview, pipelinejob.sample, pipelinejob.stages"
USER 10001:10001
ENTRYPOINT ["python", "-m", "pipelinejob"]
