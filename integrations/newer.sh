#!/bin/sh
# newer.sh SUITE...: runs the tests of this directory with the Prosody and ejabberd of
# other suites of Debian than this machine's, one after the other: trixie, or
# trixie-backports. For each a root is made, out of packages, and laid over /usr in a
# mount namespace of the tests' own, so that they find everything where Debian has it.
# Of this machine nothing changes but that mmdebstrap is installed. Needs root. NEWER_ROOTS
# is the full path of a directory in which roots are kept and found again; TESTFLAGS are of the tests, as "-test.run TestFaults".
set -eu
cd "$(dirname "$0")"
mirror=http://deb.debian.org/debian

command -v mmdebstrap >/dev/null || apt-get install -y --no-install-recommends mmdebstrap ||
	{ apt-get update && apt-get install -y --no-install-recommends mmdebstrap; }
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$temporary" # apt drops its privileges
roots=${NEWER_ROOTS:-$temporary}
export MAMLOG_BIN="$temporary/mamlog"
go build -o "$MAMLOG_BIN" ../cmd/mamlog
go test -c -o "$temporary/integrations.test" .

status=0
for suite; do
	root=$roots/$suite
	if [ ! -e "$root/complete" ]; then
		sources="deb $mirror ${suite%-backports} main"
		case $suite in *-backports) sources="$sources
deb $mirror $suite main" ;; esac
		# With that suite as the default, what the servers need comes from it too.
		mmdebstrap --quiet --mode=root --variant=essential --aptopt="APT::Default-Release \"$suite\"" \
			--include="prosody,prosody-modules,ejabberd,lua-posix,lua-dbi-sqlite3,erlang-p1-sqlite3,sqlite3" \
			"${suite%-backports}" "$root" "$sources"
		touch "$root/complete"
	fi
	echo "$suite:" $(chroot "$root" dpkg-query -W -f '${Package} ${Version}\n' prosody ejabberd)
	unshare --mount --propagation private sh -ec '
		root=$0
		for path in var/lib/dpkg etc/alternatives etc/ld.so.cache usr; do mount --bind "$root/$path" "/$path"; done
		exec "$@"' "$root" "$temporary/integrations.test" -test.timeout 15m ${TESTFLAGS:-} || status=1
done
exit $status
