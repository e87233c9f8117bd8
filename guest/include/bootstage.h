/* The boot stage: finds the root filesystem on a device, has the kernel prove it when asked to, and starts its init. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REASON_MAX 512
#define ROOT_SECONDS 30 /* for a device to appear, when the command line doesn't say */
#define HASH_BLOCK 4096

/* dm-verity: what linuxkit.verity=1:BLOCKS:HASHSTART:SALT:ROOTHASH says. Salt and hash are hexadecimal. */
struct verity {
    uint64_t blocks, hash_start; /* in blocks of 4096 bytes */
    char salt[513], root_hash[65]; /* salt: "-" for none, as dm-verity has it */
};

struct root_options {
    char *root, *types, *flags, *init; /* NULL when not given */
    bool writable;
    double delay, wait; /* seconds; a wait below 0 never ends */
    bool verified;
    struct verity verity;
};

/* The words of the kernel's command line that are about the root. 0, or -1 and why. */
int root_options_read(struct root_options *options, const char *cmdline, char reason[static REASON_MAX]);
void root_options_free(struct root_options *options);
/* The value of linuxkit.verity=. 0, or -1 when anything about it is not as it should be. */
int verity_parse(struct verity *verity, const char *text);

/* What a filesystem says about itself; texts are cut to their room and closed. */
struct superblock {
    const char *type; /* for mount(2) */
    char label[40], uuid[40];
};

/* Reads a few blocks of a device or file. False: none of squashfs, erofs, ext4, iso9660. */
bool superblock_read(struct superblock *found, int fd);
/* As many bytes as are there; what is missing is zero. Returns how many were read. */
size_t read_at(int fd, void *bytes, size_t size, uint64_t offset);

/* Opened for reading without waiting, or -1 with errno; ENOMEDIUM: the drive is empty. Nothing is read. */
int medium_open(const char *path, int flags);
/* Is one a partition of the other, so that what both begin with may be the same thing? */
bool device_nested(const char *sys, const char *one, const char *other);
/* "serial number QM00001", or "no serial number"; the caller frees it. */
char *device_serial(const char *sys, const char *name);
/* A stranger's words, for the console: what can't be shown becomes '?'. */
void make_printable(char *text);

struct partition {
    unsigned number;  /* from 1, as in the device's name */
    uint64_t first;   /* sector of the disk's own size */
    char uuid[40];    /* lower case, as PARTUUID= has it */
    char label[112];  /* UTF-8 */
};

/* The partitions that a disk's GPT lists, or those four of its MBR. The caller frees `found`. */
size_t partitions_read(struct partition **found, int fd, unsigned sector, uint64_t size);
/* PARTUUID of an MBR's partition is its disk's signature and its number; 0: the disk has none, or has a GPT. */
uint32_t mbr_signature(int fd);

/* Where to look for devices; tests have their own. */
struct places {
    const char *sys, *dev; /* /sys, /dev */
};

struct device {
    char path[300]; /* in /dev */
    unsigned major, minor;
    uint64_t size; /* bytes */
};

/* Can `root=` be looked for in this form? */
bool spec_known(const char *spec);
/* 1: `spec`, as behind root=, is there. 0: it is not. -1: several have it, and `reason` names two. */
int device_find(struct device *found, const struct places *places, const char *spec, char reason[static REASON_MAX]);
/* One line for each device that is there, for people; the caller frees with free_names(). */
char **devices_describe(const struct places *places, size_t *count);

/* Makes a read-only device whose blocks are checked as they are read; `device` becomes that one. 0, or -1 and why. */
int verity_open(struct device *device, const struct verity *verity, char reason[static REASON_MAX]);
/* The table that device-mapper is given. The caller frees it. */
char *verity_table(const struct device *device, const struct verity *verity);

/* Frees the initramfs and makes the mount at `folder` the root. 0, or -1 with errno. */
int switch_root(const char *folder);
