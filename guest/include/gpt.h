/* GUID partition tables as they are read: UEFI 2.10, section 5.3. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gpt {
    unsigned sector;  /* bytes */
    uint64_t sectors; /* of the disk */
    unsigned char head[512];
    unsigned char *entries; /* as they lie on the disk, for free() */
    size_t entry_size, entries_size;
};

/* The table whose header is in sector `place`; sector and sectors are set by then. Frees an earlier one's entries. False:
 * there is none, or it is damaged. */
bool gpt_read(struct gpt *gpt, int fd, uint64_t place);
/* Entry `number`, from 1 on; NULL: it is not in use, or there is none. */
const unsigned char *gpt_entry(const struct gpt *gpt, size_t number);
size_t gpt_count(const struct gpt *gpt);
