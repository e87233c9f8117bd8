/* A tmpfs in the place of a folder, with what the folder had: how /var becomes writable. */
#include "setup.h"
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
#define DEEPEST 64

static int copy_bytes(int from, int to)
{
    static char buffer[1 << 16];
    ssize_t got;
    while ((got = read(from, buffer, sizeof(buffer))) > 0)
        if (write_all(to, buffer, (size_t)got) < 0)
            return -1;
    return (int)got;
}

static int copy_file(int from, int to, const char *name)
{
    scoped_fd in = openat(from, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    scoped_fd out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return in < 0 || out < 0 ? -1 : copy_bytes(in, out);
}

static int copy_link(int from, int to, const char *name)
{
    char target[4096];
    ssize_t length = readlinkat(from, name, target, sizeof(target) - 1);
    if (length < 0)
        return -1;
    target[length] = 0;
    return symlinkat(target, to, name);
}

static int copy_folder(int from, int to, const char *name, bool move, int depth)
{
    if (mkdirat(to, name, 0700) < 0 && errno != EEXIST)
        return -1;
    scoped_fd in = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    scoped_fd out = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return in < 0 || out < 0 ? -1 : copy_tree(in, out, move, depth + 1);
}

static int copy_node(int from, int to, const char *name, bool move, int depth)
{
    struct stat info;
    if (fstatat(from, name, &info, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    int result = S_ISDIR(info.st_mode)   ? copy_folder(from, to, name, move, depth)
                 : S_ISREG(info.st_mode) ? copy_file(from, to, name)
                 : S_ISLNK(info.st_mode) ? copy_link(from, to, name)
                                         : mknodat(to, name, info.st_mode, info.st_rdev);
    if (fchownat(to, name, info.st_uid, info.st_gid, AT_SYMLINK_NOFOLLOW) < 0 && errno != EPERM)
        result = -1;
    if (!S_ISLNK(info.st_mode) && fchmodat(to, name, info.st_mode & 07777, 0) < 0)
        result = -1;
    const struct timespec times[2] = {info.st_atim, info.st_mtim};
    utimensat(to, name, times, AT_SYMLINK_NOFOLLOW);
    if (move && result == 0)
        unlinkat(from, name, S_ISDIR(info.st_mode) ? AT_REMOVEDIR : 0);
    return result;
}

int copy_tree(int from, int to, bool move, int depth)
{
    int fd = depth < DEEPEST ? openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    int result = 0, error = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (copy_node(from, to, entry->d_name, move, depth) < 0) {
            error = errno;
            result = -1; /* the others are wanted all the same */
        }
    }
    closedir(dir);
    errno = error;
    return result;
}

void mount_kept(const char *folder, unsigned long flags, const char *data)
{
    scoped_fd before = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct statfs info;
    if (mount("tmpfs", folder, "tmpfs", flags, data) < 0) {
        say("mount %s: %s", folder, strerror(errno));
        return;
    }
    scoped_fd after = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (before < 0 || after < 0 || fstatfs(before, &info) < 0)
        return;
    /* What came in an initramfs is in memory already: moved, it isn't there twice. */
    bool memory = (unsigned long)info.f_type == RAMFS || (unsigned long)info.f_type == TMPFS;
    if (copy_tree(before, after, memory, 0) < 0)
        say("%s: not all that the image has there could be copied: %s", folder, strerror(errno));
}
