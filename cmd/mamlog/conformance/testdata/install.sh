#!/bin/sh
# Installs the Debian packages that the tests with foreign clients need: two
# XMPP libraries and a book. Does nothing where they are installed, and fails
# where this user may not install them.
set -eu
packages="python3-slixmpp python3-nbxmpp python3-gi bible-kjv bible-kjv-text"
missing=""
for p in $packages; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "not root: cannot install$missing" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# The lists may be absent or stale, so a first failure is worth an update.
apt-get install -y --no-install-recommends $missing ||
	{ apt-get update && apt-get install -y --no-install-recommends $missing; }
