/* Filesystems: made by Debian's programs, mounted by mount(2). */
#include "block.h"
#include "command.h"
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

int run(const char *const *argv)
{
    int status = spawn_wait(&(struct spawn){.argv = argv});
    if (status < 0) {
        tell("%s can't be started: %s", argv[0], strerror(errno));
        return -1;
    }
    return status_code(status);
}

struct maker {
    const char *type;
    size_t label_length;
    const char *const argv[8]; /* what goes before the label */
};

static const struct maker makers[] = {
    {"ext4", 16, {"/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-O", "resize_inode,64bit"}},
    {"btrfs", 255, {"/usr/sbin/mkfs.btrfs", "-q", "-f"}},
    {"xfs", 12, {"/usr/sbin/mkfs.xfs", "-q", "-f"}},
};

static const struct maker *maker_of(const char *type)
{
    for (size_t i = 0; i < COUNT(makers); i++)
        if (!strcmp(makers[i].type, type))
            return &makers[i];
    return NULL;
}

bool fs_known(const char *type)
{
    return maker_of(type) != NULL;
}

int fs_label_check(const char *type, const char *label, const char **reason)
{
    const struct maker *maker = maker_of(type);
    *reason = "it holds a / or a control character";
    for (const char *at = label; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 127 || *at == '/')
            return -1;
    *reason = !strcmp(type, "xfs")    ? "xfs takes 12 bytes at most"
              : !strcmp(type, "ext4") ? "ext4 takes 16 bytes at most"
                                      : "btrfs takes 255 bytes at most";
    return strlen(label) > maker->label_length ? -1 : 0;
}

int fs_make(const char *type, const char *label, const char *device)
{
    const struct maker *maker = maker_of(type);
    const char *argv[COUNT(maker->argv) + 4];
    size_t count = 0;
    for (size_t i = 0; i < COUNT(maker->argv) && maker->argv[i]; i++)
        argv[count++] = maker->argv[i];
    if (label && *label) {
        argv[count++] = "-L";
        argv[count++] = label;
    }
    argv[count++] = device;
    argv[count] = NULL;
    int status = run(argv);
    if (status != 0) {
        if (status > 0)
            tell("%s of %s failed with status %d", base_name(argv[0]), device, status);
        return -1;
    }
    scoped_fd fd = open(device, O_RDWR | O_CLOEXEC);
    return fd < 0 ? -1 : fsync(fd);
}

int fs_mount(const char *device, const char *folder, const char *type, unsigned long flags, const char *data)
{
    return mount(device, folder, type, flags, data);
}
