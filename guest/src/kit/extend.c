/* extend: where a disk has become larger, its partition and the filesystem do as well. Whatever step the machine
 * stopped at, the next boot goes on from there: a filesystem that is smaller than its partition is grown, too. */
#define _GNU_SOURCE
#include "block.h"
#include "command.h"

#include <errno.h>
#include <linux/blkpg.h>
#include <linux/btrfs.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <fcntl.h>

#define SLACK (16 * MIB)  /* filesystems leave a little unused at their end */
#define FOLDER "/mnt/tmp"

static const char how[] = "extend [-type ext4|btrfs|xfs] [-stop-on-error=true|false] [DEVICE...]";

/* linux/xfs_fs.h is not among the kernel's public headers: the two calls that are needed. */
struct xfs_geometry {
    uint32_t blocksize, rtextsize, agblocks, agcount, logblocks, sectsize, inodesize, imaxpct;
    uint64_t datablocks, rtblocks, rtextents, logstart;
    unsigned char uuid[16];
    uint32_t sunit, swidth;
    int32_t version;
    uint32_t flags, logsectsize, rtsectsize, dirblocksize;
};
struct xfs_growth {
    uint64_t blocks;
    uint32_t imaxpct;
};
#define XFS_GEOMETRY _IOR('X', 100, struct xfs_geometry)
#define XFS_GROW _IOW('X', 110, struct xfs_growth)

struct place {
    struct disk disk, part; /* the same where there is no partition table */
    struct table table;
    struct slot *slot;      /* NULL: no partition table */
    struct content content;
};

static int failed(const char *what, const char *why)
{
    tell("%s: %s: %s", what, why, strerror(errno));
    return -1;
}

/* What there is to grow. False, and why not. */
static bool find_place(struct place *place, char why[static 200])
{
    struct disk *disk = &place->disk;
    unsigned linux_slots = 0;
    scoped_fd fd = disk_open(disk, false, false);
    snprintf(why, 200, "it cannot be opened: %s", strerror(errno));
    if (fd < 0)
        return false;
    place->part = *disk;
    if (content_read(&place->content, fd, disk->size)) {
        snprintf(why, 200, "there is %s on it, which does not grow", place->content.type);
        return fs_known(place->content.type);
    }
    table_read(&place->table, fd, disk->sector, disk->size);
    for (size_t i = 0; i < place->table.count; i++) {
        struct disk part;
        struct content content;
        if (!place->table.slots[i].linux_type || !disk_part(&part, disk, &place->table.slots[i], 1))
            continue;
        scoped_fd inside = disk_open(&part, false, false);
        if (inside < 0 || !content_read(&content, inside, part.size) || !fs_known(content.type))
            continue;
        linux_slots++;
        place->slot = &place->table.slots[i];
        place->part = part;
        place->content = content;
    }
    snprintf(why, 200, place->table.kind == TABLE_NONE      ? "it has no partition"
                       : place->table.kind == TABLE_DAMAGED ? "its partition table is damaged"
                       : linux_slots ? "%u of its partitions have " TYPES ": it has to be one"
                                     : "none of its partitions has " TYPES, linux_slots);
    return linux_slots == 1 && place->table.kind != TABLE_DAMAGED && !place->table.unfinished;
}

static int grow_partition(struct place *place, uint64_t last)
{
    struct blkpg_partition new = {
        .start = (long long)(place->slot->first * place->disk.sector),
        .length = (long long)((last - place->slot->first + 1) * place->disk.sector),
        .pno = (int)place->slot->number,
    };
    struct blkpg_ioctl_arg change = {.op = BLKPG_RESIZE_PARTITION, .datalen = sizeof(new), .data = &new};
    scoped_fd fd = disk_open(&place->disk, true, false);
    if (fd < 0)
        return failed(place->disk.path, "cannot be opened");
    table_grow(&place->table, place->slot, last);
    if (table_write(&place->table, fd) < 0)
        return failed(place->disk.path, "the partition table cannot be written");
    if (ioctl(fd, BLKPG, &change) < 0)
        return failed(place->disk.path, "the kernel does not take the partition's new size");
    place->part.size = (uint64_t)new.length;
    return 0;
}

static int check_ext4(const char *device, const char *how_much)
{
    const char *argv[] = {"/usr/sbin/e2fsck", "-p", how_much, device, NULL};
    if (!how_much) {
        argv[2] = device;
        argv[3] = NULL;
    }
    int status = run(argv);
    if (status >= 0 && status <= 1) /* 1: it was mended */
        return 0;
    if (status > 1)
        tell("%s: e2fsck ends with status %d: it is not grown", device, status);
    return -1;
}

static int grow_mounted(const struct place *place)
{
    const char *device = place->part.path;
    bool xfs = !strcmp(place->content.type, "xfs");
    int result = -1;
    make_dirs(FOLDER, 0700);
    if (fs_mount(device, FOLDER, place->content.type, 0, NULL) < 0)
        return failed(device, "cannot be mounted");
    int fd = open(FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        failed(FOLDER, "cannot be opened");
    } else if (xfs) {
        struct xfs_geometry now_is = {0};
        result = ioctl(fd, XFS_GEOMETRY, &now_is);
        struct xfs_growth growth = {.imaxpct = now_is.imaxpct};
        if (result == 0 && now_is.blocksize) {
            growth.blocks = place->part.size / now_is.blocksize;
            if (growth.blocks > now_is.datablocks)
                result = ioctl(fd, XFS_GROW, &growth);
        }
    } else {
        struct btrfs_ioctl_vol_args args = {.name = "max"};
        result = ioctl(fd, BTRFS_IOC_RESIZE, &args);
    }
    if (fd >= 0 && result < 0)
        failed(device, "the filesystem does not grow");
    if (fd >= 0) {
        syncfs(fd);
        close(fd);
    }
    if (umount2(FOLDER, 0) < 0)
        return failed(device, "cannot be unmounted");
    return result < 0 ? -1 : 0;
}

static int grow_ext4(const char *device)
{
    const char *argv[] = {"/usr/sbin/resize2fs", device, NULL};
    int status = run(argv);
    if (status > 0)
        tell("%s: resize2fs ends with status %d", device, status);
    return status == 0 ? check_ext4(device, NULL) : -1;
}

/* 0, or -1 after a message. */
static int extend(struct place *place, const char *type, bool named)
{
    char why[200];
    const char *path = place->disk.path;
    if (!find_place(place, why)) {
        tell("%s is left alone: %s", path, why);
        return named ? -1 : 0;
    }
    const char *device = place->part.path, *found = place->content.type;
    uint64_t last = place->slot ? table_room(&place->table, place->slot) : 0;
    bool roomy = place->slot && last > place->slot->last + MIB / place->disk.sector;
    if (!roomy && (!place->content.size || place->part.size < place->content.size + SLACK)) {
        tell("%s: no free space to extend into", path);
        return 0;
    }
    if (type && strcmp(type, found)) {
        tell("%s has %s, not %s", device, found, type);
        return -1;
    }
    if (disk_busy(&place->part)) {
        tell("%s is left alone: it is in use. extend has to come before it is mounted", device);
        return named ? -1 : 0;
    }
    bool ext4 = !strcmp(found, "ext4");
    if (ext4 && (check_ext4(device, NULL) < 0 || check_ext4(device, "-f") < 0))
        return -1;
    uint64_t before = place->content.size;
    if (roomy && grow_partition(place, last) < 0)
        return -1;
    if ((ext4 ? grow_ext4(device) : grow_mounted(place)) < 0)
        return -1;
    scoped_free char *old = must_dup(size_text(before));
    tell("%s (%s) has grown from %s to %s", device, found, old, size_text(place->part.size));
    return 0;
}

int extend_main(int argc, char **argv)
{
    const char *type = NULL;
    bool stop = true;
    const struct flag flags[] = {{.names = "type", .text = &type}, {.names = "stop-on-error", .yes = &stop}};
    size_t count;
    int result = 0;
    program_is("extend", how);
    scoped_free const char **left = command_read(flags, COUNT(flags), argc, argv, &count);
    if (type && !fs_known(type))
        usage("-type is %s, not %s", TYPES, type);
    scoped_free struct disk *disks = NULL;
    size_t all = count ? count : disks_settled(&disks);
    if (!all) {
        tell("there is no disk");
        return 1;
    }
    for (size_t i = 0; i < all && !(result && stop); i++) {
        struct place place = {0};
        if (!count) {
            place.disk = disks[i];
        } else if (!disk_asked(&place.disk, left[i], patience)) {
            result = 1;
            continue;
        }
        if (extend(&place, type, count > 0) < 0)
            result = 1;
        table_free(&place.table);
    }
    return result;
}
