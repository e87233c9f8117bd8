/* The root trick and the early mounts. */
#include "setup.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#define RAMFS 0x858458f6UL
#define TMPFS 0x01021994UL
#define SAFE (MS_NODEV | MS_NOSUID | MS_NOEXEC)

static const struct early {
    const char *source, *target, *type;
    unsigned long flags;
    const char *data;
    bool optional; /* not every kernel or machine has it */
} early[] = {
    {"tmpfs", "/run", "tmpfs", SAFE | MS_RELATIME, "size=10%,mode=755", false},
    {"tmpfs", "/run/log", "tmpfs", SAFE | MS_RELATIME, "size=5%,mode=755", false}, /* logs never fill the rest of /run */
    {"tmpfs", "/tmp", "tmpfs", SAFE | MS_RELATIME, "size=10%,mode=1777", false},
    {"dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC | MS_RELATIME, "size=10m,nr_inodes=248418,mode=755", false},
    {"mqueue", "/dev/mqueue", "mqueue", SAFE, NULL, true},
    {"shm", "/dev/shm", "tmpfs", SAFE, "mode=1777", false},
    {"devpts", "/dev/pts", "devpts", MS_NOEXEC | MS_NOSUID, "gid=5,mode=0620", false},
    {"sysfs", "/sys", "sysfs", SAFE, NULL, false},
    {"securityfs", "/sys/kernel/security", "securityfs", SAFE, NULL, true},
    {"debugfs", "/sys/kernel/debug", "debugfs", SAFE, NULL, true},
    {"configfs", "/sys/kernel/config", "configfs", SAFE, NULL, true},
    {"fusectl", "/sys/fs/fuse/connections", "fusectl", SAFE, NULL, true},
    {"selinuxfs", "/sys/fs/selinux", "selinuxfs", MS_NOEXEC | MS_NOSUID, NULL, true},
    {"pstore", "/sys/fs/pstore", "pstore", SAFE, NULL, true},
    {"bpf", "/sys/fs/bpf", "bpf", MS_NODEV, NULL, true},
    {"efivarfs", "/sys/firmware/efi/efivars", "efivarfs", SAFE, NULL, true},
    {"binfmt_misc", "/proc/sys/fs/binfmt_misc", "binfmt_misc", SAFE, NULL, true},
};

void root_move(void)
{
    struct statfs info;
    if (statfs("/", &info) < 0 || ((unsigned long)info.f_type != RAMFS && (unsigned long)info.f_type != TMPFS))
        return;
    /* The first root of the kernel cannot be pivoted away from; a second mount of the same file system can. */
    static const char *const places[] = {"/mnt", "/run", "/tmp", "/var"};
    const char *place = "/run";
    for (size_t i = 0; i < COUNT(places); i++)
        if (exists(places[i])) {
            place = places[i];
            break;
        }
    mkdir(place, 0755);
    if (mount("/", place, NULL, MS_BIND, NULL) < 0 || chdir(place) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 ||
        chroot(".") < 0 || chdir("/") < 0)
        say("cannot move the root: %s", strerror(errno));
}

void root_protect(void)
{
    mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
}

/* Makes mount points while the root can still be written; on a read-only root they must be there. */
static void make_points(void)
{
    static const char *const points[] = {"/proc", "/sys", "/dev", "/run", "/tmp", "/var"};
    for (size_t i = 0; i < COUNT(points); i++)
        mkdir(points[i], 0755);
}

void mount_early(void)
{
    make_points();
    mount_kept("/var", SAFE | MS_RELATIME, "size=50%,mode=755"); /* while what is below it can still be moved */
    if (mount("proc", "/proc", "proc", SAFE | MS_RELATIME, NULL) < 0)
        say("mount /proc: %s", strerror(errno));
    root_protect();
    for (const struct early *m = early; m < early + COUNT(early); m++) {
        if (m->optional && starts_with(m->target, "/sys/") && !exists(m->target))
            continue;
        if (starts_with(m->target, "/dev/") || starts_with(m->target, "/run/"))
            mkdir(m->target, 0755);
        if (mount(m->source, m->target, m->type, m->flags, m->data) < 0 && !m->optional)
            say("mount %s: %s", m->target, strerror(errno));
    }
    make_dirs("/run/linuxkit", 0755);
}

void make_var(void)
{
    static const struct {
        const char *path;
        mode_t mode;
    } folders[] = {
        {"cache", 0755}, {"empty", 0555}, {"lib", 0755}, {"local", 0755}, {"lock", 0755},
        {"log", 0755},   {"opt", 0755},   {"spool", 0755}, {"tmp", 01777},
    };
    for (size_t i = 0; i < COUNT(folders); i++) {
        scoped_free char *path = format("/var/%s", folders[i].path);
        if (mkdir(path, folders[i].mode) == 0)
            chmod(path, folders[i].mode);
    }
    (void)!symlink("/run", "/var/run");
}

void make_device_links(void)
{
    static const struct {
        const char *path;
        unsigned major, minor;
        mode_t mode;
    } nodes[] = {
        {"/dev/console", 5, 1, 0600}, {"/dev/tty1", 4, 1, 0620}, {"/dev/tty", 5, 0, 0666},
        {"/dev/null", 1, 3, 0666},    {"/dev/kmsg", 1, 11, 0660},
    };
    for (size_t i = 0; i < COUNT(nodes); i++) {
        if (mknod(nodes[i].path, S_IFCHR | nodes[i].mode, makedev(nodes[i].major, nodes[i].minor)) == 0 ||
            errno == EEXIST)
            chmod(nodes[i].path, nodes[i].mode);
    }
    static const char *const links[][2] = {
        {"/proc/self/fd", "/dev/fd"},        {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"},
        {"/proc/self/fd/2", "/dev/stderr"}, {"/proc/kcore", "/dev/kcore"},
    };
    for (size_t i = 0; i < COUNT(links); i++)
        (void)!symlink(links[i][0], links[i][1]);
}

void link_ports(void)
{
    size_t count;
    char **ports = list_names("/sys/class/virtio-ports", &count);
    for (size_t i = 0; i < count; i++) {
        scoped_free char *file = format("/sys/class/virtio-ports/%s/name", ports[i]);
        scoped_free char *name = read_line(file);
        if (!name || !*name || strchr(name, '/') || *name == '.')
            continue;
        scoped_free char *link = format("/dev/virtio-ports/%s", name);
        scoped_free char *target = format("../%s", ports[i]);
        make_parents(link);
        (void)!symlink(target, link);
    }
    if (ports)
        free_names(ports, count);
}

/* cgroup v1: one hierarchy for each controller that the kernel has and enables, and systemd's named one. */
static void mount_cgroup_v1(void)
{
    mount("cgroup_root", "/sys/fs/cgroup", "tmpfs", SAFE, "mode=755,size=10m");
    scoped_free char *text = read_file("/proc/cgroups", 1 << 16, NULL);
    char *save;
    for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
        char name[64];
        int enabled = 0;
        if (sscanf(line, "%63s %*d %*d %d", name, &enabled) != 2 || !enabled || *name == '#')
            continue;
        scoped_free char *folder = format("/sys/fs/cgroup/%s", name);
        mkdir(folder, 0755);
        if (mount(name, folder, "cgroup", SAFE, name) < 0) {
            say("cgroup %s: %s", name, strerror(errno));
            rmdir(folder);
        }
    }
    write_file("/sys/fs/cgroup/memory/memory.use_hierarchy", "1");
    mkdir("/sys/fs/cgroup/systemd", 0755);
    mount("cgroup", "/sys/fs/cgroup/systemd", "cgroup", SAFE, "none,name=systemd");
}

void mount_cgroups(void)
{
    if (booted_with("linuxkit.unified_cgroup_hierarchy=0")) {
        mount_cgroup_v1();
        return;
    }
    if (mount("cgroup2", "/sys/fs/cgroup", "cgroup2", SAFE, "nsdelegate") < 0 &&
        mount("cgroup2", "/sys/fs/cgroup", "cgroup2", SAFE, NULL) < 0) {
        say("mount cgroup2: %s", strerror(errno));
        return;
    }
    /* Hand every controller on; one by one, for a kernel may refuse some. */
    scoped_free char *text = read_line("/sys/fs/cgroup/cgroup.controllers");
    char *save;
    for (char *name = text ? strtok_r(text, " ", &save) : NULL; name; name = strtok_r(NULL, " ", &save)) {
        scoped_free char *word = format("+%s", name);
        write_file("/sys/fs/cgroup/cgroup.subtree_control", word);
    }
}

void share_mounts(void)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL) < 0)
        say("make / shared: %s", strerror(errno));
}
