#!/bin/sh
# Runs the server; arguments that begin with a dash are its flags, anything else is a command of its own.
set -e
case "${1-}" in
    '' | -*) set -- damselfly "$@" ;;
esac
# Files of the server are nobody else's business. A umask that somebody chose stays.
if [ "$(umask)" = 0022 ]; then
    umask 0077
fi
exec "$@"
