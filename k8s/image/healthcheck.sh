#!/bin/sh
# Exit status 0 if the server takes connections. The answer itself is not looked at, so that a server which is
# busy loading is left alive.
port=${HEALTHCHECK_PORT:-6379}
# Errors of the protocol, passwords and TLS are the client's concern: a closed port is the only failure.
printf 'PING\r\n' | nc -q1 -w3 localhost "$port" >/dev/null
