#!/bin/sh
# On the master: build the voice packages from the lab's twins and serve them, signed, over HTTP.
# The address they are served at is the master's second one; pillar names it.
set -eu
address=$1 packages=$2
home=/var/lib/voice-repository

export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --yes --no-install-recommends apt-utils gnupg python3-yaml rsync >/dev/null

# A copy, because the build writes beside the code it comes from.
install -d "$home/lab" /srv/guardian-outputs
rsync --archive --delete /srv/guardian/lab/ "$home/lab/"
cd "$home"
voice=$(python3 -c 'from lab.packages import repository; print(repository())')
device=$(ip -oneline -4 address show to "$address" | awk '{ print $2; exit }')

cat > /etc/systemd/system/voice-address.service <<UNIT
[Unit]
Description=The address the voice packages are served at
After=network-online.target
Wants=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/ip address replace $packages/32 dev $device
[Install]
WantedBy=multi-user.target
UNIT
cat > /etc/systemd/system/voice-repository.socket <<UNIT
[Unit]
Description=Where the voice packages are asked for
[Socket]
ListenStream=$packages:3142
FreeBind=yes
[Install]
WantedBy=sockets.target
UNIT
cat > /etc/systemd/system/voice-repository.service <<UNIT
[Unit]
Description=The voice packages
[Service]
WorkingDirectory=$home
DynamicUser=yes
CacheDirectory=voice-repository
ExecStart=/usr/bin/python3 -m lab.mirror serve 3 /var/cache/voice-repository $voice
UNIT
systemctl daemon-reload
systemctl enable --quiet --now voice-address.service voice-repository.socket
systemctl try-restart voice-repository.service
