#!/bin/sh
# Run a command on a host of its own as far as files go: enter.sh ROOT LAYERS COMMAND …
# Whatever is written below /etc, /var, /usr, /run, /srv and /tmp ends up in LAYERS; ROOT is shared.
set -e
root=$1 layers=$2
shift 2
mkdir -p "$layers/hold"
mount --bind "$root" /mnt
for directory in etc var usr run srv tmp; do
    mkdir -p "$layers/$directory/up" "$layers/$directory/work"
    mount -t overlay "canary-$directory" -o \
        "lowerdir=/$directory,upperdir=/mnt/${layers#"$root"/}/$directory/up,workdir=/mnt/${layers#"$root"/}/$directory/work" \
        "/$directory"
done
mkdir -p "$root"
mount --bind /mnt "$root"
umount /mnt
exec "$@"
