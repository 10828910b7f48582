#!/bin/sh
# Runs in the guest: one captured tree, made of the load and a copy.
#   fixture.sh node systemd|cgroupfs
#   fixture.sh shapes
#   fixture.sh kinds
set -eu
sh load.sh "$@"
[ "$1" != node ] || sh load.sh last
sh capture.sh /out/tree
