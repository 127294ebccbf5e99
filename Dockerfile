# The registry with its plugins, as a service.
#
#     docker build --tag registry .
#     docker run --publish 5556-5558:5556-5558 --volume registry:/var/lib/registry registry
#
# Settings: REGISTRY_SERVER__ENFORCE_UNIQUE_SERVICE_TYPES=true and the like, or a file over /etc/registry/registry.toml.
# The health check goes by both, and fails while the storage does. With keys it needs one of its own: REGISTRY_KEY and
# REGISTRY_SERVER_KEY.

FROM rust:1-bookworm AS build
WORKDIR /build
COPY . .
# Builds every default member: the host and, beside it, the plugins.
RUN cargo build --release --locked
RUN install -D --strip --target-directory=/out/bin target/release/registry \
 && install -D --strip --mode=0644 --target-directory=/out/lib/registry target/release/libregistry_*.so

FROM debian:bookworm-slim
# A fixed id, so that the owner of a mounted volume can be set from outside.
RUN groupadd --system --gid 10001 registry \
 && useradd --system --uid 10001 --gid registry --home-dir /var/lib/registry --shell /usr/sbin/nologin registry \
 && install --directory --owner=registry --group=registry --mode=0750 /var/lib/registry
COPY --from=build /out/ /usr/local/
COPY registry.toml /etc/registry/registry.toml

# Inside a container loopback is of no use to anybody else. Whoever can reach the container's network, or the ports that
# are published from it, can register, deregister and read.
ENV REGISTRY_SERVER__BIND=* \
    REGISTRY_SERVER__TRUSTED_NETWORK=true
USER 10001:10001
# Where the default configuration puts the services: path = "service_registry.db".
WORKDIR /var/lib/registry
VOLUME /var/lib/registry
EXPOSE 5556 5557 5558
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["registry", "health", "--config", "/etc/registry/registry.toml"]
ENTRYPOINT ["registry"]
CMD ["serve", "--config", "/etc/registry/registry.toml"]
