# Runs bundles on a CPU: predict, watch, bench. No torch, no compiler.
#
#   docker build -f docker/device.Dockerfile -t edgekit-device .
#   docker run --rm -v "$PWD/build/cpu:/bundle:ro" -v "$PWD/photos:/photos:ro" \
#     edgekit-device predict /bundle /photos
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
# What the bundle's target needs: openvino or onnxruntime.
ARG RUNTIME=openvino
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir --constraint /constraints.txt "$(echo /wheels/*.whl)[$RUNTIME]" \
 && useradd --uid 1000 --create-home edgekit \
 && install --directory --owner=edgekit --mode=1777 /cache
# A volume here keeps compiled models between runs; anybody may write there, for `docker run --user`.
ENV EDGEKIT_CACHE=/cache
USER 1000
WORKDIR /home/edgekit
ENTRYPOINT ["edgekit"]
CMD ["--help"]
