/* Drives the storage packages' parts from tests/guest: test-storage WORD ARGUMENT..., results on standard output. */
#define _GNU_SOURCE
#include "../include/block.h"
#include "../include/command.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

int format_main(int argc, char **argv);
int mount_main(int argc, char **argv);
int extend_main(int argc, char **argv);
int swap_main(int argc, char **argv);
int losetup_main(int argc, char **argv);
int crypt_main(int argc, char **argv);
int snapshot_main(int argc, char **argv);

static const struct {
    const char *name;
    int (*main)(int argc, char **argv);
} programs[] = {
    {"format", format_main}, {"mount", mount_main}, {"extend", extend_main},     {"swap", swap_main},
    {"losetup", losetup_main}, {"crypt", crypt_main}, {"snapshot", snapshot_main},
};

/* content FILE: what it is, then whether it is blank. */
static int test_content(char **args)
{
    struct content found;
    scoped_fd fd = open(args[0], O_RDONLY);
    uint64_t size = (uint64_t)lseek(fd, 0, SEEK_END);
    if (content_read(&found, fd, size))
        printf("%s%s [%s] [%s] %llu\n", found.type, found.filesystem ? "" : "*", found.label, found.uuid,
               (unsigned long long)found.size);
    else
        printf("nothing, blank %d\n", content_blank(fd, size));
    return 0;
}

static void print_table(const struct table *table)
{
    static const char *const kinds[] = {"none", "dos", "gpt", "damaged"};
    printf("%s%s\n", kinds[table->kind], table->unfinished ? " unfinished" : "");
    for (size_t i = 0; i < table->count; i++)
        printf("%u %llu %llu%s\n", table->slots[i].number, (unsigned long long)table->slots[i].first,
               (unsigned long long)table->slots[i].last, table->slots[i].linux_type ? " linux" : "");
}

/* table FILE SECTOR */
static int test_table(char **args)
{
    scoped_table table;
    scoped_fd fd = open(args[0], O_RDONLY);
    table_read(&table, fd, (unsigned)atoi(args[1]), (uint64_t)lseek(fd, 0, SEEK_END));
    print_table(&table);
    return 0;
}

/* make FILE SECTOR dos|gpt finished|unfinished */
static int test_make(char **args)
{
    const char *reason;
    scoped_table table = {0};
    scoped_fd fd = open(args[0], O_RDWR);
    if (table_make(&table, *args[2] == 'd' ? TABLE_DOS : TABLE_GPT, (unsigned)atoi(args[1]),
                   (uint64_t)lseek(fd, 0, SEEK_END), &reason) < 0) {
        printf("%s\n", reason);
        return 1;
    }
    table_mark(&table, *args[3] == 'u');
    return table_write(&table, fd) < 0 ? 1 : 0;
}

/* grow FILE SECTOR NUMBER: the partition with that number, as far as it goes. */
static int test_grow(char **args)
{
    scoped_table table;
    scoped_fd fd = open(args[0], O_RDWR);
    table_read(&table, fd, (unsigned)atoi(args[1]), (uint64_t)lseek(fd, 0, SEEK_END));
    for (size_t i = 0; i < table.count && table.kind != TABLE_DAMAGED; i++) {
        uint64_t last = table_room(&table, &table.slots[i]);
        if (table.slots[i].number != (unsigned)atoi(args[2]) || last <= table.slots[i].last)
            continue;
        table_grow(&table, &table.slots[i], last);
        return table_write(&table, fd) < 0 ? 1 : 0;
    }
    return 2;
}

/* disks, or devices: their names, in order. */
static int test_list(bool whole)
{
    scoped_free struct disk *all = NULL;
    size_t count = whole ? disks_list(&all) : devices_list(&all);
    for (size_t i = 0; i < count; i++)
        printf("%s %u:%u %llu %u%s\n", all[i].path + strlen(where.dev) + 1, all[i].major, all[i].minor,
               (unsigned long long)all[i].size, all[i].sector, all[i].readonly ? " ro" : "");
    return 0;
}

/* test-storage SYS DEV WORD ARGUMENT... */
int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    where = (struct where){argv[1], argv[2]};
    patience = 0;
    const char *word = argv[3];
    char **args = argv + 4;
    int count = argc - 4;
    for (size_t i = 0; i < COUNT(programs); i++)
        if (!strcmp(word, programs[i].name))
            return programs[i].main(argc - 3, argv + 3);
    if (!strcmp(word, "content") && count == 1)
        return test_content(args);
    if (!strcmp(word, "table") && count == 2)
        return test_table(args);
    if (!strcmp(word, "make") && count == 4)
        return test_make(args);
    if (!strcmp(word, "grow") && count == 3)
        return test_grow(args);
    if (!strcmp(word, "disks") || !strcmp(word, "devices"))
        return test_list(word[1] == 'i');
    if (!strcmp(word, "size") && count == 2) {
        uint64_t bytes;
        bool good = size_parse(args[0], (uint64_t)atoll(args[1]), &bytes);
        printf("%lld\n", good ? (long long)bytes : -1LL);
        return 0;
    }
    if (!strcmp(word, "with") && count == 2) {
        struct disk found;
        bool label = !strcmp(args[0], "label");
        int there = disk_with(&found, label ? args[1] : NULL, label ? NULL : args[1], false, 0);
        printf("%s\n", there < 0 ? "several" : there ? found.name : "-");
        return 0;
    }
    fprintf(stderr, "test-storage: bad arguments\n");
    return 2;
}
