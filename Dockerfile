# The server in an image that the Dragonfly Kubernetes operator can start: any uid, read-only root, /data.

FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY . .
# What --version shows behind the number.
ARG DAMSELFLY_GIT_SHA=unknown
RUN DAMSELFLY_GIT_SHA="$DAMSELFLY_GIT_SHA" cargo build --release --locked --package damselfly

FROM debian:trixie-slim
# tini is PID 1: it passes signals on and reaps what probes leave behind.
# redis-cli and nc are for probes and people.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates netcat-openbsd redis-tools tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 999 damselfly \
    && useradd --system --uid 999 --gid 999 --home-dir /data --no-create-home damselfly \
    # Any uid may be set by the orchestrator; the sticky bit keeps users from removing each other's files.
    && mkdir /data && chown 999:999 /data && chmod 1777 /data
COPY --from=build /src/target/release/damselfly /usr/local/bin/
COPY --chmod=755 k8s/image/entrypoint.sh k8s/image/healthcheck.sh /usr/local/bin/

USER 999:999
WORKDIR /data
VOLUME /data
# Clients; health and metrics.
EXPOSE 6379 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/bin/sh", "/usr/local/bin/healthcheck.sh"]
# Arguments that begin with a dash are flags of the server: orchestrators replace CMD alone.
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/entrypoint.sh"]
CMD ["damselfly"]
