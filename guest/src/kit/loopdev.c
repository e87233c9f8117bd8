/* Loop devices: linux/loop.h. The driver is a module that comes when somebody opens one of its devices, so there has to
 * be a node before there is a device. */
#include "command.h"
#include "mapper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define LOOP_MAJOR 7
#define CONTROL_MAJOR 10
#define CONTROL_MINOR 237
#define TRIES 8 /* somebody else may take the free one first */

static int control_open(void)
{
    scoped_free char *path = format("%s/loop-control", where.dev);
    if (!exists(path))
        mknod(path, S_IFCHR | 0600, makedev(CONTROL_MAJOR, CONTROL_MINOR));
    return open(path, O_RDWR | O_CLOEXEC);
}

/* What is attached to a loop device: is it this file? */
static bool is_attached(int fd, const struct stat *file)
{
    struct loop_info64 info;
    return ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && info.lo_inode == file->st_ino && info.lo_device == file->st_dev;
}

/* The device's descriptor; or -1 with errno, EBUSY when it is taken. */
static int attach(const char *path, int file, const char *name, bool last_close)
{
    struct loop_config config = {.fd = (uint32_t)file, .info.lo_flags = last_close ? LO_FLAGS_AUTOCLEAR : 0};
    struct stat info;
    if (fstat(file, &info) < 0)
        return -1;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -1;
    snprintf((char *)config.info.lo_file_name, LO_NAME_SIZE, "%s", name);
    if (ioctl(fd, LOOP_CONFIGURE, &config) == 0)
        return fd;
    int error = errno;
    if (error == EBUSY && is_attached(fd, &info))
        return fd;
    close(fd);
    errno = error;
    return -1;
}

int loop_attach(struct disk *loop, const char *wanted, const char *file, bool last_close)
{
    scoped_fd inside = open(file, O_RDWR | O_CLOEXEC);
    if (inside < 0) {
        tell("%s: %s", file, strerror(errno));
        return -1;
    }
    scoped_fd control = control_open();
    for (int try = 0; try < TRIES; try++) {
        unsigned number;
        int end = 0;
        if (wanted && (sscanf(base_name(wanted), "loop%u%n", &number, &end) != 1 || base_name(wanted)[end])) {
            tell("%s is not a loop device's name, as /dev/loop0 is", wanted);
            return -1;
        }
        if (wanted && control >= 0) {
            ioctl(control, LOOP_CTL_ADD, number); /* it may be there */
        } else if (!wanted) {
            int given = control >= 0 ? ioctl(control, LOOP_CTL_GET_FREE) : -1;
            if (given < 0) {
                tell("no loop device: %s/loop-control: %s", where.dev, strerror(errno));
                return -1;
            }
            number = (unsigned)given;
        }
        scoped_free char *path = format("%s/loop%u", where.dev, number);
        if (!exists(path))
            mknod(path, S_IFBLK | 0600, makedev(LOOP_MAJOR, number));
        int fd = attach(path, inside, file, last_close);
        if (fd >= 0 && disk_at(loop, path, 1))
            return fd;
        if (fd >= 0) {
            tell("%s did not appear", path);
            close(fd);
            return -1;
        }
        if (errno == EBUSY && !wanted)
            continue;
        if (errno == EBUSY)
            tell("%s is in use", path);
        else
            tell("%s cannot be attached to %s: %s", file, path, strerror(errno));
        return -1;
    }
    tell("no loop device is free");
    return -1;
}
