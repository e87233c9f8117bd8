/* rngd: gives the kernel random numbers that the processor makes (RDSEED or RDRAND; RNDR on arm64). */
#include "ending.h"
#include "command.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define EVERY_MS 60000 /* while the kernel wants none */
#define TRIES 100      /* the processor may be out of them for a moment */

#if defined(__x86_64__)
#include <cpuid.h>

static bool has_seed(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & 1U << 18;
}

static bool has_rand(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & 1U << 30;
}

static bool seed(uint64_t *value)
{
    unsigned char good;
    __asm__ volatile("rdseed %0; setc %1" : "=r"(*value), "=qm"(good) : : "cc");
    return good;
}

static bool rand64(uint64_t *value)
{
    unsigned char good;
    __asm__ volatile("rdrand %0; setc %1" : "=r"(*value), "=qm"(good) : : "cc");
    return good;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

static bool has_seed(void)
{
    return getauxval(AT_HWCAP2) & 1UL << 16; /* HWCAP2_RNG: both RNDR and RNDRRS */
}

static bool has_rand(void)
{
    return has_seed();
}

static bool seed(uint64_t *value)
{
    uint64_t good;
    __asm__ volatile("mrs %0, s3_3_c2_c4_1; cset %1, ne" : "=r"(*value), "=r"(good) : : "cc");
    return good;
}

static bool rand64(uint64_t *value)
{
    uint64_t good;
    __asm__ volatile("mrs %0, s3_3_c2_c4_0; cset %1, ne" : "=r"(*value), "=r"(good) : : "cc");
    return good;
}
#else
static bool has_seed(void)
{
    return false;
}

static bool has_rand(void)
{
    return false;
}

static bool seed(uint64_t *value)
{
    (void)value;
    return false;
}

static bool rand64(uint64_t *value)
{
    (void)value;
    return false;
}
#endif

/* 0, or -1 with errno. */
static int give(int random, bool (*source)(uint64_t *))
{
    uint64_t value = 0;
    int tries = 0;
    while (!source(&value) && tries++ < TRIES)
        pause_ms(1);
    if (tries > TRIES) {
        errno = EAGAIN;
        return -1;
    }
    union {
        struct rand_pool_info info;
        unsigned char bytes[sizeof(struct rand_pool_info) + sizeof(value)];
    } pool = {.info = {.entropy_count = 64, .buf_size = sizeof(value)}};
    memcpy(pool.bytes + sizeof(pool.info), &value, sizeof(value));
    return ioctl(random, RNDADDENTROPY, &pool);
}

int main(int argc, char **argv)
{
    bool once = false, no_rand = false, no_seed = false;
    const struct flag flags[] = {
        {.names = "1", .yes = &once, .help = "once, then end"},
        {.names = "disable-rdrand", .yes = &no_rand, .help = "without RDRAND"},
        {.names = "disable-rdseed", .yes = &no_seed, .help = "without RDSEED"},
    };
    program_is("rngd", "rngd [-1] [-disable-rdrand] [-disable-rdseed]");
    command_none(flags, COUNT(flags), argc, argv);
    end_by_signals();
    bool (*source)(uint64_t *) = has_seed() && !no_seed ? seed : has_rand() && !no_rand ? rand64 : NULL;
    if (!source) {
        fputs("rngd: this processor makes no random numbers, or its ways are turned off\n", stderr);
        return 1;
    }
    scoped_fd random = open("/dev/random", O_RDWR | O_CLOEXEC);
    for (bool told = false;; told = true) {
        if (random < 0 || give(random, source) < 0) {
            const char *hint = errno == EPERM ? "; it takes CAP_SYS_ADMIN" : "";
            fprintf(stderr, "rngd: /dev/random: %s%s\n", strerror(errno), hint);
            return 1;
        }
        if (!told) {
            printf("rngd: 64 bits from the processor's %s\n", source == seed ? "seed" : "generator");
            fflush(stdout);
        }
        if (once)
            return 0;
        struct pollfd wants = {.fd = random, .events = POLLOUT}; /* it asks only as long as it was never full */
        if (poll(&wants, 1, EVERY_MS) > 0)
            pause_ms(1);
    }
}
