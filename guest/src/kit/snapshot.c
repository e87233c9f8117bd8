/* snapshot: a read-only snapshot of a btrfs volume, and the end of the oldest. They are numbered, because a machine's
 * clock may be wrong when it boots: MOUNTPOINT/.snapshots/000012-2026-03-01T120000Z. */
#include "block.h"
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>

#define BTRFS 0x9123683E
#define SUBVOLUME 256 /* inode of a subvolume's root */

static const char how[] = "snapshot [-keep N] [-folder NAME] MOUNTPOINT...";

/* The number that a snapshot's name begins with; 0: it is not one of ours. */
static unsigned long number_of(const char *name)
{
    size_t digits = strspn(name, "0123456789");
    return digits >= 6 && digits <= 9 && name[digits] == '-' ? strtoul(name, NULL, 10) : 0;
}

static int compare(const void *one, const void *other)
{
    unsigned long left = number_of(*(char *const *)one), right = number_of(*(char *const *)other);
    return left < right ? -1 : left > right;
}

static int remove_one(int folder, const char *name)
{
    struct btrfs_ioctl_vol_args args = {0};
    snprintf(args.name, sizeof(args.name), "%s", name);
    return ioctl(folder, BTRFS_IOC_SNAP_DESTROY, &args);
}

static int failed(const char *what)
{
    tell("%s: %s", what, strerror(errno));
    return 1;
}

static int snapshot(const char *volume, const char *name, unsigned long keep)
{
    struct statfs kind;
    struct stat info;
    struct btrfs_ioctl_vol_args_v2 args = {.flags = BTRFS_SUBVOL_RDONLY};
    scoped_free char *path = format("%s/%s", volume, name);
    scoped_fd source = open(volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (source < 0 || fstatfs(source, &kind) < 0 || fstat(source, &info) < 0)
        return failed(volume);
    if ((unsigned long)kind.f_type != BTRFS || info.st_ino != SUBVOLUME) {
        tell("%s is not a btrfs volume: there are no snapshots of it", volume);
        return 1;
    }
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return failed(path);
    scoped_fd folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return failed(path);
    size_t all, count = 0;
    char **names = list_names(path, &all);
    if (!names)
        return failed(path);
    for (size_t i = 0; i < all; i++) { /* ours to the front; what others put there stays */
        char *at = names[i];
        if (number_of(at)) {
            names[i] = names[count];
            names[count++] = at;
        }
    }
    qsort(names, count, sizeof(*names), compare);
    time_t seconds = time(NULL);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    args.fd = source;
    unsigned long next = count ? number_of(names[count - 1]) + 1 : 1;
    size_t length = (size_t)snprintf(args.name, sizeof(args.name), "%06lu-", next);
    strftime(args.name + length, sizeof(args.name) - length, "%Y-%m-%dT%H%M%SZ", &utc);
    int result = ioctl(folder, BTRFS_IOC_SNAP_CREATE_V2, &args) < 0 ? failed(path) : 0;
    if (!result)
        tell("%s/%s", path, args.name);
    /* Only behind a snapshot that was made: a disk that is full must not lose its old ones for nothing. */
    for (size_t i = 0; !result && i + keep < count + 1; i++)
        if (remove_one(folder, names[i]) < 0)
            result = failed(names[i]);
        else
            tell("%s/%s is removed", path, names[i]);
    free_names(names, all);
    return result;
}

int snapshot_main(int argc, char **argv)
{
    const char *keep = "5", *name = ".snapshots";
    const struct flag flags[] = {{.names = "keep", .text = &keep}, {.names = "folder", .text = &name}};
    size_t count;
    int result = 0;
    uint64_t number;
    program_is("snapshot", how);
    scoped_free const char **left = command_read(flags, COUNT(flags), argc, argv, &count);
    if (!number_parse(keep, 1, 1000, &number))
        usage("-keep is a number from 1 to 1000, not %s", keep);
    if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        usage("-folder is the name of a folder of the volume, not %s", name);
    if (!count)
        usage("which volume?");
    for (size_t i = 0; i < count; i++)
        result |= snapshot(left[i], name, number);
    return result;
}
