/* Partition tables: UEFI 2.10, section 5, and the MBR's signature. Only to give names to what the kernel found. */
#include "bootstage.h"
#include "util.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define MOST_TABLE (1 << 20) /* bytes of entries */
#define PROTECTIVE 0xEE

static uint32_t le32(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t le64(const unsigned char *at)
{
    return le32(at) | (uint64_t)le32(at + 4) << 32;
}

static uint32_t crc32_of(const unsigned char *bytes, size_t length)
{
    uint32_t crc = ~0U;
    while (length--) {
        crc ^= *bytes++;
        for (int i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320U : 0);
    }
    return ~crc;
}

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
    return record_read(record, fd, &protective) && !protective ? le32(record + 440) : 0;
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
        unsigned unit = at[2 * i] | (unsigned)at[2 * i + 1] << 8;
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

/* The table whose header is in sector `place`. False: it is damaged. */
static bool table_read(struct partition **found, size_t *count, int fd, unsigned sector, uint64_t place)
{
    unsigned char head[4096];
    if (read_at(fd, head, sector, place * sector) != sector || memcmp(head, "EFI PART", 8) || le64(head + 24) != place)
        return false;
    uint32_t length = le32(head + 12), crc = le32(head + 16);
    if (length < 92 || length > sector)
        return false;
    memset(head + 16, 0, 4);
    if (crc32_of(head, length) != crc)
        return false;
    uint32_t entries = le32(head + 80), size = le32(head + 84);
    if (!entries || size < 128 || size > 4096 || size % 8 || entries > MOST_TABLE / size)
        return false;
    size_t bytes = (size_t)entries * size;
    uint64_t start = le64(head + 72);
    if (start > INT64_MAX / sector - bytes)
        return false;
    scoped_free unsigned char *table = must_alloc(bytes);
    if (read_at(fd, table, bytes, start * sector) != bytes || crc32_of(table, bytes) != le32(head + 88))
        return false;
    static const unsigned char nothing[16];
    for (uint32_t i = 0; i < entries; i++) {
        const unsigned char *entry = table + (size_t)i * size;
        if (!memcmp(entry, nothing, 16))
            continue;
        struct partition *partition = APPEND(*found, *count);
        partition->number = i + 1;
        partition->first = le64(entry + 32);
        set_guid(partition->uuid, entry + 16);
        set_name(partition->label, entry + 56);
    }
    return true;
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
    if (!table_read(found, &count, fd, sector, 1))
        table_read(found, &count, fd, sector, size / sector - 1);
    return count;
}
