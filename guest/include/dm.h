/* Device-mapper, by the kernel's own calls: linux/dm-ioctl.h. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* A device of one target. */
struct dm {
    const char *control;       /* NULL: /dev/mapper/control, which is made when it is not there */
    const char *name, *target; /* "root", "verity" */
    const char *table;         /* what the target is told */
    uint64_t sectors;          /* of 512 bytes */
    bool readonly, secret;     /* secret: the table has a key, which is wiped behind us */
};

/* Makes it and lets it work; `number` is its device number. 0, or -1 with errno, and in `failed` what did not work; then
 * nothing of it stays. EBUSY: the name is taken. */
int dm_open(const struct dm *wanted, uint64_t *number, const char **failed);
