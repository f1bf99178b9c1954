#!/usr/bin/env bash
# Install what the project needs from the system on Debian and Ubuntu: git, make, and a Python that can make virtual environments.
# Nothing missing: nothing is done and root is not needed. Safe to run again.
#   system-packages.sh cluster    also a browser for the tests of the pages, and what the tests' cluster is built and run with where
#                                 neither Docker nor Podman is; Go is not among it
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

has_python() { scripts/find-python.sh >/dev/null 2>&1; }

# The newest Python here that lacks only its venv package, else the distribution's own.
python_packages() {
    local version
    for version in 3.13 3.12 3.11; do
        if [ -x "/usr/bin/python$version" ]; then
            echo "python$version-venv"
            return
        fi
    done
    if apt-cache depends python3 2>/dev/null | grep -qE ' python3\.(9|10)$'; then
        echo python3.11 python3.11-venv # an older distribution; 3.11 stands beside its own
    else
        echo python3 python3-venv
    fi
}

has_engine() { timeout 20 docker info >/dev/null 2>&1 || timeout 20 podman info >/dev/null 2>&1; }

has_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

cluster=()
if [ "${1:-}" = cluster ] && ! has_browser >/dev/null && grep -qs '^ID=debian' /etc/os-release; then # Ubuntu's is a snap
    cluster+=(chromium)
fi
if [ "${1:-}" = cluster ] && ! has_engine; then
    for package in containernetworking-plugins libseccomp-dev pkg-config gcc libc6-dev buildah debootstrap nftables iproute2 openssl; do
        dpkg -s "$package" >/dev/null 2>&1 || cluster+=("$package")
    done
fi

missing=(${cluster[@]+"${cluster[@]}"})
for tool in git make; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
has_python || missing+=(python)

if [ ${#missing[@]} -eq 0 ]; then
    echo "system-packages: nothing to install"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "system-packages: missing: ${missing[*]} (python: 3.11 to 3.14 with venv). This is not Debian or Ubuntu: please install them." >&2
    exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        read -ra python <<<"$(python_packages)"
        packages=("${missing[@]/%python/${python[*]}}")
        echo "system-packages: missing: ${missing[*]}. Run as root: apt-get update && apt-get install -y ${packages[*]}" >&2
        exit 1
    fi
fi

apt_get() { ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@"; }

echo "system-packages: installing what is missing: ${missing[*]}"
apt_get update
packages=()
for name in "${missing[@]}"; do
    if [ "$name" = python ]; then
        read -ra python <<<"$(python_packages)"
        packages+=("${python[@]}")
    else
        packages+=("$name")
    fi
done
apt_get install -y --no-install-recommends "${packages[@]}" >/dev/null
scripts/find-python.sh >/dev/null
echo "system-packages: installed ${packages[*]}"
