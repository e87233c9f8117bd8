/* What is on a device. Beginnings of filesystems, volume managers and encryption, by their published formats; and
 * whether there is anything at all. What is read is a stranger's: every length is checked, nothing is followed. */
#include "block.h"
#include "bootstage.h"
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SAMPLES 16
#define SAMPLE (64 * 1024)

int write_at(int fd, const void *bytes, size_t size, uint64_t offset)
{
    const char *from = bytes;
    while (size) {
        ssize_t done = pwrite(fd, from, size, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return -1;
        from += done;
        offset += (size_t)done;
        size -= (size_t)done;
    }
    return 0;
}

/* Where something says what it is. Label and UUID are offsets on the device; a length of 0: it has none. */
struct magic {
    const char *type;
    uint64_t offset;
    const char *bytes;
    unsigned char length, label_length;
    bool filesystem;
    uint32_t label, uuid;
};

static const struct magic magics[] = {
    {.type = "xfs", .bytes = "XFSB", .length = 4, .filesystem = true, .label = 108, .label_length = 12, .uuid = 32},
    {.type = "btrfs", .offset = 65600, .bytes = "_BHRfS_M", .length = 8, .filesystem = true, .label = 65835,
     .label_length = 255, .uuid = 65568},
    {.type = "crypto_LUKS", .bytes = "LUKS\xba\xbe", .length = 6, .label = 24, .label_length = 48},
    {.type = "crypto_LUKS", .offset = 16384, .bytes = "SKUL\xba\xbe", .length = 6}, /* its first header is gone */
    {.type = "LVM2_member", .offset = 512, .bytes = "LABELONE", .length = 8},
    {.type = "LVM2_member", .bytes = "LABELONE", .length = 8},
    {.type = "LVM2_member", .offset = 1024, .bytes = "LABELONE", .length = 8},
    {.type = "LVM2_member", .offset = 1536, .bytes = "LABELONE", .length = 8},
    {.type = "linux_raid_member", .offset = 4096, .bytes = "\xfc\x4e\x2b\xa9", .length = 4, .label = 4128,
     .label_length = 32, .uuid = 4112},
    {.type = "linux_raid_member", .bytes = "\xfc\x4e\x2b\xa9", .length = 4, .label = 32, .label_length = 32,
     .uuid = 16},
    {.type = "bcache", .offset = 4120, .bytes = "\xc6\x85\x73\xf6\x4e\x1a\x45\xca", .length = 8},
    {.type = "BitLocker", .offset = 3, .bytes = "-FVE-FS-", .length = 8},
    {.type = "ntfs", .offset = 3, .bytes = "NTFS    ", .length = 8, .filesystem = true},
    {.type = "exfat", .offset = 3, .bytes = "EXFAT   ", .length = 8, .filesystem = true},
    {.type = "vfat", .offset = 82, .bytes = "FAT32   ", .length = 8, .filesystem = true, .label = 71,
     .label_length = 11},
    {.type = "vfat", .offset = 54, .bytes = "FAT16   ", .length = 8, .filesystem = true, .label = 43,
     .label_length = 11},
    {.type = "vfat", .offset = 54, .bytes = "FAT12   ", .length = 8, .filesystem = true, .label = 43,
     .label_length = 11},
    {.type = "f2fs", .offset = 1024, .bytes = "\x10\x20\xf5\xf2", .length = 4, .filesystem = true},
    {.type = "hfsplus", .offset = 1024, .bytes = "H+\0\4", .length = 4, .filesystem = true},
    {.type = "jfs", .offset = 32768, .bytes = "JFS1", .length = 4, .filesystem = true},
    {.type = "reiserfs", .offset = 65588, .bytes = "ReIsEr", .length = 6, .filesystem = true},
    {.type = "gfs2", .offset = 65536, .bytes = "\x01\x16\x19\x70", .length = 4, .filesystem = true},
    {.type = "cramfs", .bytes = "\x45\x3d\xcd\x28", .length = 4, .filesystem = true},
    {.type = "udf", .offset = 38913, .bytes = "NSR0", .length = 4, .filesystem = true},
    {.type = "zfs_member", .offset = 135168, .bytes = "\x0c\xb1\xba\0\0\0\0\0", .length = 8},
    {.type = "ceph_bluestore", .bytes = "bluestore block device", .length = 22},
};

static bool is_at(int fd, uint64_t size, uint64_t offset, const char *bytes, size_t length)
{
    char found[32];
    return offset + length <= size && read_at(fd, found, length, offset) == length && !memcmp(found, bytes, length);
}

/* A field of fixed length, without the padding at its end. */
static void set_text(char *to, size_t room, const unsigned char *at, size_t length)
{
    if (length > room - 1)
        length = room - 1;
    length = strnlen((const char *)at, length);
    while (length && at[length - 1] == ' ')
        length--;
    memcpy(to, at, length);
    to[length] = 0;
}

static void set_uuid(char to[static 40], const unsigned char *at)
{
    for (int i = 0; i < 16; i++)
        to += sprintf(to, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", at[i]);
}

/* What only some of them have: the size, and names that are kept in another way. */
static void look_closer(struct content *found, int fd)
{
    unsigned char at[512];
    if (!strcmp(found->type, "xfs") && read_at(fd, at, 512, 0) == 512) {
        uint64_t block = be32_at(at + 4), blocks = be64_at(at + 8);
        found->size = block >= 512 && block <= 65536 && blocks < INT64_MAX / block ? block * blocks : 0;
    } else if (!strcmp(found->type, "btrfs") && read_at(fd, at, 512, 65536) == 512) {
        found->size = le64_at(at + 209); /* of this device, where there are several */
        if (le64_at(at + 136) != 1) {
            found->size = 0;
            found->several = true;
        }
    } else if (!strcmp(found->type, "ext4") && read_at(fd, at, 512, 1024) == 512) {
        uint64_t blocks = le32_at(at + 4), log = le32_at(at + 24);
        if (le32_at(at + 96) & 0x80) /* incompat: 64bit */
            blocks |= (uint64_t)le32_at(at + 336) << 32;
        found->size = log <= 6 && blocks < (uint64_t)INT64_MAX >> (10 + log) ? blocks << (10 + log) : 0;
        if (le32_at(at + 96) & 8) { /* incompat: a journal's device */
            found->type = "jbd";
            found->filesystem = false;
        }
    } else if (!strcmp(found->type, "crypto_LUKS") && read_at(fd, at, 512, 0) == 512) {
        set_text(found->uuid, sizeof(found->uuid), at + 168, 40);
        if (at[7] < 2) /* LUKS1 has the cipher where LUKS2 has the label */
            found->label[0] = 0;
    } else if (!strcmp(found->type, "vfat") && read_at(fd, at, 512, 0) == 512) {
        const unsigned char *serial = at + (!memcmp(at + 82, "FAT32", 5) ? 67 : 39);
        sprintf(found->uuid, "%02X%02X-%02X%02X", serial[3], serial[2], serial[1], serial[0]);
        if (!strcmp(found->label, "NO NAME"))
            found->label[0] = 0;
    }
}

/* RAID metadata at the end: version 1.0, and 0.90. */
static bool is_raid(int fd, uint64_t size)
{
    static const char magic[] = "\xfc\x4e\x2b\xa9";
    return (size > 65536 * 2 && is_at(fd, size, (size & ~65535ULL) - 65536, magic, 4)) ||
           (size > 16384 && is_at(fd, size, (size / 512 - 16) / 8 * 8 * 512, magic, 4));
}

static bool swap_read(struct content *found, int fd, uint64_t size)
{
    for (uint64_t page = 4096; page <= 65536; page *= 2) {
        if (!is_at(fd, size, page - 10, "SWAPSPACE2", 10) && !is_at(fd, size, page - 10, "SWAP-SPACE", 10))
            continue;
        unsigned char at[44];
        found->type = "swap";
        if (read_at(fd, at, sizeof(at), 1024 + 12) == sizeof(at)) {
            set_uuid(found->uuid, at);
            set_text(found->label, sizeof(found->label), at + 16, 16);
        }
        return true;
    }
    return false;
}

bool content_read(struct content *found, int fd, uint64_t size)
{
    struct superblock super;
    *found = (struct content){0};
    if (is_raid(fd, size)) { /* first: what it holds may begin where the device begins */
        found->type = "linux_raid_member";
        return true;
    }
    if (swap_read(found, fd, size))
        return true;
    for (size_t i = 0; i < COUNT(magics); i++) {
        const struct magic *magic = &magics[i];
        unsigned char at[256];
        if (!is_at(fd, size, magic->offset, magic->bytes, magic->length))
            continue;
        found->type = magic->type;
        found->filesystem = magic->filesystem;
        if (magic->label_length && read_at(fd, at, magic->label_length, magic->label) == magic->label_length)
            set_text(found->label, sizeof(found->label), at, magic->label_length);
        if (magic->uuid && read_at(fd, at, 16, magic->uuid) == 16)
            set_uuid(found->uuid, at);
        look_closer(found, fd);
        return true;
    }
    if (size >= 2048 && superblock_read(&super, fd)) {
        found->type = super.type;
        found->filesystem = true;
        strcpy(found->label, super.label);
        strcpy(found->uuid, super.uuid);
        look_closer(found, fd);
        if (strcmp(found->type, "ext4") || found->size) /* its magic is two bytes: noise has them, too */
            return true;
        *found = (struct content){0};
    }
    return false;
}

static int is_blank(int fd, unsigned char *room, size_t length, uint64_t offset)
{
    if (read_at(fd, room, length, offset) != length)
        return -1;
    for (size_t i = 0; i < length; i++)
        if (room[i])
            return 0;
    return 1;
}

int content_blank(int fd, uint64_t size)
{
    scoped_free unsigned char *room = must_alloc(MIB);
    size_t edge = size < MIB ? (size_t)size : MIB;
    int blank = is_blank(fd, room, edge, 0);
    if (blank == 1)
        blank = is_blank(fd, room, edge, size - edge);
    for (uint64_t i = 1; i < SAMPLES && blank == 1 && size > 4 * MIB; i++)
        blank = is_blank(fd, room, SAMPLE, size / SAMPLES * i / 4096 * 4096);
    return blank;
}
