# Builds and judges bundles in a pipeline: train, build, parity of any classifier, bench, report.
#
#   docker build -f docker/ci.Dockerfile -t edgekit-ci .
#   docker run --rm --user "$(id -u)" -v "$PWD:/work" edgekit-ci \
#     edgekit parity int8.onnx --reference float.onnx --preprocessing imagenet --data photos
FROM python:3.12-slim-bookworm AS wheel
# Debian keeps one patch release of a package; an older one named here could not be installed.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY CMakeLists.txt LICENSE NOTICE README.md pyproject.toml ./
COPY calib calib
COPY edgekit edgekit
COPY targets targets
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm
# build has what parity needs; litert is for .tflite files, timm for timm's models.
ARG EXTRAS=build,litert,timm
# PyTorch's builds for CPUs; PyPI's bring CUDA's libraries along.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir --constraint /constraints.txt --extra-index-url "$TORCH_INDEX" \
      "$(echo /wheels/*.whl)[$EXTRAS]" \
 && useradd --uid 1000 --create-home edgekit \
 && install --directory --owner=edgekit --mode=1777 /cache
# A volume here keeps what was measured before; anybody may write there, for `docker run --user`.
ENV EDGEKIT_CACHE=/cache
USER 1000
WORKDIR /work
# No entry point: GitLab and others start a shell in the image.
CMD ["edgekit", "--help"]
