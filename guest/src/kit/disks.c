/* The machine's block devices: /sys/class/block says what there is, and /dev has the nodes. */
#include "block.h"
#include "bootstage.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define POLL_MS 50
#define SETTLED 0.3 /* seconds without a new disk */

struct where where = {"/sys", "/dev"};
double patience = 10;

static long number_of(const char *name, const char *what)
{
    scoped_free char *file = format("%s/class/block/%s/%s", where.sys, name, what);
    return read_number(file);
}

static bool is_there(const char *name, const char *what)
{
    scoped_free char *file = format("%s/class/block/%s/%s", where.sys, name, what);
    return exists(file);
}

bool disk_named(struct disk *disk, const char *name)
{
    scoped_free char *file = format("%s/class/block/%s/dev", where.sys, name);
    scoped_free char *number = read_line(file);
    long sectors = number_of(name, "size");
    *disk = (struct disk){0};
    if (sectors <= 0 || !number || sscanf(number, "%u:%u", &disk->major, &disk->minor) != 2 ||
        (size_t)snprintf(disk->name, sizeof(disk->name), "%s", name) >= sizeof(disk->name) ||
        (size_t)snprintf(disk->path, sizeof(disk->path), "%s/%s", where.dev, name) >= sizeof(disk->path))
        return false;
    for (char *at = disk->path + strlen(where.dev); *at; at++)
        if (*at == '!') /* sysfs's way to write a / */
            *at = '/';
    disk->partition = is_there(name, "partition");
    long sector = number_of(name, disk->partition ? "../queue/logical_block_size" : "queue/logical_block_size");
    disk->sector = sector >= 512 && sector <= 4096 && !(sector & (sector - 1)) ? (unsigned)sector : 512;
    disk->size = (uint64_t)sectors * 512;
    disk->readonly = number_of(name, "ro") == 1;
    return true;
}

/* -- lists */

/* By the driver's letters, then by length, then by letter: sda ... sdz, sdaa. */
static int compare(const void *one, const void *other)
{
    const char *left = ((const struct disk *)one)->name, *right = ((const struct disk *)other)->name;
    int drivers = strncmp(left, right, 2);
    if (drivers)
        return drivers;
    size_t a = strlen(left), b = strlen(right);
    return a != b ? (a < b ? -1 : 1) : strcmp(left, right);
}

static size_t list(struct disk **found, bool whole, const char *const *without, size_t without_count)
{
    scoped_free char *folder = format("%s/class/block", where.sys);
    size_t names_count, count = 0;
    char **names = list_names(folder, &names_count);
    *found = NULL;
    for (size_t i = 0; i < names_count; i++) {
        struct disk disk;
        bool skip = whole && is_there(names[i], "partition");
        for (size_t j = 0; j < without_count && !skip; j++)
            skip = starts_with(names[i], without[j]);
        if (!skip && disk_named(&disk, names[i]))
            *APPEND(*found, count) = disk;
    }
    if (names)
        free_names(names, names_count);
    if (count)
        qsort(*found, count, sizeof(**found), compare);
    return count;
}

size_t disks_list(struct disk **found)
{
    static const char *const without[] = {"ram", "loop", "zram", "fd", "dm-", "md", "nbd", "sr", "mtdblock"};
    return list(found, true, without, COUNT(without));
}

size_t devices_list(struct disk **found)
{
    static const char *const without[] = {"ram", "zram", "fd", "nbd"};
    return list(found, false, without, COUNT(without));
}

size_t disks_settled(struct disk **found)
{
    double end = now() + patience, since = now();
    size_t before = 0;
    for (;;) {
        size_t count = disks_list(found);
        if (count != before)
            since = now();
        if (now() >= end || (count && now() >= since + SETTLED))
            return count;
        before = count;
        free(*found);
        pause_ms(POLL_MS);
    }
}

/* -- one of them */

bool disk_at(struct disk *disk, const char *path, double seconds)
{
    double end = now() + seconds;
    for (;;) {
        char real[PATH_MAX];
        struct stat info;
        if (realpath(path, real) && stat(real, &info) == 0 && S_ISBLK(info.st_mode)) {
            unsigned major_is = major(info.st_rdev), minor_is = minor(info.st_rdev);
            scoped_free char *link = format("%s/dev/block/%u:%u", where.sys, major_is, minor_is);
            if (realpath(link, real) && disk_named(disk, base_name(real)))
                return true;
        }
        /* No node: the kernel may know it nevertheless. */
        scoped_free char *name = format("%s", starts_with(path, "/dev/") ? path + 5 : base_name(path));
        for (char *at = name; *at; at++)
            if (*at == '/')
                *at = '!';
        if (*name && name[0] != '.' && disk_named(disk, name)) {
            disk_node(disk);
            return true;
        }
        if (now() >= end)
            return false;
        pause_ms(POLL_MS);
    }
}

static bool part_now(struct disk *part, const struct disk *disk, const struct slot *slot)
{
    scoped_free char *folder = format("%s/class/block/%s", where.sys, disk->name);
    size_t count;
    char **names = list_names(folder, &count);
    bool there = false;
    long first = (long)(slot->first * (disk->sector / 512)), number = (long)slot->number;
    for (size_t i = 0; i < count && !there; i++)
        there = is_there(names[i], "partition") && number_of(names[i], "partition") == number &&
                number_of(names[i], "start") == first && disk_named(part, names[i]);
    if (names)
        free_names(names, count);
    return there;
}

bool disk_part(struct disk *part, const struct disk *disk, const struct slot *slot, double seconds)
{
    double end = now() + seconds;
    for (;;) {
        if (part_now(part, disk, slot)) {
            disk_node(part);
            return true;
        }
        if (now() >= end)
            return false;
        pause_ms(POLL_MS);
    }
}

bool disk_with(struct disk *found, const char *label, const char *uuid, double seconds)
{
    double end = now() + seconds;
    for (;;) {
        scoped_free struct disk *all = NULL;
        size_t count = devices_list(&all);
        for (size_t i = 0; i < count; i++) {
            struct content content;
            scoped_fd fd = disk_open(&all[i], false, false);
            if (fd < 0 || !content_read(&content, fd, all[i].size) || !content.filesystem ||
                (uuid ? strcasecmp(content.uuid, uuid) : strcmp(content.label, label)))
                continue;
            *found = all[i];
            return true;
        }
        if (now() >= end)
            return false;
        pause_ms(POLL_MS * 4);
    }
}

int disk_open(const struct disk *disk, bool writable, bool exclusive)
{
    return open(disk->path, (writable ? O_RDWR : O_RDONLY) | (exclusive ? O_EXCL : 0) | O_CLOEXEC | O_NONBLOCK);
}

bool disk_busy(const struct disk *disk)
{
    scoped_fd fd = disk_open(disk, false, true);
    return fd < 0 && errno == EBUSY;
}

void disk_node(const struct disk *disk)
{
    if (exists(disk->path))
        return;
    make_parents(disk->path);
    mknod(disk->path, S_IFBLK | 0600, makedev(disk->major, disk->minor)); /* who opens it says what was wrong */
}

char *disk_describe(const struct disk *disk)
{
    static const char *const kinds[] = {"", "MBR", "GPT", "damaged"};
    struct content content;
    scoped_table table = {0};
    scoped_fd fd = disk_open(disk, false, false);
    if (fd < 0)
        return format("something that can't be read: %s", strerror(errno));
    if (content_read(&content, fd, disk->size)) {
        for (char *at = content.label; *at; at++) /* a stranger's words, for the console */
            if (*at < ' ' || *at == 127)
                *at = '?';
        return format("%s%s%s%s", content.type, *content.label ? " (LABEL=" : "", content.label,
                      *content.label ? ")" : "");
    }
    table_read(&table, fd, disk->sector, disk->size);
    if (table.unfinished)
        return must_dup("a partition that was being formatted when the machine stopped");
    if (table.kind != TABLE_NONE)
        return format("a partition table (%s) with %zu partition%s", kinds[table.kind], table.count,
                      table.count == 1 ? "" : "s");
    int blank = content_blank(fd, disk->size);
    return must_dup(blank < 0 ? "sectors that can't be read" : blank ? "nothing" : "data of an unknown kind");
}
