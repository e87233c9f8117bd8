/* What PID 1 prepares before init.d: root, mounts, modules, network, identity. */
#pragma once

#include <stdbool.h>

const char *initramfs_lost(const char *root); /* why not all of it is there; NULL: it is */
void root_move(void);           /* initramfs: give `/` a mount of its own that can be pivoted away */
void root_protect(void);        /* remount read-only */
void mount_early(void);         /* /proc /run /tmp /var /dev /sys and what belongs to them */
void mount_cgroups(void);       /* v2, or v1 by linuxkit.unified_cgroup_hierarchy=0 */
void share_mounts(void);        /* rshared from / down */
void make_var(void);
void mount_kept(const char *folder, unsigned long flags, const char *data); /* a tmpfs with what the folder had */
int copy_tree(int from, int to, bool move, int depth); /* between open folders. 0, or -1 and errno: some of it */
void make_device_links(void);
void link_ports(void);          /* /dev/virtio-ports/NAME */
unsigned coldplug(void);        /* loads modules for what is there; returns how many */
void set_helpers(void);         /* programs that the kernel starts by itself */
bool helper_allowed(const char *program);
void set_clock(void);           /* from /dev/rtc0, when the kernel did not */
void loopback_up(void);
void set_limits(void);
void set_hostname(void);
void make_resolv_target(void);
