/* format: one partition and a filesystem on the first empty disk, or on the one that is named. Never on one with data
 * unless -force is given; and at the next boot, when it is all there, nothing. */
#include "block.h"
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define AGAIN_MS 500 /* between two looks at all disks */

static const char how[] = "format [-force] [-label LABEL] [-type ext4|btrfs|xfs] [-partition dos|gpt] [-min-size SIZE] "
                          "[-max-size SIZE] [-verbose] [DEVICE]";

struct job {
    const char *label, *type;
    bool force, verbose, type_given;
    enum table_kind kind; /* TABLE_NONE: whichever fits */
    uint64_t least, most;
};

enum verdict { EMPTY, UNFINISHED, DONE, TAKEN };

/* The partition's filesystem is what was asked for. */
static bool is_done(const struct job *job, const struct disk *disk, const struct table *table, struct content *content)
{
    struct disk part;
    if (table->count != 1 || !table->slots[0].linux_type || !disk_part(&part, disk, &table->slots[0], 0))
        return false;
    scoped_fd fd = disk_open(&part, false, false);
    return fd >= 0 && content_read(content, fd, part.size) && fs_known(content->type) &&
           (!job->type_given || !strcmp(content->type, job->type)) &&
           (!*job->label || !strcmp(content->label, job->label));
}

static enum verdict judge(const struct job *job, const struct disk *disk)
{
    struct content content;
    scoped_table table = {0};
    scoped_fd fd = disk_open(disk, false, false);
    if (fd < 0 || content_read(&content, fd, disk->size))
        return TAKEN;
    table_read(&table, fd, disk->sector, disk->size);
    if (table.unfinished)
        return disk_busy(disk) ? TAKEN : UNFINISHED;
    if (table.kind != TABLE_NONE)
        return is_done(job, disk, &table, &content) ? DONE : TAKEN;
    return content_blank(fd, disk->size) == 1 && !disk_busy(disk) ? EMPTY : TAKEN;
}

static bool fits(const struct job *job, const struct disk *disk)
{
    return disk->size >= job->least && (!job->most || disk->size <= job->most);
}

/* Nothing of what was there may be found again: beginnings and ends, where magic lies. */
static int wipe(int fd, const struct disk *disk)
{
    scoped_free unsigned char *zeros = must_alloc(MIB);
    size_t edge = disk->size < MIB ? (size_t)disk->size : MIB;
    return write_at(fd, zeros, edge, 0) < 0 || write_at(fd, zeros, edge, disk->size - edge) < 0 ? -1 : fsync(fd);
}

static int failed(const struct disk *disk, const char *what)
{
    tell("%s: %s: %s", disk->path, what, strerror(errno));
    return 1;
}

static int work(const struct job *job, const struct disk *disk, bool wiped)
{
    const char *reason;
    scoped_table table = {0};
    struct disk part;
    enum table_kind kind = job->kind ? job->kind : disk->size > 2ULL << 40 ? TABLE_GPT : TABLE_DOS;
    scoped_fd fd = disk_open(disk, true, true);
    if (fd < 0)
        return failed(disk, errno == EBUSY ? "it is in use" : "cannot be opened");
    if (table_make(&table, kind, disk->sector, disk->size, &reason) < 0) {
        tell("%s: %s", disk->path, reason);
        return 1;
    }
    tell("%s (%s): %s, %s%s%s", disk->path, size_text(disk->size), kind == TABLE_GPT ? "GPT" : "MBR", job->type,
         *job->label ? ", LABEL=" : "", job->label);
    if (ioctl(fd, BLKRRPART) < 0) /* before anything is written: a loop device, for one, may take none */
        return failed(disk, "the kernel would not look for partitions on it");
    if ((wiped && wipe(fd, disk) < 0) || table_write(&table, fd) < 0)
        return failed(disk, "the partition table cannot be written");
    if (ioctl(fd, BLKRRPART) < 0)
        return failed(disk, "the kernel does not take the new partition table");
    if (!disk_part(&part, disk, &table.slots[0], patience)) {
        tell("%s: its partition did not appear within %g s", disk->path, patience);
        return 1;
    }
    close(fd); /* the filesystem's maker wants the partition for itself */
    fd = -1;
    if (job->verbose)
        tell("%s: making %s", part.path, job->type);
    if (fs_make(job->type, job->label, part.path) < 0)
        return 1;
    table_mark(&table, false);
    fd = disk_open(disk, true, false);
    if (fd < 0 || table_write(&table, fd) < 0)
        return failed(disk, "the partition table cannot be written");
    tell("%s is ready", part.path);
    return 0;
}

static int on_device(const struct job *job, const char *path)
{
    struct disk disk;
    if (!disk_asked(&disk, path, patience))
        return 1;
    if (disk.partition) {
        tell("%s is a partition: name the disk", disk.path);
        return 1;
    }
    if (job->force)
        return work(job, &disk, true);
    scoped_free char *what = disk_describe(&disk);
    switch (judge(job, &disk)) {
    case EMPTY:
        return work(job, &disk, false);
    case UNFINISHED:
        return work(job, &disk, true);
    case DONE:
        tell("%s is formatted already", disk.path);
        return 0;
    default:
        tell("%s is left alone: there is %s on it. -force formats it, and all of that is lost", disk.path, what);
        return 1;
    }
}

/* One look at all disks; `aloud` says what is on those that will not do. -1: none will. */
static int look(const struct job *job, bool aloud)
{
    scoped_free struct disk *disks = NULL;
    size_t count = disks_list(&disks), done = 0;
    for (size_t i = 0; i < count; i++) {
        enum verdict verdict = judge(job, &disks[i]);
        bool free_disk = verdict == EMPTY || verdict == UNFINISHED;
        done += verdict == DONE;
        if (free_disk && !disks[i].readonly && fits(job, &disks[i]))
            return work(job, &disks[i], verdict == UNFINISHED);
        if (!aloud)
            continue;
        scoped_free char *what = disk_describe(&disks[i]);
        tell("%s (%s): %s", disks[i].path, size_text(disks[i].size), what);
    }
    if (done) {
        tell("no disk is empty, and %zu %s formatted already: nothing to do", done, done == 1 ? "is" : "are");
        return 0;
    }
    if (aloud)
        tell("%s%s", count ? "none is empty" : "there is no disk",
             job->least || job->most ? " and of the size that was asked for" : "");
    return -1;
}

static int on_first(const struct job *job)
{
    double end = now() + patience;
    for (bool first = true;; first = false) {
        bool last = now() >= end;
        int result = look(job, last || (first && job->verbose));
        if (result >= 0)
            return result;
        if (last) {
            tell("No eligible disks found");
            return 1;
        }
        pause_ms(AGAIN_MS);
    }
}

/* With a label the question is whether it exists, not where. (A CD's label is not what is asked for.) */
static bool label_is_there(const struct job *job)
{
    struct disk found;
    struct content content;
    int there = *job->label ? disk_with(&found, job->label, NULL, false, 0) : 0;
    if (there <= 0)
        return there < 0; /* on several: none is to be made, and that has been said */
    scoped_fd fd = disk_open(&found, false, false);
    if (fd < 0 || !content_read(&content, fd, found.size) || !fs_known(content.type))
        return false;
    tell("LABEL=%s is there already: %s", job->label, found.path);
    return true;
}

int format_main(int argc, char **argv)
{
    struct job job = {.label = "", .type = NULL};
    const char *kind = NULL, *least = "0", *most = "0", *reason;
    const struct flag flags[] = {
        {.names = "force", .yes = &job.force},      {.names = "label", .text = &job.label},
        {.names = "type", .text = &job.type},       {.names = "partition", .text = &kind},
        {.names = "verbose", .yes = &job.verbose},  {.names = "min-size", .text = &least},
        {.names = "max-size", .text = &most},
    };
    size_t count;
    program_is("format", how);
    scoped_free const char **left = command_read(flags, COUNT(flags), argc, argv, &count);
    job.type_given = job.type != NULL;
    job.type = job.type ? job.type : "ext4";
    if (count > 1)
        usage("one device at most, not %zu", count);
    if (!fs_known(job.type))
        usage("-type is %s, not %s", TYPES, job.type);
    if (kind && strcmp(kind, "dos") && strcmp(kind, "gpt"))
        usage("-partition is dos or gpt, not %s", kind);
    job.kind = !kind ? TABLE_NONE : !strcmp(kind, "dos") ? TABLE_DOS : TABLE_GPT;
    if (!size_parse(least, 1, &job.least) || !size_parse(most, 1, &job.most))
        usage("-min-size and -max-size are a number with K, M, G or T");
    if (fs_label_check(job.type, job.label, &reason) < 0)
        usage("-label %s: %s", job.label, reason);
    if (count)
        return on_device(&job, left[0]);
    if (job.force)
        tell("-force is for a disk that is named; only an empty one is looked for");
    return label_is_there(&job) ? 0 : on_first(&job);
}
