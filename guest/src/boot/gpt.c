/* GUID partition tables as they are read: UEFI 2.10, section 5.3. Every length is checked: a stranger wrote them. */
#include "gpt.h"
#include "bootstage.h"
#include "bytes.h"
#include "util.h"

#include <string.h>

#define MOST_ENTRIES (1 << 20) /* bytes */

bool gpt_read(struct gpt *gpt, int fd, uint64_t place)
{
    unsigned char head[512];
    if (place > INT64_MAX / gpt->sector || read_at(fd, head, sizeof(head), place * gpt->sector) != sizeof(head) ||
        memcmp(head, "EFI PART", 8) || le64_at(head + 24) != place)
        return false;
    uint32_t length = le32_at(head + 12), crc = le32_at(head + 16);
    if (length < 92 || length > sizeof(head))
        return false;
    put_le32(head + 16, 0);
    if (crc32_of(head, length) != crc)
        return false;
    uint32_t entries = le32_at(head + 80), size = le32_at(head + 84);
    uint64_t start = le64_at(head + 72);
    if (!entries || size < 128 || size > 4096 || size % 8 || entries > MOST_ENTRIES / size || start >= gpt->sectors)
        return false;
    size_t bytes = (size_t)entries * size;
    unsigned char *all = must_alloc(bytes);
    if (read_at(fd, all, bytes, start * gpt->sector) != bytes || crc32_of(all, bytes) != le32_at(head + 88)) {
        free(all);
        return false;
    }
    free(gpt->entries);
    gpt->entries = all;
    gpt->entry_size = size;
    gpt->entries_size = bytes;
    memcpy(gpt->head, head, sizeof(head));
    return true;
}

size_t gpt_count(const struct gpt *gpt)
{
    return gpt->entry_size ? gpt->entries_size / gpt->entry_size : 0;
}

const unsigned char *gpt_entry(const struct gpt *gpt, size_t number)
{
    static const unsigned char nothing[16];
    if (!number || number > gpt_count(gpt))
        return NULL;
    const unsigned char *entry = gpt->entries + gpt->entry_size * (number - 1);
    return memcmp(entry, nothing, 16) ? entry : NULL;
}
