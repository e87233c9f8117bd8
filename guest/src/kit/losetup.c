/* loopy: a file as a block device. */
#include "command.h"
#include "mapper.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static const char how[] = "loopy [-c] [-s MIB] [-d /dev/loopN] FILE";

/* A new file of that size, with room on the disk where the filesystem can promise it. 0, or -1 with errno. */
static int make(const char *path, uint64_t size)
{
    if (make_parents(path) < 0)
        return -1;
    scoped_fd fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    int error = ftruncate(fd, (off_t)size) < 0 ? errno : posix_fallocate(fd, 0, (off_t)size);
    if (error == EOPNOTSUPP || error == EINVAL)
        error = 0;
    if (error)
        unlink(path);
    errno = error;
    return error ? -1 : 0;
}

int losetup_main(int argc, char **argv)
{
    const char *size = "10", *device = "/dev/loop0";
    bool create = false;
    const struct flag flags[] = {
        {.names = "c create", .yes = &create},
        {.names = "s size", .text = &size},
        {.names = "d dev", .text = &device},
    };
    size_t count;
    uint64_t bytes;
    struct disk loop;
    struct stat info;
    program_is("losetup", how);
    scoped_free const char **left = command_read(flags, COUNT(flags), argc, argv, &count);
    if (count != 1)
        usage("one file, not %zu", count);
    if (!size_parse(size, MIB, &bytes) || !bytes)
        usage("-s is a number of MiB, not %s", size);
    if (stat(left[0], &info) < 0) {
        if (!create) {
            tell("%s: %s. -c makes it", left[0], strerror(errno));
            return 2;
        }
        if (make(left[0], bytes) < 0) {
            tell("%s cannot be made: %s", left[0], strerror(errno));
            return 1;
        }
    } else if (!S_ISREG(info.st_mode)) {
        tell("%s is not a file", left[0]);
        return 1;
    }
    if (loop_attach(&loop, device, left[0], false) < 0)
        return 1;
    tell("%s (%s) is %s", left[0], size_text(loop.size), loop.path);
    return 0;
}
