# An image of nothing but ferry: `docker build -t ferry .`, then `docker run --rm ferry copy SOURCE TARGET`.
# Each platform is built by an image of its own platform, where musl is the system's C library and the program comes out static.
ARG RUST=1.95-alpine
FROM rust:${RUST} AS build
RUN apk add --no-cache build-base ca-certificates linux-headers
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist --package ferry --bin ferry && \
    mkdir -p /root-of-image/etc/ssl/certs /root-of-image/home/ferry /root-of-image/tmp && \
    cp target/dist/ferry /root-of-image/ferry && \
    cp /etc/ssl/certs/ca-certificates.crt /root-of-image/etc/ssl/certs/ && \
    chown 65532:65532 /root-of-image/home/ferry && chmod 1777 /root-of-image/tmp

FROM scratch
LABEL org.opencontainers.image.source="https://github.com/ferry-mirror/ferry" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Moves container images to where people can pull them"
COPY --from=build /root-of-image/ /
# Logins are read from /home/ferry/.docker/config.json, staged blobs are kept below /home/ferry/.local/state.
ENV HOME=/home/ferry
WORKDIR /home/ferry
USER 65532:65532
ENTRYPOINT ["/ferry"]
