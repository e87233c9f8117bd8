/* From the initramfs to the root. */
#include "bootstage.h"
#include "util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define RAMFS 0x858458f6UL
#define TMPFS 0x01021994UL

/* Deletes what is below a folder on the same filesystem. Takes the descriptor. */
static void empty(int folder, dev_t device)
{
    DIR *dir = fdopendir(folder);
    if (!dir) {
        close(folder);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat info;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
            fstatat(folder, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) < 0 || info.st_dev != device)
            continue;
        if (!S_ISDIR(info.st_mode)) {
            unlinkat(folder, entry->d_name, 0);
            continue;
        }
        int below = openat(folder, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0)
            empty(below, device);
        unlinkat(folder, entry->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

int switch_root(const char *folder)
{
    struct stat here, there;
    struct statfs info;
    /* Nothing is deleted but an initramfs, and only with something to go to. */
    if (stat("/", &here) < 0 || stat(folder, &there) < 0 || statfs("/", &info) < 0)
        return -1;
    if (here.st_dev == there.st_dev || ((unsigned long)info.f_type != RAMFS && (unsigned long)info.f_type != TMPFS)) {
        errno = EINVAL;
        return -1;
    }
    /* The kernel hands over a root with nothing mounted in it, and so do we: by /proc, an init sees a container. */
    static const char *const mounts[] = {"/dev", "/sys", "/proc"};
    for (size_t i = 0; i < COUNT(mounts); i++)
        umount2(mounts[i], MNT_DETACH);
    int old = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (old < 0 || chdir(folder) < 0)
        return -1;
    empty(old, here.st_dev);
    return mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0 ? -1 : 0;
}
