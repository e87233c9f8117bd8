/* What lies on disks. Inputs are pieces: one byte that says where (of the places in which something introduces itself), two
 * of length, the bytes. Check sums of a GPT are made right, or most inputs would end at them. */
#include "block.h"
#include "bootstage.h"
#include "fuzz.h"
#include "util.h"

#include <string.h>

#define SIZE (1u << 18)

static const uint32_t places[] = {0,     3,     440,   512,   1024,  1080,  2048,   4086,   4096,   4120,   8182,  16384,
                                  32768, 32769, 34816, 36864, 38912, 65536, 65588,  65835,  131072, 135168, SIZE - 512,
                                  SIZE - 1024, SIZE - 4096, SIZE - 8192, SIZE - 65536, SIZE - 131072};

static int disk_of(const unsigned char *bytes, size_t length)
{
    int fd = fuzz_disk(SIZE);
    while (length > 3) {
        uint32_t at = places[bytes[0] % COUNT(places)], size = bytes[1] | (uint32_t)bytes[2] << 8;
        bytes += 3;
        length -= 3;
        size = size > length ? (uint32_t)length : size;
        size = at + size > SIZE ? SIZE - at : size;
        write_at(fd, bytes, size, at);
        bytes += size;
        length -= size;
    }
    return fd;
}

static void mend_sums(int fd, uint64_t place)
{
    unsigned char head[512], entries[4096];
    read_at(fd, head, sizeof(head), place * 512);
    uint32_t length = le32_at(head + 12), count = le32_at(head + 80), size = le32_at(head + 84);
    uint64_t start = le64_at(head + 72);
    if (count && size && count <= sizeof(entries) / size && start < SIZE / 512) {
        read_at(fd, entries, (size_t)count * size, start * 512);
        put_le32(head + 88, crc32_of(entries, (size_t)count * size));
    }
    put_le32(head + 16, 0);
    put_le32(head + 16, crc32_of(head, length > 512 ? 512 : length));
    write_at(fd, head, sizeof(head), place * 512);
}

void fuzz_table(const unsigned char *bytes, size_t length)
{
    int fd = disk_of(bytes, length);
    mend_sums(fd, 1);
    mend_sums(fd, SIZE / 512 - 1);
    scoped_table table;
    table_read(&table, fd, 512, SIZE);
    for (size_t i = 0; i < table.count && table.kind != TABLE_DAMAGED && table.kind != TABLE_NONE; i++) {
        uint64_t last = table_room(&table, &table.slots[i]);
        if (last >= SIZE / 512)
            abort();
        if (last > table.slots[i].last) {
            table_grow(&table, &table.slots[i], last);
            table_mark(&table, false);
            if (table_write(&table, fd) < 0)
                abort();
            scoped_table again;
            table_read(&again, fd, 512, SIZE);
            if (again.kind != table.kind || again.count != table.count)
                abort(); /* what was grown is there as before */
            break;
        }
    }
    scoped_free struct partition *list = NULL;
    size_t count = partitions_read(&list, fd, 512, SIZE);
    for (size_t i = 0; i < count; i++)
        if (strlen(list[i].label) >= sizeof(list[i].label) || !list[i].number)
            abort();
    mbr_signature(fd);
}

void fuzz_content(const unsigned char *bytes, size_t length)
{
    int fd = disk_of(bytes, length);
    struct content content;
    struct superblock super;
    if (content_read(&content, fd, SIZE) && (!content.type || strlen(content.label) >= sizeof(content.label)))
        abort();
    if (superblock_read(&super, fd) && strlen(super.uuid) >= sizeof(super.uuid))
        abort();
    if (length % 16 == 0)
        content_blank(fd, SIZE);
}
