#!/bin/sh
# Give the machine its name, and the name an address of its own so that it always resolves.
set -eu
name=$1

echo "$name" > /etc/hostname
hostname "$name"
sed -i '/^127\.0\.1\.1[[:space:]]/d' /etc/hosts
echo "127.0.1.1 $name" >> /etc/hosts
