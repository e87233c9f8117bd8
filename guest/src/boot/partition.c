/* Partition tables: UEFI 2.10, section 5, and the MBR's signature, only to give names to what the kernel found. */
#include "bootstage.h"
#include "bytes.h"
#include "gpt.h"
#include "util.h"

#include <stdio.h>
#include <string.h>

#define PROTECTIVE 0xEE

/* The MBR. False: there is none. */
static bool record_read(unsigned char record[static 512], int fd, bool *protective)
{
    if (read_at(fd, record, 512, 0) != 512 || record[510] != 0x55 || record[511] != 0xAA)
        return false;
    *protective = false;
    for (int i = 0; i < 4; i++)
        *protective |= record[446 + 16 * i + 4] == PROTECTIVE;
    return true;
}

uint32_t mbr_signature(int fd)
{
    unsigned char record[512];
    bool protective;
    return record_read(record, fd, &protective) && !protective ? le32_at(record + 440) : 0;
}

static void set_guid(char text[static 40], const unsigned char *at)
{
    sprintf(text, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", at[3], at[2], at[1], at[0],
            at[5], at[4], at[7], at[6], at[8], at[9], at[10], at[11], at[12], at[13], at[14], at[15]);
}

/* 36 units of UTF-16 as UTF-8; halves of pairs become '?'. */
static void set_name(char text[static 112], const unsigned char *at)
{
    char *to = text;
    for (int i = 0; i < 36; i++) {
        unsigned unit = le16_at(at + 2 * i);
        if (!unit)
            break;
        if (unit >= 0xD800 && unit < 0xE000) {
            *to++ = '?';
        } else if (unit < 0x80) {
            *to++ = (char)unit;
        } else if (unit < 0x800) {
            *to++ = (char)(0xC0 | unit >> 6);
            *to++ = (char)(0x80 | (unit & 0x3F));
        } else {
            *to++ = (char)(0xE0 | unit >> 12);
            *to++ = (char)(0x80 | (unit >> 6 & 0x3F));
            *to++ = (char)(0x80 | (unit & 0x3F));
        }
    }
    *to = 0;
}

size_t partitions_read(struct partition **found, int fd, unsigned sector, uint64_t size)
{
    unsigned char record[512];
    bool protective;
    size_t count = 0;
    *found = NULL;
    if (sector < 512 || sector > 4096 || sector & (sector - 1) || size / sector < 4 ||
        !record_read(record, fd, &protective) || !protective)
        return 0;
    struct gpt gpt = {.sector = sector, .sectors = size / sector};
    if (!gpt_read(&gpt, fd, 1) && !gpt_read(&gpt, fd, gpt.sectors - 1))
        return 0;
    for (size_t i = 1; i <= gpt_count(&gpt); i++) {
        const unsigned char *entry = gpt_entry(&gpt, i);
        if (!entry)
            continue;
        struct partition *partition = APPEND(*found, count);
        partition->number = (unsigned)i;
        partition->first = le64_at(entry + 32);
        set_guid(partition->uuid, entry + 16);
        set_name(partition->label, entry + 56);
    }
    free(gpt.entries);
    return count;
}
