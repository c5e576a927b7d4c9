#!/bin/sh
# What some tests start beside Python packages: PostgreSQL, and Chromium with its driver. Debian's packages, as root;
# elsewhere nothing is installed, and the tests that need one say so.
set -eu

missing=""
{ command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 || missing="$missing postgresql"
command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || missing="$missing chromium"
command -v chromedriver >/dev/null 2>&1 || missing="$missing chromium-driver"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086 # a list of packages
  if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } >/tmp/test_services.log 2>&1; then
    echo "could not install$missing (see /tmp/test_services.log): tests that need them are skipped" >&2
  fi
else
  echo "not installed:$missing; tests that need them are skipped" >&2
fi
