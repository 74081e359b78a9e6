# An image of nothing but ferry: `docker build -t ferry .`, then `docker run --rm ferry copy SOURCE TARGET`.
# Each platform is built by an image of its own platform, where musl is the system's C library and the program comes out static.
ARG RUST=1.95-alpine
FROM rust:${RUST} AS build
RUN apk add --no-cache build-base ca-certificates linux-headers
# With OpenTelemetry: --build-arg FEATURES=otel
ARG FEATURES=
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist --package ferry --bin ferry --features "$FEATURES" && \
    mkdir -p /image/etc/ssl/certs /homes/ferry && \
    cp target/dist/ferry /image/ferry && \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/

FROM scratch
LABEL org.opencontainers.image.source="https://github.com/ferry-mirror/ferry" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Moves container images to where people can pull them"
COPY --from=build /image/ /
# A volume on it belongs to the user, too.
COPY --from=build --chown=65532:65532 /homes/ /home/
# Logins are read from /home/ferry/.docker/config.json, staged blobs are kept below /home/ferry/.local/state.
ENV HOME=/home/ferry
WORKDIR /home/ferry
USER 65532:65532
ENTRYPOINT ["/ferry"]
