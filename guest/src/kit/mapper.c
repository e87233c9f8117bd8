/* dm-crypt: Documentation/admin-guide/device-mapper/dm-crypt.rst. */
#include "mapper.h"
#include "command.h"
#include "dm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define CIPHER "aes-cbc-essiv:sha256"

int crypt_open(char path[static 300], const char *name, const struct disk *below, const unsigned char key[static 32])
{
    char hex[65], table[256];
    const char *failed;
    uint64_t number;
    for (int i = 0; i < 32; i++)
        sprintf(hex + 2 * i, "%02x", key[i]);
    snprintf(table, sizeof(table), CIPHER " %s 0 %u:%u 0", hex, below->major, below->minor);
    scoped_free char *control = format("%s/mapper/control", where.dev);
    const struct dm wanted = {.control = control, .name = name, .target = "crypt", .table = table, .secret = true,
                              .sectors = below->size / 512};
    int result = dm_open(&wanted, &number, &failed);
    explicit_bzero(hex, sizeof(hex));
    explicit_bzero(table, sizeof(table));
    if (result < 0) {
        tell("/dev/mapper/%s: %s: %s", name, failed, errno == EBUSY ? "it is there already" : strerror(errno));
        return -1;
    }
    snprintf(path, 300, "%s/mapper/%s", where.dev, name);
    unlink(path);
    if (mknod(path, S_IFBLK | 0600, makedev(major(number), minor(number))) < 0) {
        tell("%s: %s", path, strerror(errno));
        return -1;
    }
    return 0;
}
