/* Devices before anybody reads them: is there a medium in the drive, and which of two that look the same is which? */
#include "bootstage.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/cdrom.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

/* A drive without a disc has a size nevertheless, and answers each read with an error after a while, on the console, too.
 * A card reader without a card has the size 0, which sysfs learns when somebody opens it. */
static bool is_empty(int fd)
{
    uint64_t size;
    int status = ioctl(fd, CDROM_DRIVE_STATUS, CDSL_CURRENT);
    return status == CDS_NO_DISC || status == CDS_TRAY_OPEN || status == CDS_DRIVE_NOT_READY ||
           (ioctl(fd, BLKGETSIZE64, &size) == 0 && size == 0);
}

int medium_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && is_empty(fd)) {
        close(fd);
        errno = ENOMEDIUM;
        return -1;
    }
    return fd;
}

bool device_nested(const char *sys, const char *one, const char *other)
{
    scoped_free char *below = format("%s/class/block/%s/%s/partition", sys, one, other);
    scoped_free char *above = format("%s/class/block/%s/%s/partition", sys, other, one);
    return exists(below) || exists(above);
}

void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 127)
            *text = '?';
}

char *device_serial(const char *sys, const char *name)
{
    static const char *const files[] = {"serial", "device/serial", "device/cid", "wwid", "device/wwid"};
    for (int level = 0; level < 2; level++) /* a partition's is its disk's */
        for (size_t i = 0; i < COUNT(files); i++) {
            scoped_free char *file = format("%s/class/block/%s/%s%s", sys, name, level ? "../" : "", files[i]);
            scoped_free char *text = read_line(file);
            char *start = text ? text + strspn(text, " ") : NULL;
            size_t length = start ? strlen(start) : 0;
            while (length && start[length - 1] == ' ')
                length--;
            if (!length)
                continue;
            char *serial = format("serial number %.*s", length > 60 ? 60 : (int)length, start);
            make_printable(serial);
            return serial;
        }
    return must_dup("no serial number");
}
