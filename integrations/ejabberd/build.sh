#!/bin/sh
# Compiles mod_mamlog against the installed ejabberd: build.sh DIRECTORY
set -eu
out=${1:?the directory for the beams is missing}
cd "$(dirname "$0")"
mkdir -p "$out"
set --
for dir in /usr/lib/*/ejabberd-*/include /usr/lib/erlang/lib/p1_xmpp-*/include \
    /opt/ejabberd-*/lib/*/include; do
    if [ -d "$dir" ]; then
        set -- "$@" -I "$dir" -pa "${dir%include}ebin"
    fi
done
if [ $# = 0 ]; then
    echo "ejabberd's include files are not where Debian or its own packages put them" >&2
    exit 1
fi
erlc "$@" -o "$out" src/*.erl
