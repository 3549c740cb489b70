# The instruct program on Debian 12:   docker build -t instruct . && docker run --rm -v "$PWD:/data" instruct --help
FROM debian:12-slim AS build
COPY . /source
WORKDIR /source
RUN scripts/install_deps.sh build \
 && cmake --preset release && cmake --build --preset release \
 && cmake --install build/release --prefix /usr/local --component program --strip

# Only the shared libraries that the binary is linked with.
FROM debian:12-slim
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends libdnnl2 libhwy1 libyaml-cpp0.7 libfmt9 libpcre2-8-0 libutf8proc2 libssl3 libgomp1 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local /usr/local
WORKDIR /data
ENTRYPOINT ["instruct"]
