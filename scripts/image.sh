#!/usr/bin/env bash
# Build the images pipelinejob-worker, pipelinejob-operator and pipelinejob-gateway with docker, podman or buildah, whichever answers first.
#   ENGINE=podman                    this one and no other
#   TAG=1.2.3                        default: the version of the package
#   REGISTRY=registry.example/team   goes before the names
#   BASE_IMAGE=...                   instead of the public Python image: Debian-like, with Python 3.11 to 3.14 and venv
# Where pip on this machine has an index of its own (PIP_INDEX_URL and so on, or pip's configuration), the build uses it as well.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

answers() {
    case $1 in
        docker | podman) timeout 20 "$1" info >/dev/null 2>&1 ;;
        buildah) buildah --version >/dev/null 2>&1 ;;
        *) return 1 ;;
    esac
}

engine=
for candidate in ${ENGINE:-docker podman buildah}; do
    if answers "$candidate"; then
        engine=$candidate
        break
    fi
done
if [ -z "$engine" ]; then
    if [ -n "${ENGINE:-}" ]; then
        echo "image: ENGINE=$ENGINE does not answer; it has to be docker, podman or buildah, installed and (docker) with its daemon running" >&2
    else
        echo "image: neither docker nor podman nor buildah answers. Start Docker, or install one: apt-get install buildah, brew install podman" >&2
    fi
    exit 1
fi

options=()
[ -z "${BASE_IMAGE:-}" ] || options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST; do
    setting=$(tr A-Z_ a-z- <<<"${name#PIP_}")
    value=${!name:-$(python3 -m pip config get "global.$setting" 2>/dev/null || true)}
    [ -z "$value" ] || options+=(--build-arg "$name=$value")
done
case $engine in
    docker) build=(docker build) ;;
    podman) build=(podman build --layers) ;;
    buildah) build=(buildah bud --layers --isolation chroot --network host) ;;
esac
# Certificates that this machine trusts beyond the usual, such as those of a company's proxy; docker cannot mount them.
if [ "$engine" != docker ] && [ -f /etc/ssl/certs/ca-certificates.crt ] && [ ! -L /etc/ssl/certs/ca-certificates.crt ]; then
    options+=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)
fi

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' worker/pipelinejob/__init__.py)
tag=${TAG:-$version}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in worker operator gateway; do
    image=${REGISTRY:+${REGISTRY%/}/}pipelinejob-$target:$tag
    echo "image: building $image with $engine"
    if ! "${build[@]}" ${options[@]+"${options[@]}"} --label "org.opencontainers.image.version=$version" --target "$target" --tag "$image" . >"$log" 2>&1; then
        cat "$log" >&2
        echo "image: $engine could not build $image; its last words are above" >&2
        exit 1
    fi
    repository='{{.Repository}}'
    [ "$engine" != buildah ] || repository='{{.Name}}'
    "$engine" images --format "image: $repository:{{.Tag}}  {{.Size}}" "$image"
done
