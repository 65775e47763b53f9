#!/bin/sh
# Process 1 of a test host, in fresh pid, mount, uts, ipc and network namespaces.
#   init.sh DISK NAME SSHD_AFTER_S
# DISK holds upper/ (what this host wrote: its disk) and work/ (overlayfs'). Waits for a line on stdin: the cable is in.
# SIGTERM is a clean shutdown; SIGKILL, from outside, a power cut.

mount_root() {
    mkdir -p "$1/root" &&
    mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root" &&
    cd "$1/root" &&
    mount -t proc proc proc &&
    { mount -t sysfs -o ro sysfs sys || mount --rbind /sys sys; } &&
    mount --rbind /dev dev &&
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts &&
    mount -t tmpfs tmpfs dev/shm &&
    mount -t tmpfs -o mode=0755 tmpfs run &&
    pivot_root . . && umount -l . && cd /
}

run_user_data() {
    [ -e /var/lib/user-data ] && [ ! -e /var/lib/user-data.started ] || return 0
    : > /var/lib/user-data.started
    (cd / && /var/lib/user-data > /var/log/user-data.log 2>&1; echo $? > /var/lib/user-data.exit) &
}

# As a machine does: everyone may end in peace, two seconds; what is left dies with process 1.
stop() {
    trap '' TERM
    kill -TERM -1
    tries=0
    while set -- /proc/[0-9]*; [ $# -gt 1 ] && [ $tries -lt 20 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    exit 0
}

main() {
    mount_root "$1" || exit 70
    hostname "$2" || exit 70
    [ -e /etc/meminfo ] && mount --bind /etc/meminfo /proc/meminfo
    mkdir -p /run/sshd /run/lock /run/user
    chmod 1777 /run/lock
    # Programs tell boots apart by this; the kernel's own is this machine's.
    cat /proc/sys/kernel/random/uuid > /run/boot_id
    mount --bind /run/boot_id /proc/sys/kernel/random/boot_id || exit 70
    read -r _ || exit 71
    exec < /dev/null > /var/log/console.log 2>&1
    trap stop TERM
    : > /run/test-host-is-up
    run_user_data
    [ -x /usr/sbin/cron ] && /usr/sbin/cron # its @reboot lines run now: /run is fresh
    (sleep "$3"; exec /usr/sbin/sshd -D -E /var/log/sshd.log) &
    # The shell reaps what is orphaned as long as it waits for a child of its own.
    while :; do
        sleep infinity &
        wait $!
    done
}

main "$@"
