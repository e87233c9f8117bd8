/* Lets go of everything below files, in rounds: a loop device is free when what is mounted from it is gone, and the
 * filesystem with its file after that. */
#include "shutdown.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/swap.h>

#define ROUNDS 16
#define DM_CONTROL "/dev/mapper/control"

/* What the kernel makes up, and our own: no data is in there, and the rest of the way needs some of them. */
static bool stays(const char *target, const char *type)
{
    static const char *const folders[] = {"/", "/proc", "/sys", "/dev", "/run", "/tmp", "/var", "/var/log", "/run/log"};
    static const char *const types[] = {"proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "securityfs", "debugfs",
                                        "tracefs", "configfs", "mqueue", "bpf", "pstore", "efivarfs", "nsfs"};
    for (size_t i = 0; i < COUNT(folders); i++)
        if (strcmp(target, folders[i]) == 0)
            return true;
    for (size_t i = 0; i < COUNT(types); i++)
        if (strcmp(type, types[i]) == 0)
            return true;
    return false;
}

/* Undoes \040 and the like, in place. */
static char *unescape(char *text)
{
    char *to = text;
    for (char *at = text; *at; at++) {
        bool octal = *at == '\\' && at[1] >= '0' && at[1] <= '3' && at[2] >= '0' && at[2] <= '7' && at[3] >= '0' && at[3] <= '7';
        *to++ = octal ? (char)((at[1] - '0') << 6 | (at[2] - '0') << 3 | (at[3] - '0')) : *at;
        at += octal ? 3 : 0;
    }
    *to = 0;
    return text;
}

static bool let_go_of(const char *target, const char *type, bool last)
{
    bool network = starts_with(type, "nfs") || !strcmp(type, "cifs") || !strcmp(type, "smb3") || !strcmp(type, "9p");
    bool stay = stays(target, type);
    if (!stay && umount2(target, network ? MNT_FORCE | MNT_DETACH : 0) == 0)
        return true;
    int error = errno;
    bool made_up = stay && strcmp(target, "/") != 0;
    if (last && !made_up && mount(NULL, target, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0 && errno != EINVAL && errno != EROFS &&
        strcmp(type, "tmpfs") && strcmp(type, "overlay"))
        say("%s stays mounted: %s", target, strerror(stay ? errno : error));
    return false;
}

/* Returns how many are gone. With `last`, the others become read-only. */
static unsigned unmount_round(bool last)
{
    scoped_free char *text = read_file("/proc/mounts", 16 << 20, NULL);
    char **lines = NULL;
    size_t count = 0;
    unsigned gone = 0;
    char *rest = text;
    for (char *line; text && (line = next_line(&rest));)
        *APPEND(lines, count) = line;
    while (count--) {
        char *save, *source = strtok_r(lines[count], " ", &save), *target = source ? strtok_r(NULL, " ", &save) : NULL;
        char *type = target ? strtok_r(NULL, " ", &save) : NULL;
        if (type)
            gone += let_go_of(unescape(target), type, last);
    }
    free(lines);
    return gone;
}

static unsigned swap_round(void)
{
    scoped_free char *text = read_file("/proc/swaps", 1 << 20, NULL);
    char *rest = text, *line = text ? next_line(&rest) : NULL; /* the heading */
    unsigned gone = 0;
    while (line && (line = next_line(&rest))) {
        line[strcspn(line, " \t")] = 0;
        gone += swapoff(unescape(line)) == 0;
    }
    return gone;
}

static bool loop_free(const char *name)
{
    scoped_free char *file = format("/sys/block/%s/loop/backing_file", name), *path = format("/dev/%s", name);
    if (!starts_with(name, "loop") || !exists(file))
        return false;
    scoped_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || ioctl(fd, LOOP_CLR_FD) < 0)
        return false;
    close(fd); /* a device that is open keeps its file until then */
    fd = -1;
    return !exists(file);
}

static bool mapper_free(const char *name)
{
    scoped_free char *path = format("/sys/block/%s/dm/name", name), *known = read_line(path);
    struct dm_ioctl request = {.version = {DM_VERSION_MAJOR, 0, 0}, .data_size = sizeof(request)};
    if (!known || strlen(known) >= sizeof(request.name))
        return false;
    memcpy(request.name, known, strlen(known));
    scoped_fd control = open(DM_CONTROL, O_RDWR | O_CLOEXEC);
    return control >= 0 && ioctl(control, DM_DEV_REMOVE, &request) == 0;
}

static unsigned device_round(void)
{
    size_t count;
    char **names = list_names("/sys/block", &count);
    unsigned gone = 0;
    for (size_t i = 0; i < count; i++)
        gone += loop_free(names[i]) || mapper_free(names[i]);
    if (names)
        free_names(names, count);
    return gone;
}

void teardown(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        unsigned gone = swap_round();
        gone += unmount_round(false);
        gone += device_round();
        if (!gone)
            break;
    }
    unmount_round(true);
}
