#!/bin/sh
# Installs the Debian packages that the tests need: two XMPP libraries and a book
# for those with foreign clients, and a C compiler for the race detector. Does nothing where they are installed. Where this
# user may not install them it says which are missing and succeeds all the same:
# the tests that need them are skipped by name, or fail with CI set.
set -u
packages="python3-slixmpp python3-nbxmpp python3-gi bible-kjv bible-kjv-text"
missing=""
command -v "$(go env CC)" >/dev/null || packages="$packages gcc libc6-dev"
for p in $packages; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing, and only root may install them: apt-get install$missing" >&2
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# The lists may be absent or stale, so a first failure is worth an update.
apt-get install -y --no-install-recommends $missing ||
	{ apt-get update && apt-get install -y --no-install-recommends $missing; } ||
	echo "could not install$missing" >&2
