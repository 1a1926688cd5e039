#!/usr/bin/env bash
# Installs what some tests run against: Prometheus (with promtool), Chromium, Node.js, Mosquitto and Fashion-MNIST, all Debian packages.
# Does nothing for what is there already. Without root it says what to install and leaves the rest to the tests:
# on a person's machine they skip with a reason, in CI they fail.
set -euo pipefail

missing=()
command -v promtool >/dev/null || missing+=(prometheus)
command -v chromium >/dev/null || missing+=(chromium)
command -v npm >/dev/null || missing+=(nodejs npm)
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
[ -d /usr/share/datasets/fashion-mnist ] || missing+=(dataset-fashion-mnist)
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Not installed: ${missing[*]}. As root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 0
fi

echo "==> Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# The packages of Prometheus and Mosquitto would start servers of their own; the tests start theirs.
apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
