/* Clock, loopback, limits, names. */
#include "setup.h"
#include "util.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <errno.h>
#include <linux/rtc.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

#define SANE_CLOCK 1483228800 /* 2017-01-01: no machine that boots this stands before it */

void set_clock(void)
{
    if (time(NULL) > SANE_CLOCK)
        return;
    scoped_fd rtc = open("/dev/rtc0", O_RDONLY | O_CLOEXEC);
    struct rtc_time read;
    if (rtc < 0 || ioctl(rtc, RTC_RD_TIME, &read) < 0)
        return;
    struct tm utc = {.tm_year = read.tm_year, .tm_mon = read.tm_mon, .tm_mday = read.tm_mday,
                     .tm_hour = read.tm_hour, .tm_min = read.tm_min, .tm_sec = read.tm_sec};
    struct timeval value = {.tv_sec = timegm(&utc)};
    settimeofday(&value, NULL);
}

static void set_address(struct ifreq *request, const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    inet_pton(AF_INET, text, &address.sin_addr);
    memcpy(&request->ifr_addr, &address, sizeof(address));
}

void loopback_up(void)
{
    scoped_fd sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo"};
    if (sock < 0)
        return;
    set_address(&request, "127.0.0.1");
    ioctl(sock, SIOCSIFADDR, &request);
    set_address(&request, "255.0.0.0");
    ioctl(sock, SIOCSIFNETMASK, &request);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(sock, SIOCSIFFLAGS, &request) < 0)
        say("loopback: %s", strerror(errno));
}

void set_limits(void)
{
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){1048576, 1048576});
    setrlimit(RLIMIT_NPROC, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
}

void set_hostname(void)
{
    scoped_free char *name = read_line("/etc/hostname");
    if (name && *name)
        sethostname(name, strlen(name));
    char current[256] = "";
    gethostname(current, sizeof(current) - 1);
    if (*current && strcmp(current, "(none)"))
        return;
    scoped_free char *mac = read_line("/sys/class/net/eth0/address");
    if (!mac)
        mac = must_dup("");
    char *to = mac;
    for (const char *at = mac; *at; at++)
        if (*at != ':')
            *to++ = *at;
    *to = 0;
    scoped_free char *made = format("linuxkit-%s", mac);
    sethostname(made, strlen(made));
}

void make_resolv_target(void)
{
    static const char path[] = "/etc/resolv.conf";
    char target[4096];
    ssize_t length = readlink(path, target, sizeof(target) - 1);
    if (length <= 0)
        return;
    target[length] = 0;
    scoped_free char *full = *target == '/' ? must_dup(target) : format("/etc/%s", target);
    make_parents(full);
    scoped_fd fd = open(full, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        say("%s: %s", full, strerror(errno));
}
