/* crypto: opens an encrypted device, and makes what is not there yet: the encryption, and a filesystem in it. A key
 * that doesn't fit looks like a device without a filesystem; so nothing is made unless the device was empty, or by
 * --force. */
#include "block.h"
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#define KEYS "/etc/dm-crypt"
#define PROGRAM "/usr/sbin/cryptsetup"
#define CIPHER "--cipher=aes-cbc-essiv:sha256"
#define MARK "linuxkit-unfinished" /* label of a LUKS device that was being made */

static const char how[] = "crypto [-l] [-k KEYFILE] [-f] [-q] NAME DEVICE";

struct job {
    const char *name;
    char *key, *opened; /* --key-file=, /dev/mapper/NAME */
    bool luks, force, quick;
};

static int plain_open(const struct job *job, const char *device)
{
    const char *argv[] = {PROGRAM,  "-q",   "open",    "--type=plain", CIPHER, "--key-size=256",
                          job->key, device, job->name, NULL};
    return run(argv);
}

static int luks_open(const struct job *job, const char *device)
{
    const char *argv[] = {PROGRAM, "-q", "open", "--type=luks", job->key, device, job->name, NULL};
    return run(argv);
}

/* It is opened at every boot, on small machines, too: argon2id with four passes over 32 MiB.
 * Numbers that are fixed also save measuring the machine, which takes longer than the work itself. */
static int luks_make(const struct job *job, const char *device)
{
    const char *argv[] = {PROGRAM, "-q", "luksFormat", "--type=luks2", CIPHER, "--key-size=256", "--label=" MARK,
                          "--pbkdf=argon2id", "--pbkdf-memory=32768", "--pbkdf-parallel=1",
                          "--pbkdf-force-iterations=4", job->key, device, NULL};
    return run(argv);
}

static int luks_finish(const char *device)
{
    const char *argv[] = {PROGRAM, "-q", "config", "--label=", device, NULL};
    return run(argv);
}

static void let_go(const struct job *job)
{
    const char *argv[] = {PROGRAM, "-q", "close", job->name, NULL};
    run(argv);
}

/* Is there something inside that makes sense? -1: it can't be read. */
static int has_content(const char *device, uint64_t size, unsigned sector)
{
    struct content content;
    scoped_table table = {0};
    scoped_fd fd = open(device, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (content_read(&content, fd, size))
        return 1;
    table_read(&table, fd, sector, size);
    return table.kind == TABLE_DOS || table.kind == TABLE_GPT;
}

/* Encrypted zeros everywhere: who reads the device can't tell where data is. */
static int zero(const char *device, uint64_t size)
{
    scoped_free char *zeros = must_alloc(MIB);
    scoped_fd fd = open(device, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    for (uint64_t at = 0; at < size; at += MIB)
        if (write_at(fd, zeros, size - at < MIB ? (size_t)(size - at) : MIB, at) < 0)
            return -1;
    return fsync(fd);
}

static int fill(const struct job *job, uint64_t size)
{
    if (!job->quick) {
        tell("%s of %s are overwritten (-q leaves that out)", size_text(size), job->opened);
        if (zero(job->opened, size) < 0) {
            tell("%s: %s", job->opened, strerror(errno));
            return -1;
        }
    }
    return fs_make("ext4", NULL, job->opened);
}

static int refuse(const struct disk *disk, const char *what)
{
    tell("%s is left alone: %s. --force encrypts it anew, and all that is on it is lost", disk->path, what);
    return 1;
}

/* What was at the device's ends would still be found there, where nothing is written over it. */
static int wipe(const struct disk *disk)
{
    scoped_free char *zeros = must_alloc(MIB);
    size_t edge = disk->size < MIB ? (size_t)disk->size : MIB;
    scoped_fd fd = disk_open(disk, true, true);
    if (fd < 0 || write_at(fd, zeros, edge, 0) < 0 || write_at(fd, zeros, edge, disk->size - edge) < 0) {
        tell("%s: %s", disk->path, strerror(errno));
        return -1;
    }
    return fsync(fd);
}

/* What is to be done with the device, found out before it is opened. */
enum plan { OPEN, MAKE, REFUSE };

static enum plan judge(const struct job *job, int fd, const struct disk *disk)
{
    struct content content;
    bool known = content_read(&content, fd, disk->size), luks = known && !strcmp(content.type, "crypto_LUKS");
    if (job->force || (!known && content_blank(fd, disk->size) == 1))
        return MAKE;
    if (job->luks)
        return !luks ? REFUSE : strcmp(content.label, MARK) ? OPEN : MAKE;
    return luks ? REFUSE : OPEN; /* encrypted data may look like anything, by chance */
}

static int open_it(const struct job *job, const struct disk *disk)
{
    struct disk inside;
    scoped_free char *what = disk_describe(disk);
    scoped_free char *why = format("there is %s on it", what);
    scoped_fd fd = disk_open(disk, false, true);
    if (fd < 0) {
        tell("%s: %s", disk->path, errno == EBUSY ? "it is in use" : strerror(errno));
        return 1;
    }
    enum plan plan = judge(job, fd, disk);
    close(fd);
    fd = -1;
    if (plan == REFUSE)
        return refuse(disk, why);
    if ((job->force && wipe(disk) < 0) || (job->luks && plan == MAKE && luks_make(job, disk->path) != 0))
        return 1;
    int status = job->luks ? luks_open(job, disk->path) : plain_open(job, disk->path);
    if (status != 0) {
        tell("%s is not opened: cryptsetup ends with status %d%s", disk->path, status,
             status == 2 ? ": the key doesn't fit" : "");
        return 1;
    }
    if (!disk_at(&inside, job->opened, patience)) {
        tell("%s did not appear", job->opened);
        return 1;
    }
    if (plan == MAKE) {
        if (fill(job, inside.size) < 0 || (job->luks && luks_finish(disk->path) != 0))
            return 1;
    } else if (has_content(job->opened, inside.size, inside.sector) != 1) {
        let_go(job);
        return refuse(disk, job->luks ? "there is no filesystem behind the encryption"
                                      : "the key doesn't fit, or there is no filesystem behind it");
    }
    tell("%s is %s", job->opened, disk->path);
    return 0;
}

int crypt_main(int argc, char **argv)
{
    const char *key = "key";
    struct job job = {0};
    const struct flag flags[] = {
        {.names = "l luks", .yes = &job.luks},   {.names = "k key-file", .text = &key},
        {.names = "f force", .yes = &job.force}, {.names = "q quick", .yes = &job.quick},
    };
    size_t count;
    struct disk disk;
    program_is("dm-crypt", how);
    scoped_free const char **left = command_read(flags, COUNT(flags), argc, argv, &count);
    if (count != 2)
        usage("a name and a device");
    job.name = left[0];
    if (!*job.name || strchr(job.name, '/') || !strcmp(job.name, "control"))
        usage("%s cannot be a name below /dev/mapper", job.name);
    scoped_free char *file = *key == '/' ? must_dup(key) : format(KEYS "/%s", key);
    if (!exists(file)) {
        tell("there is no key: %s: %s", file, strerror(errno));
        return 1;
    }
    scoped_free char *option = format("--key-file=%s", file), *opened = format("%s/mapper/%s", where.dev, job.name);
    job.key = option;
    job.opened = opened;
    if (exists(opened) && disk_at(&disk, opened, 0)) {
        tell("%s is open already", opened);
        return 0;
    }
    if (!disk_asked(&disk, left[1], patience))
        return 1;
    return open_it(&job, &disk);
}
