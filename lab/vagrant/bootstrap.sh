#!/bin/sh
# Install and configure Salt as Vagrant's provisioner asks: the options are salt-bootstrap's.
#
# A box that brings Salt along is only configured, so that it needs no network. On any other the
# project's own salt-bootstrap does everything.
set -eu

BOOTSTRAP=https://github.com/saltstack/salt-bootstrap/releases/latest/download/bootstrap-salt.sh
BAKED=/opt/salt/bin

if [ ! -x "$BAKED/salt-call" ]; then
    downloaded=$(mktemp)
    /usr/lib/apt/apt-helper download-file "$BOOTSTRAP" "$downloaded"
    sh "$downloaded" "$@"
    rm -f "$downloaded"
    # The schema check of pillar needs one package that Salt's own Python does not bring.
    if [ -x /usr/bin/salt-master ]; then
        salt-pip install --quiet 'jsonschema>=4.20'
        # External pillars use the package beside them.
        site=$(/opt/saltstack/salt/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        echo /srv/guardian > "$site/guardian.pth"
        systemctl restart salt-master
    fi
    exit 0
fi

config_dir='' seed_dir='' minion_json='' master='' minion=yes
while getopts 'FCMNSc:k:j:J:x:' option; do
    case $option in
        c) config_dir=$OPTARG ;;
        k) seed_dir=$OPTARG ;;
        j) minion_json=$OPTARG ;;
        M) master=yes ;;
        N) minion='' ;;
        F | C) ;; # files are always replaced, and there is nothing but configuration to do
        *) echo "bootstrap: option -$option is not for a box with Salt in it" >&2; exit 2 ;;
    esac
done

if [ -n "$master" ]; then
    install -d -m 0755 /etc/salt
    install -d -m 0700 /etc/salt/pki/master /etc/salt/pki/master/minions
    install -m 0640 "$config_dir/master" /etc/salt/master
    [ -z "$seed_dir" ] || install -m 0644 "$seed_dir"/* /etc/salt/pki/master/minions/
    systemctl enable --quiet --now salt-master
fi
if [ -n "$minion" ]; then
    install -d -m 0700 /etc/salt/pki/minion
    install -m 0400 "$config_dir/minion.pem" /etc/salt/pki/minion/minion.pem
    install -m 0644 "$config_dir/minion.pub" /etc/salt/pki/minion/minion.pub
    printf '%s\n' "$minion_json" > /etc/salt/minion
    systemctl enable --quiet --now salt-minion
fi
