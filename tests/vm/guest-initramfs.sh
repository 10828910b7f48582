#!/bin/sh
# First process of the guest: loads the disk driver and starts the real root.
mount -t proc proc /proc
mount -t devtmpfs dev /dev
modprobe -qa virtio_pci virtio_blk # built in on some kernels
mount -t ext4 /dev/vda1 /root || poweroff -f
umount /proc
mount --move /dev /root/dev
exec switch_root /root /sbin/init
