/* dm-verity: Documentation/admin-guide/device-mapper/verity.rst. */
#include "bootstage.h"
#include "dm.h"
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#define NAME "root"

char *verity_table(const struct device *device, const struct verity *verity)
{
    /* hash format, data device, hash device, their block sizes, data blocks, first hash block, algorithm, root, salt */
    return format("1 %u:%u %u:%u %d %d %llu %llu sha256 %s %s", device->major, device->minor, device->major,
                  device->minor, HASH_BLOCK, HASH_BLOCK, (unsigned long long)verity->blocks,
                  (unsigned long long)verity->hash_start, verity->root_hash, verity->salt);
}

int verity_open(struct device *device, const struct verity *verity, char reason[static REASON_MAX])
{
    const char *failed;
    uint64_t number;
    if (verity->hash_start >= device->size / HASH_BLOCK) {
        snprintf(reason, REASON_MAX, "%s is too short for its hash tree: it was cut off", device->path);
        return -1;
    }
    scoped_free char *table = verity_table(device, verity);
    const struct dm wanted = {.name = NAME, .target = "verity", .table = table, .readonly = true,
                              .sectors = verity->blocks * (HASH_BLOCK / 512)};
    if (dm_open(&wanted, &number, &failed) < 0) {
        snprintf(reason, REASON_MAX, "dm-verity: %s: %s", failed, strerror(errno));
        return -1;
    }
    device->major = major(number);
    device->minor = minor(number);
    device->size = verity->blocks * HASH_BLOCK;
    snprintf(device->path, sizeof(device->path), "/dev/dm-%u", device->minor);
    return 0;
}
