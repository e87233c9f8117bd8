/* The machine's block devices: /sys/class/block says what there is, and /dev has the nodes. */
#include "block.h"
#include "bootstage.h"
#include "command.h"
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

/* -- by what is on it */

struct match {
    struct disk disk;
    struct content content;
};

/* Does device-mapper or RAID have it? Then what is on it is to be taken from there. */
static bool is_held(const char *name)
{
    size_t count;
    scoped_free char *folder = format("%s/class/block/%s/holders", where.sys, name);
    char **names = list_names(folder, &count);
    if (names)
        free_names(names, count);
    return names && count;
}

/* A disk that begins with its first partition, or two parts of one btrfs. */
static bool is_same(const struct match *one, const struct match *other)
{
    return device_nested(where.sys, one->disk.name, other->disk.name) ||
           (!strcmp(one->content.type, "btrfs") && !strcmp(other->content.type, "btrfs") && one->content.several &&
            !strcmp(one->content.uuid, other->content.uuid));
}

/* All that have the label or UUID, in their order; the caller frees the list. */
static size_t matches(struct match **found, const char *label, const char *uuid, bool any)
{
    scoped_free struct disk *all = NULL;
    size_t devices = devices_list(&all), count = 0;
    *found = NULL;
    for (size_t i = 0; i < devices; i++) {
        struct match match = {.disk = all[i]};
        scoped_fd fd = disk_open(&all[i], false, false);
        if (fd < 0 || !content_read(&match.content, fd, all[i].size) || (!match.content.filesystem && !any) ||
            (uuid ? strcasecmp(match.content.uuid, uuid) : strcmp(match.content.label, label)) ||
            (match.content.filesystem && is_held(all[i].name)))
            continue;
        bool known = false;
        for (size_t j = 0; j < count && !known; j++)
            known = is_same(&(*found)[j], &match);
        if (!known)
            *APPEND(*found, count) = match;
    }
    return count;
}

/* "/dev/vda1 (ext4, LABEL=x, UUID=y, serial number z)", to be freed. */
static char *match_text(const struct match *match)
{
    scoped_free char *serial = device_serial(where.sys, match->disk.name), *label = must_dup(match->content.label);
    make_printable(label);
    return format("%s (%s, LABEL=%s, UUID=%s, %s)", match->disk.path, match->content.type, label, match->content.uuid, serial);
}

static void tell_several(const struct match *list, size_t count, const char *label, const char *uuid)
{
    scoped_free char *one = match_text(&list[0]), *other = match_text(&list[1]);
    const char *more = count > 2 ? ", and on others" : "";
    bool clones = !strcmp(list[0].content.uuid, list[1].content.uuid);
    tell("%s=%s is on %s and on %s%s: %s, or take one of the disks away", label ? "LABEL" : "UUID", label ? label : uuid, one,
         other, more, clones ? "name the device" : "name one of them by its UUID or device");
}

int disk_with(struct disk *found, const char *label, const char *uuid, bool any, double seconds)
{
    for (double end = now() + seconds;; pause_ms(POLL_MS * 4)) {
        scoped_free struct match *list = NULL;
        size_t count = matches(&list, label, uuid, any);
        if (count > 1)
            tell_several(list, count, label, uuid);
        if (count)
            *found = list[0].disk;
        if (count || now() >= end)
            return count > 1 ? -1 : (int)count;
    }
}

bool disk_is_alone(const char *label, const char *uuid)
{
    struct disk found;
    return disk_with(&found, label, uuid, true, 0) == 1;
}

/* Turns \\xHH back into bytes, as udev's names have them. */
static char *unescape(const char *text)
{
    char *made = must_dup(text), *to = made;
    for (const char *at = text; *at;) {
        unsigned byte;
        if (at[0] == '\\' && at[1] == 'x' && at[2] && at[3] && sscanf(at + 2, "%2x", &byte) == 1 && byte) {
            *to++ = (char)byte;
            at += 4;
        } else {
            *to++ = *at++;
        }
    }
    *to = 0;
    return made;
}

bool disk_asked(struct disk *found, const char *text, double seconds)
{
    static const struct {
        const char *form;
        bool label, link;
    } forms[] = {{"LABEL=", true, false}, {"UUID=", false, false},
                 {"/dev/disk/by-label/", true, true}, {"/dev/disk/by-uuid/", false, true}};
    for (size_t i = 0; i < COUNT(forms); i++) {
        if (!starts_with(text, forms[i].form))
            continue;
        const char *rest = text + strlen(forms[i].form);
        scoped_free char *value = forms[i].link ? unescape(rest) : must_dup(rest);
        int there = disk_with(found, forms[i].label ? value : NULL, forms[i].label ? NULL : value, true, seconds);
        if (there == 0)
            tell("%s: no device has %s %s", text, forms[i].label ? "the label" : "the UUID", value);
        return there > 0;
    }
    if (disk_at(found, text, seconds))
        return true;
    tell("%s: there is no such device", text);
    return false;
}

int disk_open(const struct disk *disk, bool writable, bool exclusive)
{
    return medium_open(disk->path, (writable ? O_RDWR : O_RDONLY) | (exclusive ? O_EXCL : 0));
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
        make_printable(content.label);
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
