/* What the builder and depmod wrote, and command lines. */
#include "fuzz.h"
#include "modules.h"
#include "plan.h"
#include "util.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

void fuzz_plan(const unsigned char *bytes, size_t length)
{
    struct plan plan;
    char error[200] = "";
    if (plan_parse(&plan, fuzz_text(bytes, length), length, error, sizeof(error)) == 0) {
        for (size_t i = 0; i < plan.container_count; i++) {
            const struct container *at = &plan.containers[i];
            if (strchr(at->name, '/') || *at->name == '.' || *at->directory != '/')
                abort();
        }
        plan_find(&plan, SERVICE, "a");
        plan_free(&plan);
    } else if (!*error) {
        abort();
    }
}

/* -- modules.*: the files are parts of the input, with a zero byte between them */

static const unsigned char *parts;
static size_t parts_length;

static char *part(const char *path, size_t limit, size_t *length)
{
    static const char *const names[] = {"modules.dep", "modules.alias", "modules.softdep", "modules.builtin"};
    const unsigned char *at = parts, *end = parts + parts_length;
    (void)limit;
    for (size_t i = 0; at <= end && i < COUNT(names); i++) {
        size_t left = (size_t)(end - at);
        const unsigned char *stop = left ? memchr(at, 0, left) : NULL;
        size_t size = stop ? (size_t)(stop - at) : left;
        if (ends_with(path, names[i])) {
            if (length)
                *length = size;
            return fuzz_text(at, size);
        }
        if (!stop)
            break;
        at = stop + 1;
    }
    errno = ENOENT;
    return NULL;
}

#define read_file part
#define modules_open fuzzed_open
#define modules_open_running fuzzed_open_running
#define modules_close fuzzed_close
#define modules_load fuzzed_load
#define alias_matches fuzzed_matches
int fuzzed_open(struct modules *index, const char *folder);
int fuzzed_open_running(struct modules *index);
void fuzzed_close(struct modules *index);
int fuzzed_load(struct modules *index, const char *name, const char *parameters);
bool fuzzed_matches(const char *pattern, const char *alias);
#include "../src/modules.c"
#undef read_file

void fuzz_modules(const unsigned char *bytes, size_t length)
{
    parts = bytes;
    parts_length = length;
    struct modules index;
    if (fuzzed_open(&index, "/lib/modules/x") == 0) {
        index.dry = true;
        fuzzed_load(&index, "virtio_net", "");
        fuzzed_load(&index, "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", "");
        if (index.file_count)
            fuzzed_load(&index, index.files[index.file_count - 1].name, "a=b");
    }
    fuzzed_close(&index);
}

/* -- options: words are lines. A refusal would end the process. */

static jmp_buf refused;
static FILE *quiet;
static void **made; /* what has to be freed after a jump */
static size_t made_count;

static _Noreturn void jump(int status)
{
    longjmp(refused, status + 1);
}

static void *noted(size_t size)
{
    return *APPEND(made, made_count) = must_alloc(size);
}

#define program_is fuzzed_is
#define tell fuzzed_tell
#define usage fuzzed_usage
#define number_parse fuzzed_number
#define size_parse fuzzed_size
#define size_text fuzzed_size_text
#define command_read fuzzed_read
#define command_none fuzzed_none
#define command_start fuzzed_start
#define exit jump
#define must_alloc noted
#undef stderr
#define stderr quiet
#undef STDERR_FILENO
#define STDERR_FILENO fileno(quiet)
#include "../src/command.c"
#undef must_alloc
#undef exit

void fuzz_options(const unsigned char *bytes, size_t length)
{
    static char *argv[300];
    scoped_free char *text = fuzz_text(bytes, length), *rest = text;
    const char *volatile word = NULL;
    (void)word;
    int argc = 0;
    argv[argc++] = "program";
    for (char *line; argc < 299 && (line = next_line((char **)&rest));)
        argv[argc++] = line;
    argv[argc] = NULL;
    rest = NULL;
    quiet = quiet ? quiet : fopen("/dev/null", "w");
    static const char *name;
    static const char **list;
    static size_t list_count, count;
    static long number;
    static bool yes, all;
    uint64_t value;
    number_parse(argv[argc - 1], 1, UINT64_MAX, &value);
    size_parse(argv[argc - 1], 1 << 20, &value);
    const struct flag flags[] = {
        {.names = "l luks", .yes = &yes}, {.names = "a", .yes = &all, .help = "all"}, {.names = "name", .text = &name},
        {.names = "n number", .number = &number}, {.names = "condition", .list = &list, .count = &list_count},
    };
    program_is("program", "program [FLAG...]");
    if (!setjmp(refused)) {
        if (argc % 2)
            command_start(flags, COUNT(flags), argc, argv);
        else if (!command_read(flags, COUNT(flags), argc, argv, &count) || count >= (size_t)argc)
            abort();
    }
    for (size_t i = 0; i < made_count; i++)
        free(made[i]);
    free(made);
    made = NULL;
    made_count = 0;
    free(list);
    list = NULL;
    list_count = 0;
}
