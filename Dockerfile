# farfeel serve in a container, for a processor or for an NVIDIA GPU. docs/container.md explains how to run it.
#
#   docker build --target cpu -t farfeel:cpu .      ONNX Runtime, without PyTorch: serves and predicts
#   docker build --target cuda -t farfeel:cuda .    PyTorch with the CUDA libraries of its wheel: trains too
#
# The requirements are one layer, farfeel is another. A change of the source code does not change the large layer.

ARG PYTHON=3.11
ARG DEBIAN=bookworm

FROM python:${PYTHON}-slim-${DEBIAN} AS base
ENV PATH=/opt/farfeel/bin:$PATH

# The requirements of pyproject.toml. The `cpu` target has neither PyTorch nor the packages that need it.
FROM base AS requirements
ARG EXTRAS=serve
ARG PIP_INDEX_URL
WORKDIR /build
COPY --chown=root:root pyproject.toml constraints.txt ./
RUN python -m venv /opt/farfeel
RUN python -c "import os, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        extras = [project['optional-dependencies'][extra] for extra in os.environ['EXTRAS'].split(',')]; \
        print(*project['dependencies'], *sum(extras, []), sep='\n')" > cuda.txt \
 && grep -vE '^(lightning-fabric|tensorboardX|timm|torch|torchvision)>' cuda.txt > cpu.txt

# Wheels only: nothing is compiled, and no set-up script of a package runs.
FROM requirements AS cpu-requirements
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --only-binary :all: --constraint constraints.txt --requirement cpu.txt

FROM requirements AS cuda-requirements
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --only-binary :all: --constraint constraints.txt --requirement cuda.txt

FROM requirements AS package
COPY --chown=root:root README.md LICENSE ./
COPY --chown=root:root src src
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps --prefix /package .

# The part that both targets share. Root owns the files, so the server cannot change itself. It writes to /tmp only.
FROM base AS server
LABEL org.opencontainers.image.title="farfeel" \
      org.opencontainers.image.description="Emotion recognition in real rooms: REST interface and web page" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 farfeel \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin farfeel
# Without this, ONNX Runtime would store a number for this machine and send usage data to its maker.
ENV HOME=/tmp ORT_DISABLE_TELEMETRY=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 7860
# The health check uses no proxy of the environment: such a proxy is for other hosts.
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python", "-c", \
"import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:7860/v1/health', timeout=8)"]

FROM server AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-requirements --chown=root:root /opt/farfeel /opt/farfeel
COPY --from=package --chown=root:root /package /opt/farfeel
CMD ["farfeel", "serve", "--host", "0.0.0.0"]

FROM server AS cpu
COPY --from=cpu-requirements --chown=root:root /opt/farfeel /opt/farfeel
COPY --from=package --chown=root:root /package /opt/farfeel
CMD ["farfeel", "serve", "--host", "0.0.0.0", "--engine", "onnx"]
