/* fuzz TARGET SECONDS SEED CORPUS...: changes what the corpus has, keeps what reaches code that nothing before it did,
 * and goes on until the time is up. fuzz TARGET CORPUS...: each file once. The same seed makes the same inputs for as long
 * as it runs. What a sanitizer, a signal or ten seconds of silence end is written to $FUZZ_FOUND first. */
#define _GNU_SOURCE
#include "fuzz.h"
#include "util.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define LENGTH_MAX 65536
#define KEPT_MAX 20000
#define SILENCE 10 /* seconds for one input */

static const struct {
    const char *name;
    fuzz_target *run;
} targets[] = {
    {"json", fuzz_json},     {"http", fuzz_http},     {"url", fuzz_url},       {"known", fuzz_known},
    {"seed", fuzz_seed},     {"metal", fuzz_metal},   {"encode", fuzz_encode}, {"plan", fuzz_plan},
    {"grpc", fuzz_grpc},     {"memlog", fuzz_memlog}, {"table", fuzz_table},   {"content", fuzz_content},
    {"modules", fuzz_modules}, {"options", fuzz_options}, {"root", fuzz_root},
    {"canary", fuzz_canary},
};

/* -- what code has been reached: gcc calls this at each edge of code built with -fsanitize-coverage=trace-pc */

static unsigned char reached[1 << 16];
static bool reached_more;

void __sanitizer_cov_trace_pc(void);
#ifdef __clang__
#define UNSEEN no_sanitize("address", "undefined", "coverage")
#else
#define UNSEEN no_sanitize("address", "undefined"), no_sanitize_coverage
#endif
__attribute__((UNSEEN)) void __sanitizer_cov_trace_pc(void)
{
    uintptr_t at = (uintptr_t)__builtin_return_address(0);
    unsigned char *place = &reached[(at ^ at >> 16) & 0xFFFF];
    if (!*place) {
        *place = 1;
        reached_more = true;
    }
}

/* -- the end of one input */

static const unsigned char *input;
static size_t input_length;

static void found(int signal_number)
{
    const char *path = getenv("FUZZ_FOUND");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644) : -1;
    if (fd >= 0 && write(fd, input, input_length) >= 0)
        close(fd);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "abort_on_error=1:detect_leaks=1:allocator_may_return_null=0:handle_abort=0";
}

const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void)
{
    return "abort_on_error=1:print_stacktrace=1";
}

/* -- inputs */

struct kept {
    unsigned char *bytes;
    size_t length;
};
static struct kept *corpus;
static size_t corpus_count;

static void keep(const unsigned char *bytes, size_t length)
{
    if (corpus_count == KEPT_MAX)
        return;
    unsigned char *copy = must_alloc(length + 1);
    if (length)
        memcpy(copy, bytes, length);
    *APPEND(corpus, corpus_count) = (struct kept){copy, length};
}

static uint64_t state;

static uint64_t dice(uint64_t sides)
{
    state ^= state << 13; /* xorshift64 */
    state ^= state >> 7;
    state ^= state << 17;
    return sides ? state % sides : 0;
}

static size_t insert(unsigned char *bytes, size_t length, size_t at, const unsigned char *piece, size_t size)
{
    if (length + size > LENGTH_MAX)
        return length;
    memmove(bytes + at + size, bytes + at, length - at);
    memcpy(bytes + at, piece, size);
    return length + size;
}

static size_t change(unsigned char *bytes, size_t length)
{
    static const char *const words[] = {"\0\0\0\0", "\xff\xff\xff\xff", "\x7f\xff\xff\xff", "99999999999999999999", "-1", "\"",
                                        "\\u0000", "\n", "\r\n\r\n", "{\"a\":", "[[[[[[[[", ":", "=", "\t", "%s", "../"};
    size_t at = (size_t)dice(length + 1), size = (size_t)dice(9) + 1, i = (size_t)dice(COUNT(words));
    const struct kept *other = &corpus[dice(corpus_count)];
    unsigned char piece[64];
    switch (dice(8)) {
    case 0: /* a bit */
        if (at < length)
            bytes[at] ^= (unsigned char)(1u << dice(8));
        return length;
    case 1: /* a byte, or a number a little larger or smaller */
        if (at < length)
            bytes[at] = (unsigned char)(dice(2) ? dice(256) : bytes[at] + dice(33) - 16);
        return length;
    case 2: /* less */
        size = dice(4) ? size : (size_t)dice(length + 1);
        if (at + size > length)
            return at;
        memmove(bytes + at, bytes + at + size, length - at - size);
        return length - size;
    case 3: /* the same again, often */
        size = at + sizeof(piece) < length ? (size_t)dice(sizeof(piece)) + 1 : 0;
        memcpy(piece, bytes + at, size);
        for (size_t n = (size_t)dice(dice(8) ? 4 : 300) + 1; size && n--;)
            length = insert(bytes, length, at, piece, size);
        return length;
    case 4: /* words that parsers trip over */
        return insert(bytes, length, at, (const unsigned char *)words[i], i < 3 ? 4 : strlen(words[i]));
    case 5: /* the same, in place */
        size = i < 3 ? 4 : strlen(words[i]);
        if (at + size <= length)
            memcpy(bytes + at, words[i], size);
        return length;
    case 6: /* a piece of another one */
        i = (size_t)dice(other->length + 1);
        size = other->length - i < 256 ? other->length - i : (size_t)dice(256);
        return insert(bytes, length, at, other->bytes + i, size);
    default: /* chance */
        for (i = 0; i < size; i++)
            piece[i] = (unsigned char)dice(256);
        return insert(bytes, length, at, piece, size);
    }
}

static void run(fuzz_target *target, const unsigned char *bytes, size_t length)
{
    unsigned char *exact = malloc(length ? length : 1); /* so that one byte too many is seen */
    if (length)
        memcpy(exact, bytes, length);
    input = exact;
    input_length = length;
    alarm(SILENCE);
    target(exact, length);
    alarm(0);
    free(exact);
}

/* -- for the targets */

char *fuzz_text(const unsigned char *bytes, size_t length)
{
    char *text = malloc(length + 1);
    if (length)
        memcpy(text, bytes, length);
    text[length] = 0;
    return text;
}

int fuzz_socket(const unsigned char *bytes, size_t length)
{
    static int other = -1;
    int ends[2];
    close_scoped(&other); /* the last one's: it had to stay open, to be answered */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
        abort();
    int room = 1 << 20;
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    (void)!write(ends[1], bytes, length);
    shutdown(ends[1], SHUT_WR);
    other = ends[1];
    return ends[0];
}

int fuzz_disk(uint64_t size)
{
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("disk", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)size) < 0)
        abort();
    return fd;
}

static void read_corpus(char *const *paths)
{
    for (; *paths; paths++) {
        size_t length;
        scoped_free char *bytes = read_file(*paths, LENGTH_MAX, &length);
        if (!bytes) {
            fprintf(stderr, "fuzz: %s: cannot be read\n", *paths);
            exit(2);
        }
        keep((const unsigned char *)bytes, length);
    }
}

int main(int argc, char **argv)
{
    static const int ends[] = {SIGSEGV, SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL};
    fuzz_target *target = NULL;
    for (size_t i = 0; argc > 1 && i < COUNT(targets); i++)
        if (!strcmp(targets[i].name, argv[1]))
            target = targets[i].run;
    if (!target) {
        for (size_t i = 0; i < COUNT(targets); i++)
            printf("%s\n", targets[i].name);
        return argc > 1 ? 2 : 0;
    }
    bool timed = argc > 3 && argv[2][0] >= '0' && argv[2][0] <= '9';
    double seconds = timed ? atof(argv[2]) : 0;
    state = timed ? strtoull(argv[3], NULL, 10) * 0x9E3779B97F4A7C15ULL + 1 : 1;
    for (size_t i = 0; i < COUNT(ends); i++)
        signal(ends[i], found);
    signal(SIGPIPE, SIG_IGN);
    read_corpus(argv + (timed ? 4 : 2));
    if (!freopen("/dev/null", "w", stdout))
        return 1;
    size_t runs = corpus_count, begun = corpus_count;
    for (size_t i = 0; i < begun; i++)
        run(target, corpus[i].bytes, corpus[i].length);
    static unsigned char bytes[LENGTH_MAX];
    if (!corpus_count)
        keep((const unsigned char *)"", 0);
    for (double end = now() + seconds; now() < end; runs++) {
        const struct kept *from = &corpus[dice(corpus_count)];
        size_t length = from->length;
        memcpy(bytes, from->bytes, length);
        for (uint64_t n = 1ULL << dice(5); n--;)
            length = change(bytes, length);
        reached_more = false;
        run(target, bytes, length);
        if (reached_more)
            keep(bytes, length);
    }
    fprintf(stderr, "fuzz: %s: %zu inputs, %zu of them new code, seed %s\n", argv[1], runs, corpus_count - begun,
            timed ? argv[3] : "-");
    for (size_t i = 0; i < corpus_count; i++)
        free(corpus[i].bytes);
    free(corpus);
    fuzz_disk(0);
    return 0;
}
