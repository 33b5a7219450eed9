#!/bin/sh
# Boots a systemd of its own as the host NAME: an overlay on this machine's files, in namespaces of its own.
# usage: boot.sh NAME DIR PACKAGES   (in the network namespace of the host)
# The folder PACKAGES is /srv/packages there.
set -eu
name=$1 dir=$2 packages=$3
mkdir -p "$dir/upper" "$dir/work" "$dir/root" "$dir/cgroup"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
mount -t cgroup2 cgroup2 "$dir/cgroup"
mkdir -p "$dir/cgroup/isthmus-install-$name"
echo $$ >"$dir/cgroup/isthmus-install-$name/cgroup.procs"
exec unshare --fork --kill-child --pid --mount --uts --ipc --cgroup --propagation private sh -eu -c '
	name=$1 root=$2 packages=$3
	mount -t proc proc "$root/proc"
	mount -t sysfs sysfs "$root/sys"
	mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
	for d in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$d"; done
	chmod 1777 "$root/tmp"
	for d in null zero full random urandom tty; do : >"$root/dev/$d"; mount --bind "/dev/$d" "$root/dev/$d"; done
	mkdir "$root/dev/shm" "$root/dev/pts"
	mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
	ln -s pts/ptmx "$root/dev/ptmx"
	mkdir -p "$root/srv/packages"
	mount --bind "$packages" "$root/srv/packages"
	cd "$root/etc/systemd/system"
	for u in systemd-udevd systemd-udev-trigger systemd-modules-load systemd-remount-fs systemd-sysctl systemd-random-seed \
		systemd-firstboot systemd-resolved systemd-timesyncd systemd-networkd systemd-binfmt e2scrub_reap; do
		ln -sfn /dev/null "$u.service"
	done
	for u in sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount \
		apt-daily.timer apt-daily-upgrade.timer; do ln -sfn /dev/null "$u"; done
	rm -rf "$root"/etc/systemd/system/*.target.wants
	printf "[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n" >host.target
	: >"$root/etc/fstab"
	tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
	echo "$name" >"$root/etc/hostname"
	mkdir -p "$root/.old"
	cd "$root"
	pivot_root . .old
	umount -l /.old
	mount --make-rshared /
	exec env -i container=isthmus PATH=/usr/sbin:/usr/bin:/sbin:/bin \
		/lib/systemd/systemd --unit=host.target --log-target=journal --show-status=no
' boot "$name" "$dir/root" "$packages"
