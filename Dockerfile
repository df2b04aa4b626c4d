# makegood as an image: the binary, CA certificates, and nothing else; no shell, no root.
#
#   docker build -t makegood .
#   docker run --rm makegood demo
#
# Writes nowhere but where it is told to, so it runs with a read-only root file system.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# First the dependencies alone, with empty sources: this layer is built again only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it \
 && echo 'fn main() {}' | tee src/main.rs tests/it/main.rs >/dev/null \
 && touch src/lib.rs \
 && cargo build --release --locked --bin makegood

# Then makegood. The sources are older than what was just built from nothing: without the new date
# cargo would take them for built.
COPY config config
COPY migrations migrations
COPY src src
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --bin makegood \
 && mkdir /empty

# The same Debian as above, for its C library. Has CA certificates and a user "nonroot" (65532).
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/makegood /usr/local/bin/makegood
# What is not configured otherwise (the demo, an embedded database) is written here.
COPY --from=build --chown=65532:65532 /empty /var/lib/makegood
WORKDIR /var/lib/makegood
USER 65532:65532
# Port of the daemon's pages ("schedule"), once [metrics] listen is 0.0.0.0:9464.
EXPOSE 9464
ENTRYPOINT ["makegood"]
# It moves money: what it does is always said explicitly.
CMD ["--help"]
