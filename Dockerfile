# gliomask in a container. Building it needs a network, running it does not. docs/cluster.md explains its use.
#
#   docker build -t gliomask .                                       prediction on a CPU (the base installation)
#   docker build -t gliomask --build-arg EXTRAS=[raw,cohort] .       the same with extras
#   docker build -t gliomask:cuda --target cuda .                    with PyTorch for NVIDIA GPUs: several GB
#
#   docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/data" gliomask predict -i PATIENTS -o masks

# The library of the viewer, at the version of package-lock.json.
FROM node:22-bookworm-slim AS viewer
WORKDIR /viewer
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --no-audit --no-fund

# The wheel. It would also be built without the files that are downloaded meanwhile, so their presence is checked.
FROM python:3.11-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml hatch_build.py package.json package-lock.json LICENSE README.md CHANGELOG.md MODEL_CARD.md ./
COPY docs docs
COPY src src
COPY --from=viewer /viewer/node_modules node_modules
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel . \
    && python -m zipfile -l /wheel/gliomask-*.whl > files.txt \
    && for file in niivue.js.gz brain.safetensors mni152_t1_brain.nii.gz; do grep "assets/$file" files.txt || exit 1; done

FROM python:3.11-slim-bookworm AS environment
ARG EXTRAS=""
COPY constraints.txt /opt/
COPY --from=wheel /wheel /wheel
RUN python -m venv --without-pip /opt/gliomask \
    && pip --python /opt/gliomask/bin/python install --no-cache-dir --constraint /opt/constraints.txt \
        "$(echo /wheel/gliomask-*.whl)$EXTRAS" \
    && find /opt/gliomask -type d -name tests \( -path '*/scipy/*' -o -path '*/nibabel/*' \) -prune -exec rm -r {} +

FROM environment AS environment-cuda
RUN pip --python /opt/gliomask/bin/python install --no-cache-dir --constraint /opt/constraints.txt \
        "$(echo /wheel/gliomask-*.whl)[train]"

# Any user id may run it (--user): the caches of libraries go to /tmp, and everything else is written below /data.
FROM python:3.11-slim-bookworm AS runtime
LABEL org.opencontainers.image.title="gliomask" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/gliomask/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["gliomask"]
CMD ["--help"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=environment-cuda /opt/gliomask /opt/gliomask

# The last stage is the one that is built without --target.
FROM runtime AS cpu
COPY --from=environment /opt/gliomask /opt/gliomask
