/* swap: a swap file, encrypted with a key that nobody knows when asked to. Its header is that of mkswap:
 *
 *     1024   version (1), last page, bad pages (0), UUID, label        4086 (of a page of 4096)   SWAPSPACE2 */
#define _GNU_SOURCE
#include "command.h"
#include "mapper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/swap.h>

#define BTRFS 0x9123683E
#define CRYPT "swapfile"

static const char how[] = "swap.sh --path FILE --size SIZE [--encrypt] [--debug] [--condition part:PATH[:true]] "
                          "[--condition partsize:PATH:SIZE[:true]]";

/* The device that is mounted at a folder. False: none, or it isn't a block device's. */
static bool mounted_at(struct disk *disk, const char *folder)
{
    scoped_free char *text = read_file("/proc/self/mountinfo", 1 << 20, NULL);
    char source[300] = "", *rest = text;
    for (char *line; text && (line = next_line(&rest));) {
        char at[4096];
        const char *behind = strstr(line, " - ");
        if (behind && sscanf(line, "%*s %*s %*s %*s %4095s", at) == 1 && !strcmp(at, folder) &&
            sscanf(behind, " - %*s %299s", source) != 1)
            *source = 0;
    }
    return starts_with(source, "/dev/") && disk_at(disk, source, 0);
}

/* part:PATH[:REQUIRED] or partsize:PATH:SIZE[:REQUIRED]. -1: it holds; else what to exit with. */
static int condition(const char *text)
{
    scoped_free char *copy = must_dup(text);
    char *rest, *kind = strtok_r(copy, ":", &rest), *path = strtok_r(NULL, ":", &rest);
    bool sized = kind && !strcmp(kind, "partsize");
    char *size = sized ? strtok_r(NULL, ":", &rest) : NULL, *required = strtok_r(NULL, ":", &rest);
    uint64_t least = 0;
    struct disk disk;
    if (!kind || (strcmp(kind, "part") && !sized) || !path || *path != '/' || (sized && !size) ||
        (size && !size_parse(size, 1, &least)) || (required && strcmp(required, "true") && strcmp(required, "false")) ||
        strtok_r(NULL, ":", &rest))
        usage("--condition is part:PATH[:true] or partsize:PATH:SIZE[:true], not %s", text);
    int status = required && !strcmp(required, "true");
    if (!mounted_at(&disk, path)) {
        tell("no swap: no disk is mounted at %s", path);
        return status;
    }
    if (disk.size < least) {
        scoped_free char *want = must_dup(size_text(least));
        tell("no swap: the disk at %s has %s, and %s are wanted", path, size_text(disk.size), want);
        return status;
    }
    return -1;
}

static int fill(int fd, uint64_t size)
{
    scoped_free char *zeros = must_alloc(MIB);
    for (uint64_t at = 0; at < size; at += MIB)
        if (write_at(fd, zeros, size - at < MIB ? (size_t)(size - at) : MIB, at) < 0)
            return -1;
    return 0;
}

/* A file without holes. 0, or -1 after a message. */
static int make_file(const char *path, uint64_t size)
{
    struct stat info;
    struct statfs disk;
    if (lstat(path, &info) == 0 && S_ISREG(info.st_mode) && (uint64_t)info.st_size == size &&
        (uint64_t)info.st_blocks * 512 >= size)
        return chmod(path, 0600);
    if (make_parents(path) < 0 || (unlink(path) < 0 && errno != ENOENT)) {
        tell("%s: %s", path, strerror(errno));
        return -1;
    }
    scoped_fd fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || fstatfs(fd, &disk) < 0) {
        tell("%s: %s", path, strerror(errno));
        return -1;
    }
    uint64_t room = (uint64_t)disk.f_bavail * (uint64_t)disk.f_bsize;
    if (room < size) {
        scoped_free char *want = must_dup(size_text(size));
        tell("%s: %s are wanted, and %s are free", path, want, size_text(room));
        unlink(path);
        return -1;
    }
    if (disk.f_type == BTRFS) { /* no copies on write: the kernel writes to the blocks themselves */
        int flags = FS_NOCOW_FL;
        ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
    if (fallocate(fd, 0, 0, (off_t)size) < 0 && (errno != EOPNOTSUPP || fill(fd, size) < 0)) {
        tell("%s: %s", path, strerror(errno));
        unlink(path);
        return -1;
    }
    return fsync(fd);
}

static int make_swap(const char *path, uint64_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    scoped_free unsigned char *head = must_alloc(page);
    if (size / page < 10 || size / page - 1 > UINT32_MAX) {
        errno = EINVAL;
        return -1;
    }
    put_le32(head + 1024, 1);
    put_le32(head + 1028, (uint32_t)(size / page - 1));
    if (getrandom(head + 1036, 16, 0) != 16)
        return -1;
    memcpy(head + page - 10, "SWAPSPACE2", 10);
    scoped_fd fd = open(path, O_RDWR | O_CLOEXEC);
    return fd < 0 || write_at(fd, head, page, 0) < 0 ? -1 : fsync(fd);
}

static int turn_on(const char *file, uint64_t size, bool encrypt)
{
    char path[300];
    scoped_fd held = -1; /* without it the loop device would go before anybody is on it */
    if (encrypt && exists("/dev/mapper/" CRYPT)) {
        tell("/dev/mapper/" CRYPT " is there already");
        return 0;
    }
    if (encrypt) {
        struct disk loop;
        unsigned char key[32];
        held = loop_attach(&loop, NULL, file, true);
        if (held < 0 || getrandom(key, sizeof(key), 0) != sizeof(key))
            return 1;
        int result = crypt_open(path, CRYPT, &loop, key);
        explicit_bzero(key, sizeof(key));
        if (result < 0)
            return 1;
        file = path;
    }
    if (make_swap(file, size) < 0) {
        if (errno == ETXTBSY) {
            tell("%s is in use already", file);
            return 0;
        }
        tell("%s: %s", file, strerror(errno));
        return 1;
    }
    if (swapon(file, 0) < 0) {
        tell("%s: swapon: %s%s", file, strerror(errno),
             errno == EINVAL ? ". A swap file has to be on a disk: mount one first" : "");
        return 1;
    }
    tell("%s of swap at %s%s", size_text(size), file, encrypt ? ", encrypted" : "");
    return 0;
}

int swap_main(int argc, char **argv)
{
    const char *path = NULL, *size = NULL;
    scoped_free const char **conditions = NULL;
    size_t condition_count = 0, count;
    bool encrypt = false, debug = false;
    uint64_t bytes;
    const struct flag flags[] = {
        {.names = "path", .text = &path},
        {.names = "size", .text = &size},
        {.names = "encrypt", .yes = &encrypt},
        {.names = "debug", .yes = &debug},
        {.names = "condition", .list = &conditions, .count = &condition_count},
    };
    program_is("swap", how);
    scoped_free const char **left = command_read(flags, COUNT(flags), argc, argv, &count);
    if (count)
        usage("%s: there is nothing to say without an option", left[0]);
    if (!path || !size)
        usage("--path and --size are needed");
    if (!starts_with(path, "/var/") || strstr(path, "/../") || ends_with(path, "/"))
        usage("--path is a file below /var/, not %s", path);
    if (!size_parse(size, 1, &bytes) || bytes < MIB)
        usage("--size is a number with K, M or G, from 1M on, not %s", size);
    for (size_t i = 0; i < condition_count; i++) {
        if (debug)
            tell("condition %s", conditions[i]);
        int status = condition(conditions[i]);
        if (status >= 0)
            return status;
    }
    if (debug)
        tell("%s: %llu bytes", path, (unsigned long long)bytes);
    return make_file(path, bytes) < 0 ? 1 : turn_on(path, bytes / 4096 * 4096, encrypt);
}
