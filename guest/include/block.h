/* Disks as the kit's storage packages see them: what is on them, their partition tables, who has which label. */
#pragma once

#include "bytes.h"
#include "gpt.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MIB (1ULL << 20)
#define TYPES "ext4, btrfs or xfs"

/* 0, or -1 with errno: all of it is written. */
int write_at(int fd, const void *bytes, size_t size, uint64_t offset);

/* -- what is on a device */

struct content {
    const char *type;  /* for mount(2), or a name for people; NULL: nothing known */
    bool filesystem;   /* it can be mounted */
    bool several;      /* it is one of several devices of a btrfs */
    uint64_t size;     /* bytes that ext4, xfs or btrfs makes use of; 0: not known */
    char label[260], uuid[40];
};

/* Looks for what introduces itself. False: nothing known. Labels are cut to their room and closed. */
bool content_read(struct content *found, int fd, uint64_t size);
/* Are the first and last MiB, and samples between them, nothing but zeros? 1, 0, or -1 when they can't be read. */
int content_blank(int fd, uint64_t size);

/* -- partition tables: the MBR, and UEFI 2.10, section 5 */

enum table_kind { TABLE_NONE, TABLE_DOS, TABLE_GPT, TABLE_DAMAGED };

struct slot {
    unsigned number;      /* from 1, as in the device's name */
    uint64_t first, last; /* sectors of the disk's own size, both included */
    bool linux_type;      /* 0x83, or 0FC63DAF-8483-4772-8E79-3D69D8477DE4 */
};

struct table {
    enum table_kind kind;
    unsigned sector;  /* bytes */
    uint64_t sectors; /* of the disk as it is now */
    struct slot *slots;
    size_t count;
    bool unfinished;  /* we made it, and did not come to an end */
    unsigned char record[512];
    struct gpt gpt;
};

#define scoped_table __attribute__((cleanup(table_free))) struct table
void table_free(struct table *table);
/* What the disk has; TABLE_DAMAGED is one that must not be believed, and not be thrown away either. */
void table_read(struct table *table, int fd, unsigned sector, uint64_t size);
/* A table with one Linux partition of full size, in memory. 0, or -1 and why: too small, too large for an MBR. */
int table_make(struct table *table, enum table_kind kind, unsigned sector, uint64_t size, const char **reason);
/* Marks it as not finished, or as finished. */
void table_mark(struct table *table, bool unfinished);
/* The last sector that `slot`, the last of the disk, may have. 0: it is not the last one. */
uint64_t table_room(const struct table *table, const struct slot *slot);
void table_grow(struct table *table, struct slot *slot, uint64_t last);
/* Written and synced; a GPT's backup first, so that one of the two is whole at any time. 0, or -1 with errno. */
int table_write(const struct table *table, int fd);

/* -- the machine's devices */

/* Where to look for devices; tests have their own. */
struct where {
    const char *sys, *dev; /* /sys, /dev */
};
extern struct where where;
/* Seconds that a device, or a disk that will do, is waited for: some drivers find theirs late. */
extern double patience;

struct disk {
    char name[64];    /* in /sys/class/block */
    char path[300];   /* in /dev */
    unsigned major, minor;
    uint64_t size;    /* bytes */
    unsigned sector;  /* bytes of a logical sector */
    bool readonly, partition;
};

/* The device of a name in /sys/class/block. False: it is gone, or has no medium. */
bool disk_named(struct disk *disk, const char *name);
/* The device of a path, which may be a link. Waits up to `seconds` for it. */
bool disk_at(struct disk *disk, const char *path, double seconds);
/* Whole disks that can hold data, in their order: vda, vdb, ..., vdz, vdaa. The caller frees the list. */
size_t disks_list(struct disk **list);
/* The same, after the first has appeared and no more do for a moment. */
size_t disks_settled(struct disk **list);
/* Everything that may have a filesystem: disks, partitions, device-mapper, RAID, CDs. The caller frees the list. */
size_t devices_list(struct disk **list);
/* A disk's partition with that number and first sector. Waits up to `seconds` for it. */
bool disk_part(struct disk *part, const struct disk *disk, const struct slot *slot, double seconds);
/* The device that has this label, or UUID (one of the two is NULL): a filesystem, or with `any` LUKS and the like, too.
 * Waits up to `seconds` for it. 1; 0: none; -1 after a message that names two: there are several. */
int disk_with(struct disk *found, const char *label, const char *uuid, bool any, double seconds);
/* What a command line names: LABEL=, UUID=, /dev/disk/by-label/, /dev/disk/by-uuid/, or a path. False after a message. */
bool disk_asked(struct disk *found, const char *text, double seconds);
/* Does one device alone have the label, or UUID? Else says who has it, too. */
bool disk_is_alone(const char *label, const char *uuid);
/* Opened; `exclusive` fails with EBUSY when it, or a partition of it, is mounted or in use. -1 with errno. */
int disk_open(const struct disk *disk, bool writable, bool exclusive);
bool disk_busy(const struct disk *disk);
/* Makes the node in /dev when nobody did. */
void disk_node(const struct disk *disk);
/* What is on it, for people: "ext4 (LABEL=data)", "a partition table (GPT) with 2 partitions", "data of an unknown
 * kind", "nothing". The caller frees it. */
char *disk_describe(const struct disk *disk);

/* -- filesystems, and the programs that make them */

/* Runs a program and waits. Its exit status; -1 after a message when it can't be started. */
int run(const char *const *argv);
bool fs_known(const char *type); /* ext4, btrfs, xfs */
/* 0, or -1 and why a filesystem can't be called so. */
int fs_label_check(const char *type, const char *label, const char **reason);
/* Makes one on a device, whatever is there. 0, or -1 after a message. */
int fs_make(const char *type, const char *label, const char *device);
/* mount(2), which has the kernel load the driver. 0, or -1 with errno. */
int fs_mount(const char *device, const char *folder, const char *type, unsigned long flags, const char *data);
