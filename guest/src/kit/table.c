/* Partition tables, made, grown and written: the MBR, and UEFI 2.10, section 5.
 *
 *     sector 0      MBR: code, signature at 440, four entries of 16 bytes at 446, 55 AA
 *     1             GPT header: CRC, where it lies and its twin, the usable sectors, the disk's GUID, the entries' CRC
 *     2 ... 33      128 entries of 128 bytes: type, GUID, first and last sector, flags, name
 *     ...           the same entries at the disk's end, and the twin of the header in its last sector
 *
 * While a disk is being formatted its table carries a mark: the MBR's signature "LKFM", or the GPT partition's name.
 * Who finds that later knows that nothing of value is behind it. */
#include "block.h"
#include "bootstage.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define ENTRIES 128
#define ENTRY 128
#define PROTECTIVE 0xEE
#define LINUX 0x83
#define MARK 0x4D464B4CU /* "LKFM" */

static const unsigned char linux_guid[16] = {0xAF, 0x3D, 0xC6, 0x0F, 0x83, 0x84, 0x72, 0x47,
                                             0x8E, 0x79, 0x3D, 0x69, 0xD8, 0x47, 0x7D, 0xE4};
static const char mark_name[] = "linuxkit-unfinished", final_name[] = "data";

void table_free(struct table *table)
{
    free(table->slots);
    free(table->gpt.entries);
    table->slots = NULL;
    table->gpt.entries = NULL;
    table->count = 0;
}

static void add_slot(struct table *table, unsigned number, uint64_t first, uint64_t last, bool linux_type)
{
    *APPEND(table->slots, table->count) =
        (struct slot){.number = number, .first = first, .last = last, .linux_type = linux_type};
}

/* -- reading */

static bool name_is(const unsigned char *entry, const char *name)
{
    for (size_t i = 0; i < 36; i++) {
        if (le16_at(entry + 56 + 2 * i) != (unsigned char)*name)
            return false;
        if (!*name++)
            return true;
    }
    return false;
}

/* Do the slots lie on the disk, one behind the other? Nothing is written into a table where they don't. */
static bool slots_make_sense(const struct table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct slot *one = &table->slots[i];
        if (!one->first || one->first > one->last || one->last >= table->sectors)
            return false;
        for (size_t j = 0; j < i; j++)
            if (one->first <= table->slots[j].last && table->slots[j].first <= one->last)
                return false;
    }
    return true;
}

static void gpt_slots(struct table *table)
{
    for (size_t i = 1; i <= gpt_count(&table->gpt); i++) {
        const unsigned char *entry = gpt_entry(&table->gpt, i);
        if (!entry)
            continue;
        add_slot(table, (unsigned)i, le64_at(entry + 32), le64_at(entry + 40), !memcmp(entry, linux_guid, 16));
        table->unfinished |= name_is(entry, mark_name);
    }
    table->unfinished &= table->count == 1;
}

void table_read(struct table *table, int fd, unsigned sector, uint64_t size)
{
    *table = (struct table){.sector = sector >= 512 && sector <= 4096 && !(sector & (sector - 1)) ? sector : 512};
    table->sectors = size / table->sector;
    table->gpt = (struct gpt){.sector = table->sector, .sectors = table->sectors};
    unsigned char *record = table->record;
    bool signed_ = read_at(fd, record, 512, 0) == 512 && record[510] == 0x55 && record[511] == 0xAA;
    bool protective = false, any = false, good = signed_;
    for (const unsigned char *at = record + 446; signed_ && at < record + 510; at += 16) {
        protective |= at[4] == PROTECTIVE;
        any |= at[4] != 0;
        good &= !(at[0] & 0x7F); /* a boot sector's code ends here, too */
    }
    if (protective || !signed_) {
        /* Even without an MBR a GPT may be there: whoever made it wants it back. */
        if (table->sectors > 4 && (gpt_read(&table->gpt, fd, 1) || gpt_read(&table->gpt, fd, table->sectors - 1))) {
            table->kind = protective ? TABLE_GPT : TABLE_DAMAGED;
            gpt_slots(table);
        } else if (protective) {
            table->kind = TABLE_DAMAGED;
        }
    } else if (good) {
        table->kind = TABLE_DOS;
        for (unsigned i = 0; any && i < 4; i++) {
            const unsigned char *at = record + 446 + 16 * i;
            uint64_t first = le32_at(at + 8), sectors = le32_at(at + 12);
            if (at[4])
                add_slot(table, i + 1, first, sectors ? first + sectors - 1 : 0, at[4] == LINUX);
        }
        table->unfinished = table->count == 1 && le32_at(record + 440) == MARK;
    }
    if (table->kind != TABLE_NONE && !slots_make_sense(table))
        table->kind = TABLE_DAMAGED;
    table->unfinished &= table->kind == TABLE_DOS || table->kind == TABLE_GPT;
}

/* -- making */

static void random_bytes(unsigned char *to, size_t length)
{
    while (getrandom(to, length, 0) != (ssize_t)length)
        ;
}

static void random_guid(unsigned char to[static 16])
{
    random_bytes(to, 16);
    to[7] = (unsigned char)((to[7] & 0x0F) | 0x40); /* version 4 */
    to[8] = (unsigned char)((to[8] & 0x3F) | 0x80);
}

static void set_record(struct table *table, unsigned type, uint64_t first, uint64_t last)
{
    /* Cylinders and heads have not meant anything for long: what they say when they can't say it. */
    static const unsigned char far[3] = {0xFE, 0xFF, 0xFF};
    unsigned char *at = table->record + 446;
    uint64_t sectors = last - first + 1;
    memset(table->record, 0, sizeof(table->record));
    memcpy(at + 1, first == 1 ? (const unsigned char[]){0, 2, 0} : far, 3);
    at[4] = (unsigned char)type;
    memcpy(at + 5, far, 3);
    put_le32(at + 8, (uint32_t)first);
    put_le32(at + 12, sectors > UINT32_MAX ? UINT32_MAX : (uint32_t)sectors);
    table->record[510] = 0x55;
    table->record[511] = 0xAA;
}

static uint64_t entry_sectors(const struct table *table)
{
    return (table->gpt.entries_size + table->sector - 1) / table->sector;
}

/* The last sector before the twin of the entries. */
static uint64_t last_usable(const struct table *table)
{
    return table->sectors - 2 - entry_sectors(table);
}

static void set_gpt(struct table *table, uint64_t first, uint64_t last)
{
    unsigned char *head = table->gpt.head, *entry;
    table->gpt.entry_size = ENTRY;
    table->gpt.entries_size = ENTRIES * ENTRY;
    table->gpt.entries = must_alloc(table->gpt.entries_size);
    memcpy(head, "EFI PART\0\0\1", 12);
    put_le32(head + 12, 92);
    put_le64(head + 40, 2 + entry_sectors(table));
    random_guid(head + 56);
    put_le32(head + 80, ENTRIES);
    put_le32(head + 84, ENTRY);
    entry = table->gpt.entries;
    memcpy(entry, linux_guid, 16);
    random_guid(entry + 16);
    put_le64(entry + 32, first);
    put_le64(entry + 40, last);
}

int table_make(struct table *table, enum table_kind kind, unsigned sector, uint64_t size, const char **reason)
{
    *table = (struct table){.kind = kind, .sector = sector, .sectors = size / sector};
    table->gpt = (struct gpt){.sector = sector, .sectors = table->sectors};
    uint64_t first = MIB / sector, end = size / MIB * MIB / sector; /* whole MiB */
    if (kind == TABLE_GPT)
        end -= end ? MIB / sector : 0; /* the twin needs 17 KiB, or 20 */
    if (end <= first) {
        *reason = "it is too small";
        return -1;
    }
    if (kind == TABLE_DOS && end - 1 > UINT32_MAX) {
        *reason = "an MBR ends at 2 TiB: use -partition gpt";
        return -1;
    }
    if (kind == TABLE_DOS) {
        set_record(table, LINUX, first, end - 1);
    } else {
        set_record(table, PROTECTIVE, 1, table->sectors - 1);
        set_gpt(table, first, end - 1);
    }
    add_slot(table, 1, first, end - 1, true);
    table_mark(table, true);
    return 0;
}

void table_mark(struct table *table, bool unfinished)
{
    table->unfinished = unfinished;
    if (table->kind == TABLE_DOS) {
        unsigned char number[4];
        do
            random_bytes(number, sizeof(number));
        while (!le32_at(number) || le32_at(number) == MARK);
        put_le32(table->record + 440, unfinished ? MARK : le32_at(number));
        return;
    }
    const char *name = unfinished ? mark_name : final_name;
    memset(table->gpt.entries + 56, 0, 72);
    for (size_t i = 0; name[i]; i++)
        table->gpt.entries[56 + 2 * i] = (unsigned char)name[i];
}

/* -- growing */

uint64_t table_room(const struct table *table, const struct slot *slot)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->slots[i].first > slot->first)
            return 0;
    uint64_t align = MIB / table->sector, end = table->sectors / align * align;
    if (!end)
        return 0;
    if (table->kind == TABLE_GPT) { /* room for both copies of the entries, where we write them */
        if (table->sectors < 4 + 2 * entry_sectors(table))
            return 0;
        for (size_t i = 0; i < table->count; i++)
            if (table->slots[i].first < 2 + entry_sectors(table))
                return 0;
    }
    if (table->kind == TABLE_DOS)
        return (end - 1 > UINT32_MAX ? UINT32_MAX / align * align : end) - 1;
    return end - 1 > last_usable(table) ? end - align - 1 : end - 1;
}

void table_grow(struct table *table, struct slot *slot, uint64_t last)
{
    slot->last = last;
    if (table->kind == TABLE_DOS) {
        put_le32(table->record + 446 + 16 * (slot->number - 1) + 12, (uint32_t)(last - slot->first + 1));
        return;
    }
    put_le64(table->gpt.entries + table->gpt.entry_size * (slot->number - 1) + 40, last);
    for (unsigned char *at = table->record + 446; at < table->record + 510; at += 16)
        if (at[4] == PROTECTIVE)
            put_le32(at + 12, table->sectors - 1 > UINT32_MAX ? UINT32_MAX : (uint32_t)(table->sectors - 1));
}

/* -- writing */

/* One of the two: the header in sector `place`, the other one in `twin`, the entries from `start` on. */
static int gpt_write(const struct table *table, int fd, uint64_t place, uint64_t twin, uint64_t start)
{
    unsigned char head[4096] = {0};
    uint32_t length = le32_at(table->gpt.head + 12);
    memcpy(head, table->gpt.head, sizeof(table->gpt.head));
    put_le64(head + 24, place);
    put_le64(head + 32, twin);
    put_le64(head + 48, last_usable(table));
    put_le64(head + 72, start);
    put_le32(head + 88, crc32_of(table->gpt.entries, table->gpt.entries_size));
    put_le32(head + 16, 0);
    put_le32(head + 16, crc32_of(head, length));
    if (write_at(fd, table->gpt.entries, table->gpt.entries_size, start * table->sector) < 0 || fsync(fd) < 0)
        return -1;
    return write_at(fd, head, table->sector, place * table->sector) < 0 ? -1 : fsync(fd);
}

int table_write(const struct table *table, int fd)
{
    uint64_t end = table->sectors - 1;
    if (table->kind == TABLE_GPT && (gpt_write(table, fd, end, 1, end - entry_sectors(table)) < 0 ||
                                     gpt_write(table, fd, 1, end, 2) < 0))
        return -1;
    return write_at(fd, table->record, 512, 0) < 0 ? -1 : fsync(fd);
}
