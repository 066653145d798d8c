#!/bin/sh
# Installs the Debian packages that the tests need: the XMPP servers that mamlog is
# attached to, two XMPP libraries, a browser and a book for those with foreign
# clients, and a C compiler for the race detector. Does nothing where they are
# installed. Where this user may not install them it says which are missing and
# succeeds all the same: the tests that need them are skipped by name, or fail with
# CI set. The tests run servers of their own, so no service is started or left.
set -u
packages="python3-slixmpp python3-nbxmpp python3-gi bible-kjv bible-kjv-text"
packages="$packages prosody prosody-modules lua-posix lua-dbi-sqlite3 ejabberd erlang-p1-sqlite3 sqlite3 chromium libxml2-utils"
# Not the package where npm is there already: it may come with another Node.js.
command -v npm >/dev/null || packages="$packages npm"
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

# What asks whether it may start a service is told no (101), unless this machine
# has a policy of its own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' HUP INT TERM
fi
mappers=" $(pidof epmd 2>/dev/null) "

export DEBIAN_FRONTEND=noninteractive
# The lists may be absent or stale, so a first failure is worth an update.
apt-get install -y --no-install-recommends $missing ||
	{ apt-get update && apt-get install -y --no-install-recommends $missing; } ||
	echo "could not install$missing" >&2

for p in $missing; do
	case $p in prosody | ejabberd) [ ! -e "/etc/init.d/$p" ] || update-rc.d "$p" disable ;; esac
done
# ejabberd's installation talks to Erlang, which leaves a port mapper.
for pid in $(pidof epmd 2>/dev/null); do
	case $mappers in *" $pid "*) ;; *) kill "$pid" ;; esac
done
