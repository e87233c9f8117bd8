/* Filesystems as they introduce themselves: squashfs and erofs by the kernel's documentation, ext4 by its, ECMA-119. */
#include "bootstage.h"
#include "bytes.h"
#include "util.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SECTOR 2048 /* of a CD */
#define DESCRIPTORS 16 /* volume descriptors looked at, from sector 16 on */

size_t read_at(int fd, void *bytes, size_t size, uint64_t offset)
{
    size_t done = 0;
    memset(bytes, 0, size);
    while (done < size) {
        ssize_t got = pread(fd, (char *)bytes + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    return done;
}

/* A field of fixed length, without the padding at its end. */
static void set_label(struct superblock *found, const unsigned char *at, size_t length)
{
    length = strnlen((const char *)at, length);
    while (length && at[length - 1] == ' ')
        length--;
    memcpy(found->label, at, length);
    found->label[length] = 0;
}

static void set_uuid(struct superblock *found, const unsigned char *at)
{
    char *to = found->uuid;
    bool given = false;
    for (int i = 0; i < 16; i++) {
        to += sprintf(to, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", at[i]);
        given |= at[i] != 0;
    }
    if (!given)
        found->uuid[0] = 0;
}

/* An ISO has no UUID; by custom it is the time of its last change, or of its making: YYYY-MM-DD-HH-MM-SS-hh. */
static void set_time(struct superblock *found, const unsigned char *primary)
{
    const unsigned char *at = primary + 830;
    bool given = false;
    for (int i = 0; i < 16; i++)
        given |= at[i] != '0' && at[i] != 0;
    if (!given)
        at = primary + 813;
    for (int i = 0; i < 16; i++)
        if (!isdigit(at[i]))
            return;
    sprintf(found->uuid, "%.4s-%.2s-%.2s-%.2s-%.2s-%.2s-%.2s", at, at + 4, at + 6, at + 8, at + 10, at + 12, at + 14);
}

static bool iso_read(struct superblock *found, int fd)
{
    unsigned char sector[SECTOR];
    for (unsigned i = 0; i < DESCRIPTORS; i++) {
        if (read_at(fd, sector, sizeof(sector), (uint64_t)(16 + i) * SECTOR) != sizeof(sector) ||
            memcmp(sector + 1, "CD001", 5) || sector[0] == 255)
            return false;
        if (sector[0] != 1)
            continue;
        found->type = "iso9660";
        set_label(found, sector + 40, 32);
        set_time(found, sector);
        return true;
    }
    return false;
}

bool superblock_read(struct superblock *found, int fd)
{
    unsigned char head[2048];
    *found = (struct superblock){0};
    if (read_at(fd, head, sizeof(head), 0) != sizeof(head))
        return false;
    const unsigned char *at = head + 1024;
    if (!memcmp(head, "hsqs", 4) && le16_at(head + 28) == 4) {
        found->type = "squashfs";
    } else if (le32_at(at) == 0xE0F5E1E2) {
        found->type = "erofs";
        set_uuid(found, at + 48);
        set_label(found, at + 64, 16);
    } else if (le16_at(at + 56) == 0xEF53) {
        found->type = "ext4";
        set_uuid(found, at + 104);
        set_label(found, at + 120, 16);
    }
    return found->type || iso_read(found, fd);
}
